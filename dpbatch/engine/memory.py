"""Memory for the arrays that a process receives."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt


def host_memory(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return memory with any content; where the process uses CUDA it is pinned.

    A GPU reads pinned memory directly, while from other memory every photo is copied once more.
    """
    torch = sys.modules.get("torch")  # a process that does not restore has not imported it
    if torch is None or not size_bytes or not torch.cuda.is_initialized():
        return np.empty(size_bytes, np.uint8)
    pinned: npt.NDArray[np.uint8] = torch.empty(
        size_bytes, dtype=torch.uint8, pin_memory=True
    ).numpy()
    return pinned
