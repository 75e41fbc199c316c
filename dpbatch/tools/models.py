"""What `dpbatch models` says: the networks and CLIP weights there are, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch.errors import SettingsError
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
"""Height and width at which the field counts multiply-adds: a photo of the DPDD data set."""

CLIP_LICENCE = "MIT (OpenAI)"


@dataclass(frozen=True)
class Cost:
    """parameters: trained values. multiply_adds: of the convolutions and matrix products for a
    photo of PAPER_SIZE, as computed, whole and with global statistics."""

    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        height, width = PAPER_SIZE
        return (
            f"{self.parameters / 1e6:.2f} M parameters, "
            f"{self.multiply_adds / 1e9:.0f} G multiply-adds at {width}x{height}"
        )


def cost_of(network: LDPNet | LDPReleased) -> Cost:
    """Counts with PyTorch's own counter; `network` is on the meta device, so nothing is computed.

    One multiply-add counts once, as in the papers of the field (PyTorch counts it as two).
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
    """The cost of one of ldp.models.network's sizes, or of `released`; needs no weights.

    Raises SettingsError for a name that is none.
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
    """A weights file. licence: "" where no card beside the file names one."""

    name: str
    path: Path
    size_bytes: int
    header: Header
    licence: str

    def to_line(self) -> str:
        """For a list of networks."""
        kind = "released LDP" if self.header.format == RELEASED_FORMAT else "LDP"
        return (
            f"{self.name:<22} {self.size_bytes / 1e6:6.1f} MB  {kind}, "
            f"blur map {self.header.blur_map}, licence {self.licence or 'not stated'}"
        )


def network_file(model: str) -> NetworkFile:
    """A shipped network's name or a path -> what its file and its card say.

    Raises WeightsError.
    """
    path = resolve(model)
    return NetworkFile(path.stem, path, path.stat().st_size, read_header(path), _licence(path))


def shipped_networks() -> Iterator[NetworkFile]:
    """The networks that come with dpbatch, by name. Raises WeightsError for a damaged one."""
    return (network_file(name) for name in shipped_names())


def describe(model: str) -> str:
    """Everything about one network, a line each. Raises WeightsError."""
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
    """The card's line `Licence: ...`; a card lies beside its weights as NAME.md."""
    card = path.with_suffix(".md")
    if not card.is_file():
        return ""
    found = re.search(r"^[-* ]*Licen[cs]e[:*]+ *(.+)$", card.read_text(encoding="utf-8"), re.M)
    return found[1].strip() if found else ""


@dataclass(frozen=True)
class ClipFile:
    """The weights of one of the CLIPs that blur maps are made with.

    blur: the estimators that use it. path: None where it is not in the cache.
    """

    name: str
    blur: str
    path: Path | None

    def to_line(self) -> str:
        """For a list."""
        where = "not in the cache"
        if self.path:
            where = f"{self.path.stat().st_size / 1e6:.0f} MB, {self.path}"
        return f"{self.name:<22} --blur {self.blur}, licence {CLIP_LICENCE}: {where}"


def clip_files() -> list[ClipFile]:
    """The CLIPs that the blur maps use, and where they lie; fetches nothing.

    Raises ClipUnavailableError where open_clip is not installed.
    """
    from ldp.blur.clip_model import cached_clip_weights

    return [ClipFile(name, blur, cached_clip_weights(name)) for blur, name in _clips().items()]


def fetch_clip(blur: str) -> tuple[ClipFile, str]:
    """Fetches the CLIP of a blur map into open_clip's cache unless it is there, and verifies it.

    blur: clip or clip-patch. Returns the file and its SHA-256. Hugging Face's cache keeps a file
    under the SHA-256 that the server announced; that is what the content must have.

    Raises ClipUnavailableError where it cannot be had, WeightsError where it is damaged.
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
    """open_clip's name and the weights file of a blur map's CLIP, fetched if it is not there.

    blur: clip or clip-patch. weights: one of open_clip's tags or a file.

    Raises ClipUnavailableError, which says the command that fetches them.
    """
    from ldp.blur.clip_model import OPENAI, clip_weights_file

    name = _clips()[blur]
    command = f"dpbatch models fetch {blur}" if weights == OPENAI else None
    return name, clip_weights_file(name, weights, command)


def _clips() -> dict[str, str]:
    from ldp.blur.clip_model import VIT_B_16, VIT_B_32

    return {"clip": VIT_B_32, "clip-patch": VIT_B_16}
