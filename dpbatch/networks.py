"""Which network restores ordinary photos, which have one view, and how their results are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dpbatch.errors import SettingsError
from dpbatch.fingerprints import fingerprint
from dpbatch.settings import CLIP_MAPS, RawSettings, RestoreSettings, Settings

if TYPE_CHECKING:
    from ldp.models.weights import Header

SINGLE, VITDEBLUR = "single", "vitdeblur"


def two_view_header(model: str) -> Header:
    """Return the header of the network of dual-pixel photos. model: a name or a file.

    Raises SettingsError for a network of single pictures, UnknownModelError or WeightsError where
    there is no network.
    """
    from ldp.models.weights import read_header, resolve

    header = read_header(resolve(model))
    if header.views == 1:
        kind = VITDEBLUR if header.network == "ViTDeblur" else SINGLE
        raise SettingsError(
            f"model {model}: a network of single pictures ({header.network}), expected one of two "
            f"views; for ordinary photos, use --ordinary {kind} --single-weights {model}"
        )
    return header


def ordinary_weights(restore: RestoreSettings) -> str:
    """Return the network of ordinary photos: a shipped one's name or a file; "" to skip them.

    Raises SettingsError for ViTDeblur without weights.
    """
    if restore.ordinary == "skip":
        return ""
    if restore.single_weights:
        return restore.single_weights
    if restore.ordinary == VITDEBLUR:
        raise SettingsError(
            "ordinary vitdeblur: no weights of this network come with dpbatch; give a converted "
            "checkpoint with --single-weights FILE (see `dpbatch models convert`)"
        )
    return SINGLE


def checked_sha256(restore: RestoreSettings) -> str:
    """Return the hash of the weights of ordinary photos, "" where these are skipped.

    Raises SettingsError where they are of another network, WeightsError where there are none.
    """
    from ldp.models.weights import read_header, resolve, sha256

    weights = ordinary_weights(restore)
    if not weights:
        return ""
    path = resolve(weights)
    found, expected = read_header(path).network, "NAFNet"
    if restore.ordinary == VITDEBLUR:
        expected = "ViTDeblur"
    if found != expected:
        raise SettingsError(
            f"single_weights {weights}: weights of {found}, but --ordinary {restore.ordinary} "
            f"takes those of {expected}"
        )
    return sha256(path)


def ordinary_fingerprint(settings: Settings, weights_sha256: str, clip_id: str = "") -> str:
    """Return the key of results of ordinary photos, see dpbatch.fingerprints.fingerprint.

    It does not change with the settings of dual-pixel photos, nor theirs with these.
    """
    restore = settings.restore
    blur = restore.blur if restore.blur in CLIP_MAPS and settings.output.layers else "none"
    stride = restore.window_stride if restore.ordinary == VITDEBLUR else 0
    alike = replace(
        settings,
        raw=RawSettings(white_balance=settings.raw.white_balance),
        restore=RestoreSettings(protect=restore.protect, scale="1"),
    )
    how = f"{restore.ordinary} {stride} {blur} {clip_id if blur != 'none' else ''}"
    return fingerprint(alike, weights_sha256, how)
