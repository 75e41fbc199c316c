"""Cut a picture into tiles and blend the restored tiles without seams.

A tile is read with a halo around it, which is discarded; neighbouring tiles overlap, and the
overlap is blended by a raised cosine. Windows end with the picture; where a network needs longer
ones, the pixels beyond the border are reflected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldp.types import FloatArray, Picture, Plane, as_float

Progress = Callable[[int, int], None]
"""progress(done, total) is called after every tile."""
ReceiveRows = Callable[[int, FloatArray], None]
"""receive(first_row, rows) is given rows of a restored picture, (n, W, 3)."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """One tile's extent along one axis, in pixels of the picture.

    start, stop: what the tile contributes to the result.
    before, after: how much of it overlaps the previous and the next tile, 0 at the border.
    """

    start: int
    stop: int
    before: int
    after: int

    @property
    def length(self) -> int:
        """Pixels from start to stop."""
        return self.stop - self.start

    @property
    def as_slice(self) -> slice:
        """From start to stop."""
        return slice(self.start, self.stop)


def rounded_up(value: int, multiple: int) -> int:
    """Return the smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def spans(size: int, tile: int, overlap: int, align: int) -> list[Span]:
    """Return the tiles of at most `tile` pixels along one axis, in order.

    size: of the picture along the axis.
    overlap: shared by neighbours. A tile has at least two overlaps: no pixel is in three tiles.
    align: every tile starts at a multiple of it, on the grid of the network's strides and windows.

    Raises ValueError where these do not fit together.
    """
    if size < 1:
        raise ValueError(f"size {size}: a picture has at least one pixel")
    if tile % align or overlap % align or tile < max(align, 2 * overlap):
        raise ValueError(
            f"tile {tile}, overlap {overlap}: expected multiples of {align}, "
            "the tile at least twice the overlap"
        )
    starts = range(0, max(1, size - overlap), tile - overlap)
    last = starts[-1]
    return [
        Span(
            start=start,
            stop=size if start == last else start + tile,
            before=overlap if start else 0,
            after=0 if start == last else overlap,
        )
        for start in starts
    ]


def blend_weights(span: Span) -> FloatArray:
    """Return the weights of a tile along one axis, (length,); those of two tiles sum to 1."""
    weights = np.ones(span.length, np.float32)
    if span.before:
        weights[: span.before] = _ramp(span.before)
    if span.after:
        weights[-span.after :] = 1 - _ramp(span.after)
    return weights


def _ramp(length: int) -> FloatArray:
    phase = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
    return np.asarray((1 - np.cos(np.float32(np.pi) * phase)) / 2, np.float32)


def read_window(picture: Picture, top: int, left: int, height: int, width: int) -> FloatArray:
    """Return a window of a picture, (3, height, width), white at 1, reflected at the border."""
    rows = reflected(np.arange(top, top + height), picture.shape[0])
    columns = reflected(np.arange(left, left + width), picture.shape[1])
    return np.ascontiguousarray(as_float(picture[rows[:, None], columns]).transpose(2, 0, 1))


def read_map_window(
    plane: Plane, size: tuple[int, int], top: int, left: int, height: int, width: int
) -> Plane:
    """Return a window, (height, width), of the map of a picture, as map_window does."""
    window = map_window(as_tensor(plane), size, top, left, height, width)
    return np.asarray(window.numpy(), np.float32)


def as_tensor(plane: Plane) -> Tensor:
    """Return an array as a tensor on the CPU; it shares the memory of one that can be written."""
    return torch.from_numpy(plane if plane.flags.writeable else plane.copy())


def map_cells(
    shape: tuple[int, ...], size: tuple[int, int], rows: slice, columns: slice
) -> tuple[slice, slice]:
    """Return which part of a map a part of its picture is interpolated from by map_window.

    shape: (h, w) of the map. size: (H, W) of the picture, in whose pixels rows and columns are
        given.
    """
    cells = []
    for part, side, count in zip((rows, columns), size, shape, strict=True):
        first = int((part.start + 0.5) * (count / side) - 0.5)
        last = int((part.stop - 0.5) * (count / side) - 0.5) + 1
        cells.append(slice(max(first, 0), min(last, count - 1) + 1))
    return cells[0], cells[1]


