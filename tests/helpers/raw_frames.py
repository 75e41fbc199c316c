"""What LibRaw alone makes of a raw file."""

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


def developed(path: Path) -> npt.NDArray[np.float64]:
    """Return a raw file in linear sRGB, white at 1: as shot, not turned, nothing adjusted."""
    with rawpy.imread(str(path)) as raw:
        rendered = raw.postprocess(
            use_camera_wb=True,
            gamma=(1, 1),
            no_auto_bright=True,
            adjust_maximum_thr=0.0,
            output_bps=16,
            user_flip=0,
            demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
        )
    return np.asarray(rendered, np.float64) / 65535
