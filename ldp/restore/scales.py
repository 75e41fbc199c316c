"""Restore every region of a photo at the scale that suits its blur.

A network removes blur of the radii that it was trained on; stronger blur it leaves as it is. In
scaled-down views strong blur is within its range, at the cost of detail, of which strong blur has
left little. So the views are restored at several scales, and each region gets the correction of the
scale that suits its radius: the difference between the restored picture and the mean view of that
scale. Corrections are interpolated to full size and added to the untouched photo, whose detail and
grain stay. What is in focus gets no correction; tiles that no region needs are not computed.

Scaled-down views and corrections are made part by part, on the device: of a photo of 45 MP they
take at most 0.5 GB, and on a CPU its full-size views are never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.restore.photo_views import PhotoViews, RollingViews, mean_of
from ldp.restore.protect import Kept
from ldp.restore.reduced_views import ReducedViews
from ldp.restore.scale_weights import ScaleWeights
from ldp.restore.tile_plan import Band, Wanting
from ldp.restore.tiles import Receive, restore_in_tiles
from ldp.restore.tiling import Progress, Span, WeightCells, as_tensor, map_window
from ldp.types import BlurMap, Plane

GRAIN_REACH = 1 / 32
"""How far beside regions that keep their grain a network's removal of noise is undone, less and
less, in longer sides of the photo: a step in noise would show the border."""
_GRAIN_DEVIATIONS = 3.0
_GRAIN_SIDE = 512
_REACH_CELLS = 3
"""A pixel of a scaled correction reaches this many of its own size, by bicubic interpolation."""

RestoreTile = Callable[[Span, Span], Tensor]
"""restore_tile(rows, columns) returns a tile, (3, h, w)."""


@dataclass(frozen=True)
class ScaledTask:
    """How a photo is restored, and where at which scale.

    bands: bands(picture, size) returns the tiles of a picture of (H, W).
    restorer: restorer(views, blur_map) returns the function that restores one tile.
    photo: what the network is given; kept.views is what its corrections are added to.
    """

    bands: Callable[[Wanting, tuple[int, int]], list[Band]]
    restorer: Callable[[PhotoViews, BlurMap], RestoreTile]
    photo: PhotoViews
    blur_map: BlurMap
    kept: Kept
    weights: ScaleWeights


def restore_at_scales(
    task: ScaledTask, receive: Receive, progress: Progress | None, device: torch.device
) -> None:
    """Call receive for every part of the result.

    The share of a correction that a place gets is the weight of the correction's scale there, times
    task.kept.weight. Where all shares are 0 the photo is untouched. Only tiles that are computed
    count in progress.
    """
    planes = [_product(plane, task.kept.weight) for plane in task.weights.planes]
    shares = dict(zip(task.weights.factors, planes, strict=True))
    size = task.photo.size
    fine = shares.pop(1, np.zeros((1, 1), np.float32))
    shares = {factor: share for factor, share in shares.items() if share.any()}
    counter = _Counter(progress)
    copies: dict[int, PhotoViews] = {1: task.photo}
    passes = []
    for factor, share in shares.items():
        finer = max(other for other in copies if factor % other == 0)
        copies[factor] = ReducedViews(copies[finer], factor // finer, device)
        scaled = _ScaledKept(copies[factor], share, task.kept.strength, device)
        bands = task.bands(scaled, copies[factor].size)
        passes.append((factor, scaled, bands, counter.counted(bands)))
    rolling = RollingViews(task.photo, device)
    own = _AddedTo(replace(task.kept, weight=fine), rolling, [], grain_share(fine))
    own_bands = task.bands(own, size)
    own_progress = counter.counted(own_bands)
    copies.clear()
    while passes:  # a copy's memory is free after the last pass that reads from it
        factor, scaled, bands, count = passes.pop(0)
        pixels = _corrected(task, scaled, map_at(task.blur_map, factor), bands, count)
        del scaled
        own.corrections.append(_Correction(pixels, factor, shares[factor], size))
    restorer = task.restorer(rolling, task.blur_map)
    restore_in_tiles(restorer, own_bands, size[1], own, receive, own_progress, device=device)


def _corrected(
    task: ScaledTask,
    scaled: _ScaledKept,
    blur_map: BlurMap,
    bands: list[Band],
    progress: Progress,
) -> Tensor:
    """Return the correction of one scale, (h, w, 3)."""
    views, device = scaled.views, scaled.device
    pixels = torch.zeros((*views.size, 3), device=device)
    restore_tile = task.restorer(views, blur_map)
    receive = partial(_stored, pixels)
    restore_in_tiles(restore_tile, bands, views.size[1], scaled, receive, progress, device=device)
    return pixels


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


def carried_up(correction: Tensor, factor: int, rows: slice, columns: slice) -> Tensor:
    """Return a part of a scaled correction at full size, (3, h, w), by bicubic interpolation.

    correction: (h, w, 3). rows, columns: in pixels of the full size.
    """
    part, inner = correction, []
    for axis, (wanted, side) in enumerate(zip((rows, columns), correction.shape[:2], strict=True)):
        first = wanted.start // factor - _REACH_CELLS
        last = -(-wanted.stop // factor) + _REACH_CELLS
        part = part.narrow(axis, max(0, first), min(last, side) - max(0, first))
        if first < 0 or last > side:
            index = torch.arange(first, last, device=part.device) - max(0, first)
            part = part.index_select(axis, index.clamp(0, part.shape[axis] - 1))
        start = wanted.start - first * factor
        inner.append(slice(start, start + wanted.stop - wanted.start))
    return _enlarged(part, factor)[:, inner[0], inner[1]]


def grain_share(fine: Plane) -> Plane:
    """Return the share of the removed noise that is put back, from the weight of scale 1.

    Both planes cover the photo. The share is 1 beside regions that are left as they are or get the
    corrections of copies, and 0 farther than GRAIN_REACH from them.
    """
    reduction = min(1.0, _GRAIN_SIDE / max(fine.shape))
    height, width = (max(1, round(side * reduction)) for side in fine.shape)
    small = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    is_restored = (small > 0.5).astype(np.uint8)
    if is_restored.all():
        return np.zeros((1, 1), np.float32)
    away = cv2.distanceTransform(is_restored, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    reach = np.float32(GRAIN_REACH * max(small.shape))
    return np.asarray(np.clip(1 - away / reach, 0, 1), np.float32)


def with_grain(restored: Tensor, mean: Tensor, noise: float) -> Tensor:
    """Put the noise back that a network removed: changes as small as noise, no others.

    mean: of the views. noise: standard deviation in one view; their mean has 1/sqrt(2) of it.
    """
    removed = mean - restored
    spread = _GRAIN_DEVIATIONS * noise / 2**0.5
    return restored + removed * torch.exp(-0.5 * (removed / spread).square())


def _enlarged(picture: Tensor, factor: int) -> Tensor:
    """Return (h, w, 3) enlarged, (3, h * factor, w * factor)."""
    if picture.device.type == "cpu":  # the same interpolation, eight times as fast
        pixels = np.ascontiguousarray(picture.numpy())
        size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
        large = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        return torch.from_numpy(large).permute(2, 0, 1)
    planes = picture.permute(2, 0, 1)[None]
    return F.interpolate(planes, scale_factor=factor, mode="bicubic")[0]


@dataclass(frozen=True)
class _ScaledKept:
    """What becomes of the tiles of scaled-down views: corrections, where a share of them is used.

    weight: (h, w), the share of the corrections that is used, see restore_at_scales.
    """

    views: PhotoViews
    weight: Plane
    strength: float
    device: torch.device

    def wants(self, rows: Span, columns: Span) -> bool:
        """See ldp.restore.tiles.Keeping."""
        area = [
            slice(max(0, span.start - _REACH_CELLS), min(side, span.stop + _REACH_CELLS))
            for span, side in zip((rows, columns), self.views.size, strict=True)
        ]
        return self._cells.any(*area)

    @cached_property
    def _cells(self) -> WeightCells:
        return WeightCells(self.weight, self.views.size)

    def share(self, rows: Span, columns: Span, restored: Tensor) -> Tensor:
        """See ldp.restore.tiles.Keeping."""
        area = rows.as_slice, columns.as_slice
        return (restored - mean_of(self.views.pair(*area))) * self.strength

    def finished(self, rows: slice, columns: slice, total: Tensor | None) -> Tensor:
        """See ldp.restore.tiles.Keeping."""
        if total is not None:
            return total
        return torch.zeros(
            (3, rows.stop - rows.start, columns.stop - columns.start), device=self.device
        )


@dataclass(frozen=True)
class _Correction:
    """A correction, (h, w, 3), and the share of it that every place of a photo of `size` gets."""

    pixels: Tensor
    factor: int
    share: Plane
    size: tuple[int, int]

    def part(self, rows: slice, columns: slice) -> Tensor | None:
        """Return a part of that share, (3, h, w); None where it is 0."""
        if not self._cells.any(rows, columns):
            return None
        part = carried_up(self.pixels, self.factor, rows, columns)
        if self._cells.all_1(rows, columns):
            return part
        share = as_tensor(self.share).to(part.device)
        extent = (rows.stop - rows.start, columns.stop - columns.start)
        return part * map_window(share, self.size, rows.start, columns.start, *extent)

    @cached_property
    def _cells(self) -> WeightCells:
        return WeightCells(self.share, self.size)


@dataclass(frozen=True)
class _AddedTo:
    """What becomes of the photo's own tiles: corrections of other scales are added to them.

    views: what the network was given. grain: see grain_share.
    """

    kept: Kept
    views: PhotoViews
    corrections: list[_Correction]
    grain: Plane

    def wants(self, rows: Span, columns: Span) -> bool:
        """See ldp.restore.tiles.Keeping."""
        return self.kept.wants(rows, columns)

    def share(self, rows: Span, columns: Span, restored: Tensor) -> Tensor:
        """See ldp.restore.tiles.Keeping."""
        area = rows.as_slice, columns.as_slice
        has_grain = self.kept.shown is None and self.kept.noise > 0
        if has_grain and self._grain_cells.any(*area):
            mean = mean_of(self.views.pair(*area))
            extent = (rows.length, columns.length)
            grain = as_tensor(self.grain).to(restored.device)
            share = map_window(grain, self.views.size, rows.start, columns.start, *extent)
            grainy = with_grain(restored, mean, self.kept.noise)
            restored = torch.lerp(restored, grainy, share)
        return self.kept.share(rows, columns, restored)

    @cached_property
    def _grain_cells(self) -> WeightCells:
        return WeightCells(self.grain, self.views.size)

    def finished(self, rows: slice, columns: slice, total: Tensor | None) -> Tensor:
        """See ldp.restore.tiles.Keeping."""
        result = self.kept.finished(rows, columns, total)
        for correction in self.corrections:
            part = correction.part(rows, columns)
            if part is not None:
                result = result + part
        return result


class _Counter:
    """Counts the tiles of several passes as one."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._total = 0

    def counted(self, bands: list[Band]) -> Progress:
        """Return the progress of the next pass."""
        before = self._total
        self._total += sum(len(band.tiles) for band in bands)

        def advance(done: int, _: int) -> None:
            if self._progress:
                self._progress(before + done, self._total)

        return advance


def _stored(correction: Tensor, rows: slice, columns: slice, pixels: Tensor) -> None:
    correction[rows, columns] = pixels.permute(1, 2, 0)


def _product(plane: Plane, other: Plane) -> Plane:
    """Return the product of two planes that cover the same photo, on the finer grid."""
    large, small = (plane, other) if plane.size >= other.size else (other, plane)
    if small.size > 1 and small.shape != large.shape:
        size = (large.shape[1], large.shape[0])
        small = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(large * small, np.float32)
