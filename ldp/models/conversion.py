"""Convert the checkpoints that the authors of LDP and ViTDeblur released to weights files, safely.

ldp.models.pickles reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ldp.errors import WeightsError
from ldp.models.pickles import read_pickle, tensors_under
from ldp.models.weights import check_tensors, save_network, sha256

if TYPE_CHECKING:
    from torch import Tensor

    from ldp.models.released import LDPReleased, ReleasedConfig
    from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig

BLUR_MAP = "clip-patch"
"""The blur map that the released LDP network was trained with."""

UNUSED = "ca.qkv_dwconv."
"""Stored in LDP's checkpoint and never used by the network."""


@dataclass(frozen=True)
class Converted:
    """network: what was written, in evaluation mode. unused: names of what was left out."""

    network: LDPReleased | ViTDeblur
    unused: tuple[str, ...]


def convert(
    path: Path,
    out: Path,
    crop_px: int | None = None,
    vitdeblur: ViTDeblurConfig | None = None,
) -> Converted:
    """Write a released checkpoint as a weights file of this library.

    LDP's, with its weights under `params`, is for `ldp.load`, ViTDeblur's, with its weights under
    `state_dict`, for `ldp.load_single`; the optimizer's state in it is dropped. The weights stay
    float32, as they were released, so that the results do not change. ViTDeblur's gets a card
    beside it, unless there is one.

    path: a file of torch.save; in LDP's, names may begin with `module.`, as they do after training
        on several GPUs, and whether two convolutions have a bias is taken from it.
    out: the .safetensors file; it appears under its name only when it is complete.
    crop_px: for LDP, side of the training crops, for the windows of ldp.models.tlc;
        ReleasedConfig's if left out.
    vitdeblur: the expected shape of ViTDeblur, the published one's if left out.

    Raises WeightsError where there is no such file, where it is no checkpoint, holds code, or has
    weights that do not fit (the message gives the first names that differ), and where `out` cannot
    be written; ValueError for a crop_px that the checkpoint has no use for.
    """
    from ldp.models.released import ReleasedConfig
    from ldp.models.vitdeblur_weights import CARD, from_published

    stored = read_pickle(path)
    tensors = tensors_under(path, stored, "params", "state_dict")
    del stored
    notes = {"source": path.name, "source_sha256": sha256(path)}
    if "primary_encoder.pretrain_mae.cls_token" in tensors:
        if crop_px is not None:
            raise ValueError(f"crop_px {crop_px}: {path} is ViTDeblur's, which has no use for it")
        network, unused = from_published(path, tensors, vitdeblur)
        _write_whole(out, lambda file: save_network(network, file, notes, half=False))
        card = out.with_suffix(".md")
        if not card.exists():
            _write_whole(card, lambda file: file.write_text(CARD, encoding="utf-8"))
        return Converted(network, unused)
    config = ReleasedConfig() if crop_px is None else ReleasedConfig(crop_px=crop_px)
    released, left_out = _released(path, tensors, config)
    notes["blur_map"] = BLUR_MAP
    _write_whole(out, lambda file: save_network(released, file, notes, half=False))
    return Converted(released, left_out)


def _released(
    path: Path, tensors: dict[str, Tensor], config: ReleasedConfig
) -> tuple[LDPReleased, tuple[str, ...]]:
    """Return LDP's network with the weights of its checkpoint, and the names of unused ones."""
    import torch

    from ldp.models.released import LDPReleased

    unused = tuple(sorted(name for name in tensors if name.startswith(UNUSED)))
    found = {name: value.float() for name, value in tensors.items() if name not in unused}
    if "ca.temperature" in found and found["ca.temperature"].numel() == 1:
        found["ca.temperature"] = found["ca.temperature"].reshape(1, 1, 1)
    config = replace(
        config,
        project_bias="ca.project_out.bias" in found,
        skip_bias="skip_conv.bias" in found,
    )
    with torch.device("meta"):
        network = LDPReleased(config)
    expected = {_released_name(name): value for name, value in network.state_dict().items()}
    check_tensors(path, expected, found)
    own = {name: found[_released_name(name)] for name in network.state_dict()}
    network.load_state_dict(own, assign=True)
    return network.eval(), unused


def _write_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears under its name only when it is complete."""
    from safetensors import SafetensorError

    unfinished = out.with_name(out.name + ".tmp")
    try:
        write(unfinished)
        unfinished.replace(out)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise WeightsError(f"{out}: cannot be written: {error}") from error


def _released_name(name: str) -> str:
    """Return a parameter's name in the checkpoint, where the pooling is the first part of `sca`."""
    return re.sub(r"\.sca\.", ".sca.1.", name)
