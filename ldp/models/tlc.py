"""Test-time local converter (TLC): global statistics over windows of the training crop's size.

Source: Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation",
ECCV 2022 (arXiv 2112.04491).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CELLS = 8
"""Cells across a window. Windows are placed at whole cells, which keeps them cheap."""


def local_mean(x: Tensor, window: int) -> tuple[Tensor, int]:
    """Average over a window around each cell.

    x: (B, C, H, W).
    window: side of the window in pixels, rounded down to whole cells.

    Returns the means, one value a cell, (B, C, ceil(H / cell), ceil(W / cell)), and the side of a
    cell in pixels. At the picture's border the window moves inwards, so that it always has the same
    number of cells.
    """
    cell = max(1, window // CELLS)
    # With ceil_mode, a partial last cell is divided by the pixels that it has.
    cells = F.avg_pool2d(x, cell, cell, ceil_mode=True, count_include_pad=False)
    across = window // cell
    span_y, span_x = min(across, cells.shape[-2]), min(across, cells.shape[-1])
    means = F.avg_pool2d(cells, (span_y, span_x), 1)
    before_y, before_x = span_y // 2, span_x // 2
    padding = (before_x, span_x - 1 - before_x, before_y, span_y - 1 - before_y)
    return F.pad(means, padding, mode="replicate"), cell
