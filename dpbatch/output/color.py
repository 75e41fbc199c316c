"""Turn a picture upright."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Scalar = TypeVar("_Scalar", bound=np.generic)


def apply_orientation(picture: npt.NDArray[_Scalar], orientation: int) -> npt.NDArray[_Scalar]:
    """Turn stored pixels upright.

    picture: (H, W) or (H, W, C), as stored. orientation: the EXIF tag, 1 to 8 (TIFF 6.0: on which
    side of the upright picture row 0 and column 0 lie). Returns a C-contiguous array, (W, H) for 5
    to 8; for 1 the array itself if it is contiguous. Raises ValueError for another orientation.
    """
    if orientation not in range(1, 9):
        raise ValueError(f"EXIF orientation {orientation}, expected 1 to 8")
    turned: npt.NDArray[_Scalar] = picture
    if orientation >= 5:
        turned = turned.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
