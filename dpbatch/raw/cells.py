"""Mosaics as cells of 2x2 samples: a plane for each CFA position, on any device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

# The four samples of a 2x2 CFA cell: (row, column) at the mosaic's origin.
CFA_POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))


def to_cells(mosaic: Tensor) -> Tensor:
    """Return a mosaic's samples by position, (H, W) -> (4, H / 2, W / 2), in CFA_POSITIONS' order.

    The result shares the mosaic's memory.
    """
    height, width = mosaic.shape
    cells = mosaic.view(height // 2, 2, width // 2, 2)
    return cells.permute(1, 3, 0, 2).reshape(4, height // 2, width // 2)


def to_mosaic(cells: Tensor) -> Tensor:
    """Return planes of one position each as a mosaic, (4, H / 2, W / 2) -> (H, W)."""
    _, rows, columns = cells.shape
    by_position = cells.view(2, 2, rows, columns)
    return by_position.permute(2, 0, 3, 1).reshape(2 * rows, 2 * columns)


def by_position(values: npt.NDArray[np.float64], cfa: npt.NDArray[np.int8]) -> Tensor:
    """Return a value of each colour index as one of each position, (4, 1, 1) float32."""
    return torch.from_numpy(values[cfa].astype(np.float32)).view(4, 1, 1)


def block_sums(cells: Tensor, side: int) -> Tensor:
    """Sum squares of side x side cells, (4, h, w); incomplete ones at the far edges are dropped."""
    count, rows, columns = cells.shape
    down, across = rows // side, columns // side
    whole = cells[:, : down * side, : across * side]
    return whole.reshape(count, down, side, across, side).sum((2, 4))


def gaussian_blur(planes: Tensor, sigma: float) -> Tensor:
    """Blur (n, h, w) along both axes, reflected at the border; truncated at four sigma."""
    down, across = (_gaussian_matrix(side, sigma).to(planes.device) for side in planes.shape[1:])
    return down @ planes @ across.T


def small_blur(planes: Tensor, sigma: float) -> Tensor:
    """Blur (n, h, w) as gaussian_blur does, for a sigma below a cell and many cells."""
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=planes.device) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        side = planes.shape[axis]
        edges = (0, 0, 2, 2) if axis == 1 else (2, 2, 0, 0)
        padded = F.pad(planes[None], edges, mode="reflect" if side > 2 else "replicate")[0]
        shifted = [padded.narrow(axis, at, side) * taps[at] for at in range(5)]
        planes = sum(shifted[1:], shifted[0])
    return planes


def _gaussian_matrix(side: int, sigma: float) -> Tensor:
    """Return the (side, side) matrix that blurs a column of values."""
    radius = max(1, round(4 * sigma))
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    period = max(1, 2 * (side - 1))
    place = np.abs(np.arange(side)[:, None] + offsets) % period
    place = np.minimum(place, period - place) if side > 1 else np.zeros_like(place)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], place), taps)
    return torch.from_numpy(matrix.astype(np.float32))


def enlarged(planes: Tensor, size: tuple[int, int], block: int, origin: tuple[int, int]) -> Tensor:
    """Interpolate planes of a value a block bilinearly at cells, (n, h, w) -> (n, *size).

    block: cells along the side of a block. origin: the first cell's row and column.
    """
    for axis, (first, count) in enumerate(zip(origin, size, strict=True)):
        blocks = planes.shape[axis + 1]
        at = (torch.arange(first, first + count, device=planes.device) + 0.5) / block - 0.5
        at = at.clamp(0, blocks - 1)
        low = at.long()
        share = (at - low).view((-1, 1) if axis == 0 else (-1,))
        lower = planes.index_select(axis + 1, low)
        upper = planes.index_select(axis + 1, (low + 1).clamp(max=blocks - 1))
        planes = lower + (upper - lower) * share
    return planes


def dilated(planes: Tensor) -> Tensor:
    """Return the largest value of each 3x3 neighbourhood, (n, h, w)."""
    return F.max_pool2d(planes[None], 3, 1, 1)[0]
