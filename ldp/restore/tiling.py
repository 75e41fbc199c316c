"""Cuts a picture into tiles and puts the restored tiles together without seams.

A tile is read with a halo around it, which is thrown away again; neighbouring tiles overlap, and
the overlap is blended by a raised cosine. Beyond the picture's border its pixels are reflected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldp.types import Picture, Plane, as_float

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """One tile's extent along one axis, in pixels of the picture.

    start, stop: what the tile gives to the result. before, after: how much of it is shared with the
    neighbour before and after, 0 at the picture's border.
    """

    start: int
    stop: int
    before: int
    after: int

    @property
    def length(self) -> int:
        """Pixels from start to stop."""
        return self.stop - self.start


def spans(size: int, tile: int, overlap: int, align: int) -> list[Span]:
    """Tiles of at most `tile` pixels along one axis, each starting at a multiple of `align`.

    The aligned start keeps every tile on the same grid of the network's strides and windows. A tile
    is at least as long as two overlaps, so that no pixel lies in three tiles.
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


def blend_weights(span: Span) -> Floats:
    """(length,) weights of a tile along one axis; where two tiles overlap, theirs add up to 1."""
    weights = np.ones(span.length, np.float32)
    if span.before:
        weights[: span.before] = _ramp(span.before)
    if span.after:
        weights[-span.after :] = 1 - _ramp(span.after)
    return weights


def _ramp(length: int) -> Floats:
    phase = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
    return np.asarray((1 - np.cos(np.float32(np.pi) * phase)) / 2, np.float32)


def read_window(picture: Picture, top: int, left: int, height: int, width: int) -> Floats:
    """A window of a picture as (3, height, width), white at 1; what lies outside is reflected."""
    rows = _reflected(np.arange(top, top + height), picture.shape[0])
    columns = _reflected(np.arange(left, left + width), picture.shape[1])
    return np.ascontiguousarray(as_float(picture[rows[:, None], columns]).transpose(2, 0, 1))


def read_map_window(
    plane: Plane, size: tuple[int, int], top: int, left: int, height: int, width: int
) -> Plane:
    """A window, (height, width), of a map of a picture of `size` (H, W), outside it reflected.

    The map may be coarser than the picture; it is interpolated bilinearly, its border values lying
    at the centres of its outer cells as in OpenCV's resize.
    """
    rows = _reflected(np.arange(top, top + height), size[0])
    columns = _reflected(np.arange(left, left + width), size[1])
    above, below, down = _neighbours(rows, size[0], plane.shape[0])
    before, after, along = _neighbours(columns, size[1], plane.shape[1])
    first, last = int(above.min()), int(below.max())
    part = plane[first : last + 1]
    lines = part[:, before] * (1 - along) + part[:, after] * along
    window = lines[above - first] * (1 - down[:, None]) + lines[below - first] * down[:, None]
    return np.asarray(window, np.float32)


def pool_map(plane: Plane, size: tuple[int, int], side: int) -> Plane:
    """A map of a picture of `size` (H, W), interpolated to its pixels and averaged over a grid of
    side x side areas, (side, side); areas overlap where they do not divide the pixels evenly.

    As adaptive pooling of the interpolated map, which is never whole in memory.
    """
    rows, columns = (_areas(length, side) for length in size)
    pooled = np.empty((side, side), np.float32)
    for i, (top, bottom) in enumerate(rows):
        band = read_map_window(plane, size, top, 0, bottom - top, size[1]).mean(0, np.float64)
        pooled[i] = [band[left:right].mean() for left, right in columns]
    return pooled


def _areas(length: int, count: int) -> list[tuple[int, int]]:
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _neighbours(index: Indices, size: int, map_size: int) -> tuple[Indices, Indices, Floats]:
    """For pixels of an axis: the map's value before, the one after, and the latter's share."""
    at = np.clip((index + 0.5) * (map_size / size) - 0.5, 0, map_size - 1)
    before = at.astype(np.int64)
    after = np.minimum(before + 1, map_size - 1)
    return before, after, (at - before).astype(np.float32)


def _reflected(index: Indices, size: int) -> Indices:
    """Indices outside [0, size) mirrored about the border pixels, as often as it takes."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.abs(index) % period
    return np.asarray(np.minimum(folded, period - folded), np.int64)


class RowBlender:
    """Collects restored tiles row by row and gives away the picture's rows as they are finished.

    Only one row of tiles is held, so a 45 MP picture costs some tens of megabytes.
    """

    def __init__(self, width: int) -> None:
        self._band = np.zeros((0, width, 3), np.float32)
        self._top = 0

    @property
    def held_rows(self) -> int:
        """Rows of the picture that are in memory now, never more than a tile's."""
        return self._band.shape[0]

    def add(self, rows: Span, columns: Span, tile: Floats) -> None:
        """tile: (rows.length, columns.length, 3)."""
        missing = rows.stop - self._top - self.held_rows
        if missing > 0:
            self._band = np.pad(self._band, ((0, missing), (0, 0), (0, 0)))
        weights = blend_weights(rows)[:, None, None] * blend_weights(columns)[None, :, None]
        at = slice(rows.start - self._top, rows.stop - self._top)
        self._band[at, columns.start : columns.stop] += tile * weights

    def take(self, rows: Span) -> Floats:
        """After a whole row of tiles: the next rows of the picture, those that no later tile
        touches, (count, width, 3)."""
        count = rows.stop - rows.after - self._top
        finished = self._band[:count]
        self._band = self._band[count:].copy()
        self._top += count
        return finished
