"""Keys of settings, which decide whether a result has to be made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, asdict, fields, is_dataclass, replace
from typing import Any

from dpbatch.settings import RawSettings, RestoreSettings, Settings

# Raise it in a release that gives other pixels than the last one for equal settings and weights.
PIXEL_VERSION = 8
_OWN_DEMOSAIC_VERSION = 3
_EARLIER_SCALE = "1"
"""What releases without the setting did, and the default before it was auto."""


def fingerprint(
    settings: Settings,
    weights_sha256: str,
    clip_id: str = "",
    *,
    mask_blake2b: str = "",
    pixel_version: int | None = None,
) -> str:
    """Return a key that is equal for runs that write equal results.

    Covers the settings that change what is written, the content of the weights of the network and
    of CLIP (clip_id: from dpbatch.tools.models.clip_id) and PIXEL_VERSION; not the output path, the
    device and the tile.

    mask_blake2b: of the mask's content. pixel_version: of an earlier release; None for this one's.
    """
    version = PIXEL_VERSION if pixel_version is None else pixel_version
    parts = [version, weights_sha256, clip_id, _pixel_values(settings, version)]
    if mask_blake2b:
        parts.append(mask_blake2b)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def earlier_fingerprints(
    settings: Settings, weights_sha256: str, clip_id: str = ""
) -> tuple[str, ...]:
    """Return the keys that earlier releases, with other pixels, gave to equal settings.

    Where no scale is chosen they restored at full size.
    """
    chosen = settings.restore.scale or _EARLIER_SCALE
    earlier = replace(settings, restore=replace(settings.restore, scale=chosen))
    return tuple(
        fingerprint(earlier, weights_sha256, clip_id, pixel_version=version)
        for version in range(1, PIXEL_VERSION)
    )


def described(settings: Settings) -> str:
    """Return the settings as one line of JSON, for the XMP of a result."""
    restore = replace(settings.restore, scale=settings.restore.chosen_scale)
    return json.dumps(asdict(replace(settings, restore=restore)), separators=(",", ":"))


def _pixel_values(group: object, version: int) -> list[object]:
    """Return [[name, value], ...] of what changes the result, sorted by name, groups nested.

    version: of the pixels; those of earlier releases had settings that are gone, here at their
        defaults.
    """
    assert is_dataclass(group)
    values: list[object] = []
    if isinstance(group, RawSettings) and version < _OWN_DEMOSAIC_VERSION:
        values.append(["demosaic", "ahd"])  # sorts before all others
    for item in sorted(fields(group), key=lambda item: item.name):
        value, unchanged = getattr(group, item.name), _default(item)
        if isinstance(group, RestoreSettings) and item.name == "scale":
            value, unchanged = group.chosen_scale, _EARLIER_SCALE
        kind = item.metadata.get("pixels", True)
        if kind is True or (kind == "if changed" and value != unchanged):
            nested = _pixel_values(value, version) if is_dataclass(value) else value
            values.append([item.name, nested])
    return values


def _default(item: Field[Any]) -> object:
    return item.default if item.default_factory is MISSING else item.default_factory()
