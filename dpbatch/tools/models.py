"""List and describe the networks and CLIP weights that are installed, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpbatch.settings import CLIP_MAPS, RestoreSettings
from ldp.blur.estimator import unstretched
from ldp.errors import WeightsError
from ldp.models.card import read_card
from ldp.models.weights import (
    RELEASED_FORMAT,
    RESTORMER_FORMAT,
    VITDEBLUR_FORMAT,
    Header,
    load_network,
    read_header,
    resolve,
    sha256,
    shipped_names,
)

CLIP_LICENCE = "MIT (OpenAI)"


@dataclass(frozen=True)
class NetworkFile:
    """A weights file. licence: empty if no card beside the file names one."""

    name: str
    path: Path
    size_bytes: int
    header: Header
    licence: str

    def to_line(self) -> str:
        """Return a line of a list of networks."""
        kind = f"LDP, blur map {self.header.blur_map}"
        if self.header.format == RELEASED_FORMAT:
            kind = f"released {kind}"
        if self.header.format == VITDEBLUR_FORMAT:
            kind = "ViTDeblur, single pictures"
        elif self.header.format == RESTORMER_FORMAT:
            kind = "Restormer, no blur map"
        elif self.header.network == "NAFNet":
            kind = "single pictures"
        return (
            f"{self.name:<22} {self.size_bytes / 1e6:6.1f} MB  {kind}, "
            f"licence {self.licence or 'not stated'}"
        )


def network_file(model: str) -> NetworkFile:
    """Return what the file and the card of a network say.

    model: name of a shipped network or path. Raises WeightsError.
    """
    path = resolve(model)
    return NetworkFile(
        path.stem, path, path.stat().st_size, read_header(path), read_card(path).licence
    )


def shipped_networks() -> Iterator[NetworkFile]:
    """Yield the networks that come with dpbatch, by name. Raises WeightsError."""
    return (network_file(name) for name in shipped_names())


def describe(model: str) -> str:
    """Return all that is known of a network, a line each. Raises WeightsError."""
    file = network_file(model)
    lines = [
        ("file", str(file.path)),
        ("size", f"{file.size_bytes / 1e6:.1f} MB"),
        ("sha256", sha256(file.path)),
        *_loaded_facts(file),
        ("licence", file.licence or "not stated"),
        ("format", file.header.format),
        ("configuration", file.header.config_json),
        *sorted((name, text) for name, text in file.header.notes.items() if name != "blur_map"),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in lines)


def _loaded_facts(file: NetworkFile) -> list[tuple[str, str]]:
    """Load a network, so that a damaged one is found, and return what it costs and reads."""
    from ldp.models.cost import cost_of_config, cost_of_vitdeblur

    if file.header.format == VITDEBLUR_FORMAT:
        from ldp.models.vitdeblur_weights import load_vitdeblur

        config = load_vitdeblur(file.path).config
        return [("cost", str(cost_of_vitdeblur(config))), ("reads", "single pictures")]
    network = load_network(file.path)
    reads = ("blur map", file.header.blur_map)
    if file.header.network == "NAFNet":
        reads = ("reads", "single pictures")
    if file.header.network == "Restormer":
        reads = ("reads", "two views and no blur map")
    return [("cost", str(cost_of_config(network.config))), reads]


@dataclass(frozen=True)
class ClipFile:
    """CLIP weights of a blur map.

    name: of the CLIP in open_clip. blur: name of the blur map. path: None if not in the cache.
    """

    name: str
    blur: str
    path: Path | None

    def to_line(self) -> str:
        """Return a line of a list of CLIPs."""
        where = "not in the cache"
        if self.path:
            where = f"{self.path.stat().st_size / 1e6:.0f} MB, {self.path}"
        return f"{self.name:<22} --blur {self.blur}, licence {CLIP_LICENCE}: {where}"


def clip_files() -> list[ClipFile]:
    """Return the CLIPs of the blur maps and their paths; download nothing.

    Raises ClipUnavailableError if open_clip is not installed.
    """
    from ldp.blur.clip_model import cached_clip_weights

    return [ClipFile(name, blur, cached_clip_weights(name)) for blur, name in _clips().items()]


def fetch_clip(blur: str) -> tuple[ClipFile, str]:
    """Download the CLIP of a blur map into the cache of open_clip unless it is there; verify it.

    blur: clip or clip-patch. Returns the file and its SHA-256. The cache of Hugging Face names a
    file by the SHA-256 that the server announced, which the content is compared with.

    Raises ClipUnavailableError if it cannot be downloaded, WeightsError if it is damaged.
    """
    name, path = clip_file(blur)
    found, announced = sha256(path), path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", announced) and found != announced:
        raise WeightsError(
            f"{path}: its SHA-256 is {found}, expected {announced}; delete {path.resolve()} and "
            "fetch it again"
        )
    return ClipFile(name, blur, path), found


def clip_file(blur: str, weights: str = "openai") -> tuple[str, Path]:
    """Return open_clip's name and the weights file of the CLIP of a blur map.

    blur: one of CLIP_MAPS. weights: a tag of open_clip, downloaded if it is not in the cache, or
    a file. Raises ClipUnavailableError, which names the command that downloads them.
    """
    from ldp.blur.clip_model import clip_weights_file
    from ldp.blur.estimator import OPENAI

    fetched = unstretched(blur)
    name = _clips()[fetched]
    command = f"dpbatch models fetch {fetched}" if weights == OPENAI else None
    return name, clip_weights_file(name, weights, command)


def require_clip(settings: RestoreSettings) -> None:
    """Check before the first photo that the weights of a CLIP map are on this machine.

    Raises ClipUnavailableError.
    """
    if settings.blur in CLIP_MAPS:
        clip_file(settings.blur, settings.clip_weights)


def clip_must_be_fetched(settings: RestoreSettings) -> bool:
    """Whether a run would download the weights of a CLIP map first; True also for unusual tags.

    Raises ClipUnavailableError where open_clip is not installed.
    """
    if settings.blur not in CLIP_MAPS or Path(settings.clip_weights).is_file():
        return False
    from ldp.blur.clip_model import cached_clip_weights
    from ldp.blur.estimator import OPENAI

    name = _clips()[unstretched(settings.blur)]
    return settings.clip_weights != OPENAI or cached_clip_weights(name) is None


def clip_id(settings: RestoreSettings) -> str:
    """Return what tells a blur map's CLIP from others: with another CLIP the photos are redone.

    The SHA-256 of a weights file, which takes about a second, or open_clip's tag; "" for a blur map
    without CLIP.
    """
    if settings.blur not in CLIP_MAPS:
        return ""
    path = Path(settings.clip_weights)
    return sha256(path) if path.is_file() else settings.clip_weights


def _clips() -> dict[str, str]:
    from ldp.blur.clip_model import VIT_B_16, VIT_B_32

    return {"clip": VIT_B_32, "clip-patch": VIT_B_16}
