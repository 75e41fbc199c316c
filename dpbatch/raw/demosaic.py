"""Demosaic a Bayer mosaic along its edges, in torch, on the device of the mosaic.

The mosaic is cut into bands of rows, each with a halo; `interpolation` fills in the colours of one
band. A band's pixels depend on no others, so the result does not depend on the bands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpbatch.raw.interpolation import REACH, Filled, Quads, interpolate

Pattern = tuple[tuple[int, int], tuple[int, int]]
"""Channels (0 red, 1 green, 2 blue) of the top left 2x2 pixels, by row."""

_HALO = REACH + REACH % 2
_BAND_ROWS = {"cpu": 288, "cuda": 1024}
"""Rows of a band: on a CPU all of a part that is read at a time, as every band computes a halo; on
a GPU its kernels are large enough."""
_OTHER_BAND_ROWS = 256
_KNEE = 0.07
"""Square root of the linear value at which `_compressed` turns from a line to a square root."""


def demosaic(mosaic: Tensor, pattern: Pattern, *, band_rows: int | None = None) -> Tensor:
    """Fill in the two colours that each pixel of a Bayer mosaic lacks.

    mosaic: (H, W) float32, at least 2x2, linear light, black subtracted, white-balanced, 1 = white;
        negative values (noise below black) and values above 1 are kept.
    pattern: RGGB, ((0, 1), (1, 2)), or one of its three shifts.
    band_rows: rows computed at once, even; does not change the result. The default suits the
        device.

    Returns (3, H, W) float32, red, green and blue; each sample of the mosaic is kept as it is.
    Raises ValueError for another shape, type or pattern, or odd band_rows.
    """
    red_row, red_column = _position_of_red(pattern)
    if mosaic.ndim != 2 or min(mosaic.shape) < 2 or mosaic.dtype != torch.float32:
        raise ValueError(
            f"mosaic is {tuple(mosaic.shape)} {mosaic.dtype}, expected (H, W) float32 from 2x2"
        )
    if band_rows is None:
        band_rows = _BAND_ROWS.get(mosaic.device.type, _OTHER_BAND_ROWS)
    if band_rows < 2 or band_rows % 2:
        raise ValueError(f"band_rows is {band_rows}, expected an even number from 2")
    rows = _mirrored(mosaic.shape[0], red_row, mosaic.device)
    columns = _mirrored(mosaic.shape[1], red_column, mosaic.device)
    left, right = columns[: _HALO + red_column], columns[_HALO + red_column + mosaic.shape[1] :]
    out = torch.empty((3, *mosaic.shape), dtype=torch.float32, device=mosaic.device)
    grid_rows = len(rows) - 2 * _HALO
    band_rows = min(band_rows, grid_rows)
    quads = Quads(band_rows // 2 + _HALO, len(columns) // 2, mosaic.device)
    for start in range(0, grid_rows, band_rows):
        first = min(start, grid_rows - band_rows)  # the last band overlaps the one before it
        source = mosaic.index_select(0, rows[first : first + band_rows + 2 * _HALO])
        source = torch.cat((source[:, left], source, source[:, right]), dim=1)
        for filled in interpolate(quads, quads.split(_compressed(source))):
            _expand(quads, filled.plane)
            _store(out, quads, filled, (first - red_row, -red_column), band_rows)
            quads.free(filled.plane)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        y, x = (row + red_row) % 2, (column + red_column) % 2
        out[channel, y::2, x::2] = mosaic[y::2, x::2]
    return out


def _store(
    out: Tensor, quads: Quads, filled: Filled, origin: tuple[int, int], band_rows: int
) -> None:
    """Write a plane without its halo to its places in the picture.

    origin: row and column in the picture of the grid's first pixel after the halo; -1 where the
        grid begins before the picture.
    """
    row, column = filled.row + origin[0], filled.column + origin[1]
    y, x = row % 2 if row < 0 else row, column % 2
    target = out[filled.channel, y : origin[0] + band_rows : 2, x::2]
    top, side = (y - row + _HALO) // 2, (x - column + _HALO) // 2
    rows, columns = target.shape
    target.copy_(quads.picture(filled.plane)[top : top + rows, side : side + columns])


def _position_of_red(pattern: Pattern) -> tuple[int, int]:
    """Return row and column of red; ValueError for what is no Bayer pattern."""
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        beside, below = pattern[row][1 - column], pattern[1 - row][column]
        across = pattern[1 - row][1 - column]
        if (pattern[row][column], beside, below, across) == (0, 1, 1, 2):
            return row, column
    raise ValueError(f"pattern is {pattern}, expected ((0, 1), (1, 2)) or a shift of it")


def _mirrored(size: int, offset: int, device: torch.device) -> Tensor:
    """Return the indices of an axis between `offset` and the halo before it and the halo after it.

    Beyond its ends the axis is mirrored about its end pixels, which continues the Bayer pattern;
    one more after it makes the length even.
    """
    index = torch.arange(-_HALO - offset, size + _HALO + (size + offset) % 2, device=device)
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def _compressed(linear: Tensor) -> Tensor:
    """Return y where linear = y (|y| + 2 knee): a square root with a line for noise about 0.

    An error is seen in proportion to the light about it. In linear light an edge's bright side
    would leave errors on its dark side that are small for the bright side only.
    """
    root = linear.abs()
    root += _KNEE**2
    root.sqrt_()
    root += _KNEE
    return torch.div(linear, root, out=root)


def _expand(quads: Quads, plane: Tensor) -> None:
    """Undo `_compressed` in place."""
    slope = quads.new()
    torch.abs(plane, out=slope)
    slope += 2 * _KNEE
    plane *= slope
    quads.free(slope)
