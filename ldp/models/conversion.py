"""Convert the checkpoint that LDP's authors released to a weights file, safely.

The checkpoint is a pickle, and a pickle can run code when it is opened. It is read with PyTorch's
restricted unpickler only, which builds tensors and plain containers and nothing else.
"""

from __future__ import annotations

import pickle
import re
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ldp.errors import WeightsError
from ldp.models.weights import check_tensors, save_network, sha256

if TYPE_CHECKING:
    from torch import Tensor

    from ldp.models.released import LDPReleased, ReleasedConfig

BLUR_MAP = "clip-patch"
"""The blur map that the released network was trained with."""

UNUSED = "ca.qkv_dwconv."
"""Stored in the checkpoint and never used by the network."""

_DAMAGED = (
    RuntimeError,  # what PyTorch raises for most
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What the unpickler raises for damaged and foreign files, found by damaging some."""


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """network: in evaluation mode. unused: names of the stored weights that it does not have."""

    network: LDPReleased
    unused: tuple[str, ...]


def read_checkpoint(path: Path, config: ReleasedConfig | None = None) -> ReleasedCheckpoint:
    """Read the network of a released checkpoint.

    path: a file of torch.save with the weights under `params`; names may begin with `module.`, as
        they do after training on several GPUs.
    config: the expected shape, the release's if left out; whether two convolutions have a bias is
        taken from the checkpoint.

    Raises WeightsError where there is no such file, and where it is no checkpoint, holds code, or
    has weights that do not fit; the message gives the first names that differ.
    """
    import torch

    from ldp.models.released import LDPReleased, ReleasedConfig

    tensors = _parameters(path)
    unused = tuple(sorted(name for name in tensors if name.startswith(UNUSED)))
    found = {name: value.float() for name, value in tensors.items() if name not in unused}
    if "ca.temperature" in found and found["ca.temperature"].numel() == 1:
        found["ca.temperature"] = found["ca.temperature"].reshape(1, 1, 1)
    config = replace(
        config or ReleasedConfig(),
        project_bias="ca.project_out.bias" in found,
        skip_bias="skip_conv.bias" in found,
    )
    with torch.device("meta"):
        network = LDPReleased(config)
    expected = {_released_name(name): value for name, value in network.state_dict().items()}
    check_tensors(path, expected, found)
    own = {name: found[_released_name(name)] for name in network.state_dict()}
    network.load_state_dict(own, assign=True)
    return ReleasedCheckpoint(network.eval(), unused)


def convert(path: Path, out: Path, crop_px: int | None = None) -> ReleasedCheckpoint:
    """Write a released checkpoint as a weights file that `ldp.load` reads.

    The weights stay float32, as they were released, so that the results do not change.

    path: the checkpoint, as in read_checkpoint.
    out: the .safetensors file; it appears under its name only when it is complete.
    crop_px: side of the training crops, for the windows of ldp.models.tlc; ReleasedConfig's if left
        out.

    Raises WeightsError as read_checkpoint does, and where `out` cannot be written.
    """
    from safetensors import SafetensorError

    from ldp.models.released import ReleasedConfig

    config = ReleasedConfig() if crop_px is None else ReleasedConfig(crop_px=crop_px)
    checkpoint = read_checkpoint(path, config)
    notes = {"blur_map": BLUR_MAP, "source": path.name, "source_sha256": sha256(path)}
    unfinished = out.with_name(out.name + ".tmp")
    try:
        save_network(checkpoint.network, unfinished, notes, half=False)
        unfinished.replace(out)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise WeightsError(f"{out}: cannot be written: {error}") from error
    return checkpoint


def _parameters(path: Path) -> dict[str, Tensor]:
    import torch

    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected the released checkpoint, model.pth")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own message advises to switch its protection off.
        culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
        if culprit:
            raise WeightsError(
                f"{path}: refused, and nothing of it was run: beside weights it holds "
                f"{culprit[1]!r}, which can be code; expected a checkpoint of tensors only"
            ) from error
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    except _DAMAGED as error:
        raise WeightsError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("params"), dict):
        found = sorted(map(str, stored))[:3] if isinstance(stored, dict) else type(stored).__name__
        raise WeightsError(
            f"{path}: found {found}, expected a dictionary with the weights under 'params'; "
            "this is not the released checkpoint"
        )
    for name, value in stored["params"].items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise WeightsError(
                f"{path}: {name!r} is {type(value).__name__}, expected a tensor under a name"
            )
    return {name.removeprefix("module."): value for name, value in stored["params"].items()}


def _released_name(name: str) -> str:
    """Return a parameter's name in the checkpoint, where the pooling is the first part of `sca`."""
    return re.sub(r"\.sca\.", ".sca.1.", name)
