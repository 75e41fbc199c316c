"""Read PyTorch checkpoints safely.

A checkpoint is a pickle, and a pickle can run code when it is opened. It is read with PyTorch's
restricted unpickler only, which builds tensors and plain containers and nothing else.
"""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from ldp.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

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


def read_pickle(path: Path) -> object:
    """Return what a file of torch.save holds, on the CPU.

    Raises WeightsError where there is no such file, and where it is no checkpoint or holds code.
    """
    import torch

    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; expected a PyTorch checkpoint, such as model.pth"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
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


def tensors_under(path: Path, stored: object, *keys: str) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint has under the first of `keys` that it knows, by name.

    stored: what read_pickle returned. `module.`, with which names begin after training on several
    GPUs, is removed.

    Raises WeightsError where there is no dictionary of named tensors.
    """
    import torch

    held = stored if isinstance(stored, dict) else {}
    tensors = next((held[key] for key in keys if isinstance(held.get(key), dict)), None)
    if tensors is None:
        found = sorted(map(str, held))[:3] if isinstance(stored, dict) else type(stored).__name__
        names = " or ".join(map(repr, keys))
        raise WeightsError(
            f"{path}: found {found}, expected a dictionary with the weights under {names}; "
            "this is not a released checkpoint"
        )
    for name, value in tensors.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise WeightsError(
                f"{path}: {name!r} is {type(value).__name__}, expected a tensor under a name"
            )
    return {name.removeprefix("module."): value for name, value in tensors.items()}
