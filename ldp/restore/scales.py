"""Restore every region of a photo at the scale that suits its blur.

A network removes blur of the radii that it was trained on; stronger blur it leaves as it is. In
scaled-down views strong blur is within its range, at the cost of detail, of which strong blur has
left little. So the views are restored at several scales, and each region gets the correction of the
scale that suits its radius: the difference between the restored picture and the mean view of that
scale. Corrections are interpolated to full size and added to the full-size mean view, whose detail
and grain stay. What is in focus gets no correction; tiles that no region needs are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import cv2
import numpy as np

from ldp.restore.scale_weights import ScaleWeights
from ldp.restore.tiling import Progress, ReceiveRows, RowBlender, Span
from ldp.types import BlurMap, FloatArray, Picture, Plane, ViewPair, as_float

_BAND_ROWS = 512
_REACH_CELLS = 3
"""A pixel of a scaled correction reaches this many of its own size, by bicubic interpolation."""


class Tiler(Protocol):
    """ldp.restore.deblur.Deblurrer."""

    def tile_spans(self, size: tuple[int, int], tile_px: int) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of tiles of a picture of `size` (H, W)."""

    def tile_restorer(
        self, views: ViewPair, blur_map: BlurMap
    ) -> Callable[[Span, Span], FloatArray]:
        """Return the function that restores one tile."""


@dataclass(frozen=True)
class ScaledTask:
    """A photo, what to restore it with, and where at which scale."""

    tiler: Tiler
    views: ViewPair
    blur_map: BlurMap
    weights: ScaleWeights
    tile_px: int


def restore_at_scales(task: ScaledTask, receive: ReceiveRows, progress: Progress | None) -> None:
    """Call receive(first_row, rows) for every band of the sharp picture, white at 1, not clipped.

    Where all weights are 0 it is the mean view. Only tiles that are computed count in progress.
    """
    views = task.views
    passes = [
        _Pass.of(task, factor, plane)
        for factor, plane in zip(task.weights.factors, task.weights.planes, strict=True)
    ]
    count = _Count(progress, sum(len(columns) for one in passes for _, columns in one.tiles))
    coarse = [(one, _whole_correction(one, count)) for one in passes if one.factor > 1]
    fine = [one for one in passes if one.factor == 1]
    bands = _corrections(fine[0], count) if fine else _zeros(views.size)
    for top, band in bands:
        rows = slice(top, top + len(band))
        if fine:
            band *= weight_rows(fine[0].weight, views.size, rows)[..., None]
        for one, correction in coarse:
            weight = weight_rows(one.weight, views.size, rows)
            if weight.any():
                band += weight[..., None] * carried_up(correction, one.factor, rows, views.size[1])
        band += mean_view(views, rows, slice(None))
        receive(top, band)


def mean_view(views: ViewPair, rows: slice, columns: slice) -> FloatArray:
    """Return a part of the mean of the two views, white at 1, (rows, columns, 3)."""
    mean = as_float(views.left[rows, columns]) + as_float(views.right[rows, columns])
    mean *= np.float32(0.5)
    return mean


