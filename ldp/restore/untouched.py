"""A photo as it is without restoration: what the restored picture is blended over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ldp.restore.photo_views import BLOCK_PX, PhotoViews
from ldp.types import to_uint16


def untouched_parts(views: PhotoViews) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the photo as the camera took it, developed: rows, columns and pixels (3, h, w)."""
    height, width = views.size
    rows_at_once = BLOCK_PX["cpu"][0]
    for start in range(0, height, rows_at_once):
        rows, columns = slice(start, min(start + rows_at_once, height)), slice(0, width)
        yield rows, columns, views.untouched(rows, columns)


def untouched_uint16(views: PhotoViews) -> npt.NDArray[np.uint16]:
    """Return the same photo as one picture, (H, W, 3), 65535 is white."""
    result = np.empty((*views.size, 3), np.uint16)
    for rows, _, pixels in untouched_parts(views):
        result[rows] = to_uint16(pixels.permute(1, 2, 0).cpu().numpy())
    return result
