"""Decode one frame of a raw file by LibRaw alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy


def whole_frame(path: Path, shot: int) -> npt.NDArray[np.uint16]:
    """Return a raw frame with its borders, as LibRaw decodes it."""
    raw = rawpy.RawPy()
    raw.set_unpack_params(shot_select=shot)
    raw.open_file(str(path))
    raw.unpack()
    frame = raw.raw_image.copy()
    raw.close()
    return np.asarray(frame, np.uint16)