class WeightCells:
    """Tells of a map of weights in [0, 1], without looking at all cells, where it is 0 or 1."""

    def __init__(self, plane: Plane, size: tuple[int, int]) -> None:
        """size: (H, W) of the picture that it covers."""
        self._shape, self._size = plane.shape, size
        self._above_0 = cv2.integral((plane > 0).astype(np.uint8))
        self._at_1 = cv2.integral((plane >= 1).astype(np.uint8))

    def any(self, rows: slice, columns: slice) -> bool:
        """Whether any of map_cells is above 0."""
        return self._count(self._above_0, map_cells(self._shape, self._size, rows, columns)) > 0

    def all_1(self, rows: slice, columns: slice) -> bool:
        """Whether all of map_cells are 1."""
        down, across = cells = map_cells(self._shape, self._size, rows, columns)
        area = (down.stop - down.start) * (across.stop - across.start)
        return bool(self._count(self._at_1, cells) == area)

    @staticmethod
    def _count(sums: npt.NDArray[np.generic], cells: tuple[slice, slice]) -> int:
        (top, bottom), (left, right) = ((part.start, part.stop) for part in cells)
        corners = sums[bottom, right], sums[top, right], sums[bottom, left], sums[top, left]
        last, above, before, both = map(int, corners)
        return last - above - before + both


def map_window(
    plane: Tensor, size: tuple[int, int], top: int, left: int, height: int, width: int
) -> Tensor:
    """Return a window, (height, width), of the map of a picture, reflected at the border.

    plane: (h, w); it may be coarser than the picture, and is interpolated bilinearly as by OpenCV's
        resize.
    size: (H, W) of the picture, in whose pixels the window is given.
    """
    rows = reflected(np.arange(top, top + height), size[0])
    columns = reflected(np.arange(left, left + width), size[1])
    above, below, down = _neighbours(rows, size[0], plane.shape[0])
    first, last = int(above.min()), int(below.max())
    # Along the rows first, while there are only the map's: copying whole rows is fast.
    lines = plane[first : last + 1]
    lines = _interpolated(lines, 1, _neighbours(columns, size[1], plane.shape[1]))
    return _interpolated(lines, 0, (above - first, below - first, down))


def _interpolated(plane: Tensor, axis: int, at: tuple[Indices, Indices, FloatArray]) -> Tensor:
    """Interpolate along an axis; at: cells before and after, and the latter's share."""
    before, after, share = (torch.from_numpy(values).to(plane.device) for values in at)
    weight = share[:, None] if axis == 0 else share
    return torch.lerp(plane.index_select(axis, before), plane.index_select(axis, after), weight)


def pool_map(plane: Plane, size: tuple[int, int], side: int) -> Plane:
    """Interpolate a map to its picture's pixels and pool it adaptively to (side, side).

    size: (H, W) of the picture. The interpolated map is never in memory as a whole.
    """
    rows, columns = (_areas(length, side) for length in size)
    pooled = np.empty((side, side), np.float32)
    for i, (top, bottom) in enumerate(rows):
        band = read_map_window(plane, size, top, 0, bottom - top, size[1]).mean(0, np.float64)
        pooled[i] = [band[left:right].mean() for left, right in columns]
    return pooled


def _areas(length: int, count: int) -> list[tuple[int, int]]:
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _neighbours(index: Indices, size: int, map_size: int) -> tuple[Indices, Indices, FloatArray]:
    """Return, for pixels of an axis, the map's cells before and after, and the latter's share."""
    at = np.clip((index + 0.5) * (map_size / size) - 0.5, 0, map_size - 1)
    before = at.astype(np.int64)
    after = np.minimum(before + 1, map_size - 1)
    return before, after, (at - before).astype(np.float32)


def reflected(index: Indices, size: int) -> Indices:
    """Return indices in [0, size): those outside are reflected about the border, repeatedly."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.abs(index) % period
    return np.asarray(np.minimum(folded, period - folded), np.int64)


class RowBlender:
    """Blend restored tiles, row by row, and return the picture's rows as they are finished.

    Only one row of tiles is in memory: some tens of megabytes for a picture of 45 MP.
    """

    def __init__(self, width: int) -> None:
        self._band = np.zeros((0, width, 3), np.float32)
        self._top = 0

    @property
    def held_rows(self) -> int:
        """Rows of the picture that are in memory, at most those of a tile."""
        return self._band.shape[0]

    def add(self, rows: Span, columns: Span, tile: FloatArray) -> None:
        """Add a tile, (rows.length, columns.length, 3)."""
        missing = rows.stop - self._top - self.held_rows
        if missing > 0:
            self._band = np.pad(self._band, ((0, missing), (0, 0), (0, 0)))
        weights = blend_weights(rows)[:, None, None] * blend_weights(columns)[None, :, None]
        at = slice(rows.start - self._top, rows.stop - self._top)
        self._band[at, columns.start : columns.stop] += tile * weights

    def take(self, rows: Span) -> FloatArray:
        """Return the next rows that no later tile touches, (count, width, 3).

        rows: of the row of tiles that is complete.
        """
        count = rows.stop - rows.after - self._top
        finished = self._band[:count]
        self._band = self._band[count:].copy()
        self._top += count
        return finished