def reduced(view: Picture, factor: int) -> Picture:
    """Scale a view down: every pixel is the mean of factor x factor.

    Both sides round up; the border is repeated into the last pixels.
    """
    if factor == 1:
        return view
    height, width = view.shape[:2]
    down, across = -height % factor, -width % factor
    if down or across:
        view = cast(Picture, np.pad(view, ((0, down), (0, across), (0, 0)), "edge"))
    size = (view.shape[1] // factor, view.shape[0] // factor)
    return cast(Picture, cv2.resize(view, size, interpolation=cv2.INTER_AREA))


def map_at(blur_map: BlurMap, factor: int) -> BlurMap:
    """Return the blur map of scaled-down views: of its planes, those that networks read.

    The amount of a map in pixels is 1 - exp(-pixels / scale), and pixels shrink. Any other map says
    how blurred a place is for this photo, which does not depend on the scale.
    """
    in_pixels = blur_map.disparity_px is not None or blur_map.radius_px is not None
    amount = blur_map.amount
    if in_pixels and factor > 1:
        left_over = np.maximum(1 - amount, np.float32(1e-7))
        amount = np.asarray(1 - left_over ** np.float32(1 / factor), np.float32)
    return BlurMap(amount=amount, soft=blur_map.soft)


def weight_rows(weight: Plane, size: tuple[int, int], rows: slice) -> Plane:
    """Return some rows of a weight, interpolated bilinearly to a view of `size` (H, W)."""
    height, width = size
    if weight.shape == size:
        return weight[rows]
    place = (np.arange(rows.start, rows.stop) + 0.5) * (len(weight) / height) - 0.5
    place = np.clip(place, 0, len(weight) - 1)
    above = place.astype(np.intp)
    below = np.minimum(above + 1, len(weight) - 1)
    share = (place - above).astype(np.float32)[:, None]
    lines = weight[above] * (1 - share) + weight[below] * share
    return np.asarray(cv2.resize(lines, (width, len(lines))), np.float32)


def carried_up(correction: FloatArray, factor: int, rows: slice, width: int) -> FloatArray:
    """Return some rows of a scaled correction at full size, by bicubic interpolation."""
    first = rows.start // factor - _REACH_CELLS
    last = -(-rows.stop // factor) + _REACH_CELLS
    part = correction[np.clip(np.arange(first, last), 0, len(correction) - 1)]
    size = (part.shape[1] * factor, len(part) * factor)
    large = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC)
    start = rows.start - first * factor
    return np.asarray(large[start : start + rows.stop - rows.start, :width], np.float32)


@dataclass(frozen=True)
class _Pass:
    """One scale: its views, its weight, and the tiles to compute, of each row some columns."""

    factor: int
    weight: Plane
    views: ViewPair
    restore_tile: Callable[[Span, Span], FloatArray]
    tiles: list[tuple[Span, list[Span]]]

    @classmethod
    def of(cls, task: ScaledTask, factor: int, weight: Plane) -> _Pass:
        views = ViewPair(reduced(task.views.left, factor), reduced(task.views.right, factor))
        rows, columns = task.tiler.tile_spans(views.size, task.tile_px)
        size = task.views.size
        tiles = [
            (row, [c for c in columns if _wanted(weight, size, factor, row, c)]) for row in rows
        ]
        restore_tile = task.tiler.tile_restorer(views, map_at(task.blur_map, factor))
        return cls(factor, weight, views, restore_tile, tiles)


@dataclass
class _Count:
    """Tiles done, of a total."""

    progress: Progress | None
    total: int
    done: int = 0

    def advance(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)


def _wanted(weight: Plane, size: tuple[int, int], factor: int, row: Span, column: Span) -> bool:
    """Whether any pixel that a tile contributes to has a weight above 0."""
    cells = []
    for span, length, count in zip((row, column), size, weight.shape, strict=True):
        first = (span.start - _REACH_CELLS) * factor * count / length - 1
        last = (span.stop + _REACH_CELLS) * factor * count / length + 1
        cells.append(slice(max(0, int(first)), int(np.ceil(last))))
    return bool(weight[cells[0], cells[1]].any())


def _whole_correction(one: _Pass, count: _Count) -> FloatArray:
    correction = np.zeros((*one.views.size, 3), np.float32)
    for top, band in _corrections(one, count):
        correction[top : top + len(band)] = band
    return correction


def _corrections(one: _Pass, count: _Count) -> Iterator[tuple[int, FloatArray]]:
    """The restored picture less the mean view in bands with their first row; 0 in tiles that are
    not computed."""
    width = one.views.size[1]
    blender = RowBlender(width)
    top = 0
    for row, columns in one.tiles:
        nothing = np.zeros((row.length, width, 3), np.float32)
        blender.add(row, Span(0, width, 0, 0), nothing)
        for column in columns:
            area = (slice(row.start, row.stop), slice(column.start, column.stop))
            blender.add(row, column, one.restore_tile(row, column) - mean_view(one.views, *area))
            count.advance()
        band = blender.take(row)
        yield top, band
        top += len(band)


def _zeros(size: tuple[int, int]) -> Iterator[tuple[int, FloatArray]]:
    height, width = size
    for top in range(0, height, _BAND_ROWS):
        yield top, np.zeros((min(_BAND_ROWS, height - top), width, 3), np.float32)
