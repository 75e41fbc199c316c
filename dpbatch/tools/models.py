"""List and describe the networks and CLIP weights that are installed, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch.errors import SettingsError
from dpbatch.settings import CLIP_MAPS, RestoreSettings
from ldp.errors import WeightsError
from ldp.models.weights import (
    RELEASED_FORMAT,
    Header,
    load_network,
    read_header,
    resolve,
    sha256,
    shipped_names,
)

if TYPE_CHECKING:
    from ldp.models.network import LDPNet
    from ldp.models.released import LDPReleased

PAPER_SIZE = (1120, 1680)
"""(height, width) at which papers count MACs: a photo of the DPDD data set."""

CLIP_LICENCE = "MIT (OpenAI)"


@dataclass(frozen=True)
class Cost:
    """parameters: trained values. macs: multiply-accumulate operations of the convolutions and
    matrix products for one photo of PAPER_SIZE, computed whole and with global statistics."""

    parameters: int
    macs: int

    def __str__(self) -> str:
        height, width = PAPER_SIZE
        return (
            f"{self.parameters / 1e6:.2f} M parameters, "
            f"{self.macs / 1e9:.0f} GMACs at {width}x{height}"
        )


def cost_of(network: LDPNet | LDPReleased) -> Cost:
    """Count parameters and MACs of a network on the meta device, where nothing is computed.

    PyTorch's counter counts a MAC as two operations, papers of the field as one.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ldp.models.network import parameter_count

    planes = (6, len(network.config.map_planes))
    views, blur = (torch.empty(1, count, *PAPER_SIZE, device="meta") for count in planes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(views, blur)
    return Cost(parameter_count(network), counter.get_total_flops() // 2)


def cost_of_size(name: str) -> Cost:
    """Return the cost of a size of ldp.models.network, or of `released`, without weights.

    Raises SettingsError for an unknown name.
    """
    import torch

    from ldp.models.network import SIZES, LDPNet
    from ldp.models.released import LDPReleased, ReleasedConfig

    if name != "released" and name not in SIZES:
        raise SettingsError(f"--size {name}: expected one of {', '.join((*SIZES, 'released'))}")
    with torch.device("meta"):
        return cost_of(LDPReleased(ReleasedConfig()) if name == "released" else LDPNet(SIZES[name]))


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
        kind = "released LDP" if self.header.format == RELEASED_FORMAT else "LDP"
        return (
            f"{self.name:<22} {self.size_bytes / 1e6:6.1f} MB  {kind}, "
            f"blur map {self.header.blur_map}, licence {self.licence or 'not stated'}"
        )


def network_file(model: str) -> NetworkFile:
    """Return what the file and the card of a network say.

    model: name of a shipped network or path. Raises WeightsError.
    """
    path = resolve(model)
    return NetworkFile(path.stem, path, path.stat().st_size, read_header(path), _licence(path))


def shipped_networks() -> Iterator[NetworkFile]:
    """Yield the networks that come with dpbatch, by name. Raises WeightsError."""
    return (network_file(name) for name in shipped_names())


def describe(model: str) -> str:
    """Return all that is known of a network, a line each. Raises WeightsError."""
    file = network_file(model)
    network = load_network(file.path)
    lines = [
        ("file", str(file.path)),
        ("size", f"{file.size_bytes / 1e6:.1f} MB"),
        ("sha256", sha256(file.path)),
        ("cost", str(cost_of(network.to("meta")))),
        ("blur map", file.header.blur_map),
        ("licence", file.licence or "not stated"),
        ("format", file.header.format),
        ("configuration", file.header.config_json),
        *sorted((name, text) for name, text in file.header.notes.items() if name != "blur_map"),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in lines)


def _licence(path: Path) -> str:
    """Return the line `Licence: ...` of the card NAME.md beside the weights."""
    card = path.with_suffix(".md")
    if not card.is_file():
        return ""
    found = re.search(r"^[-* ]*Licen[cs]e[:*]+ *(.+)$", card.read_text(encoding="utf-8"), re.M)
    return found[1].strip() if found else ""


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

    blur: clip or clip-patch. weights: a tag of open_clip, downloaded if it is not in the cache, or
    a file. Raises ClipUnavailableError, which names the command that downloads them.
    """
    from ldp.blur.clip_model import OPENAI, clip_weights_file

    name = _clips()[blur]
    command = f"dpbatch models fetch {blur}" if weights == OPENAI else None
    return name, clip_weights_file(name, weights, command)


def require_clip(settings: RestoreSettings) -> None:
    """Check before the first photo that the weights of a CLIP map are on this machine.

    Raises ClipUnavailableError.
    """
    if settings.blur in CLIP_MAPS:
        clip_file(settings.blur, settings.clip_weights)


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
