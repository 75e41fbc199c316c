"""Align the planes of a blur map to the outlines of the restored picture, for masks and layers.

A map comes from windows of some size, so its steps are ramps that reach over the outlines. Here
its values are filled in anew from where they are sure, with breaks at the edges of the restored
picture, which shows outlines that were blurred when the map was measured. Then each value is voted
for by its surroundings: a weighted median, of which the votes are spread by a guided filter (He et
al., "Guided Image Filtering", TPAMI 2013; Ma et al., "Constant Time Weighted Median Filtering for
Stereo Matching and Beyond", ICCV 2013), whose guide is the restored picture too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.filling import fill
from ldp.blur.sizes import resized
from ldp.types import BlurMap, FloatArray, Picture, Plane, as_float, reduced_picture

WORK_PIXELS = 1_000_000
"""Outlines are found in a picture of about this size."""
VOTE_PIXELS = 150_000
"""Values are filled in and voted for in a picture of about this size."""
_FILL_REACH = 0.05
"""How far values are filled in, as a share of the longer side."""
_FILL_EDGE = 0.02
"""A step between neighbouring colours, white at 1, that breaks the filling."""
_STEEP = 0.02
"""Of all depths in a pixel: a slope that is taken for a step which was measured as a ramp."""
_VOTE_RADII_PX = (12, 4)
"""Of the windows of the first and the second vote."""
_PLACED_RADIUS_PX = 4
"""Of the windows in which depths that were placed vote."""
_EDGE_RADIUS_PX = 4
"""Of the windows in which the outlines are found at last."""
_EDGE = 1e-4
"""Variance of the guide within a window above which it counts as an edge."""
_LEVELS = 24
_LEAST_WEIGHT = 1e-6
_MAJORITY = 0.1
"""Shares that differ from a half by more decide a vote alone."""
_ENLARGING_RADIUS_PX = 2
_BAND_ROWS = 512


@dataclass(frozen=True)
class GuidedFilter:
    """Smooths planes with the edges of a picture, by local linear models of its colours.

    guide: (h, w, 3) float32 in [0, 1].
    """

    guide: FloatArray
    radius_px: int
    mean: FloatArray
    inverse: tuple[Plane, ...]
    """The inverse covariance of the colours: rr, rg, rb, gg, gb, bb."""

    @classmethod
    def of(cls, guide: FloatArray, radius_px: int, edge: float = _EDGE) -> GuidedFilter:
        """Prepare the filter of a picture. edge: variance that counts as an edge."""
        mean = _box(guide, radius_px)
        pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
        rr, rg, rb, gg, gb, bb = (
            _box(guide[..., i] * guide[..., j], radius_px) - mean[..., i] * mean[..., j]
            for i, j in pairs
        )
        rr, gg, bb = rr + np.float32(edge), gg + np.float32(edge), bb + np.float32(edge)
        # The inverse of a symmetric 3x3 matrix: its cofactors over its determinant.
        cofactors = (
            gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg,
            rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg,
        )  # fmt: skip
        determinant = rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]
        return cls(guide, radius_px, mean, tuple(each / determinant for each in cofactors))

    def model(self, plane: Plane) -> tuple[FloatArray, Plane]:
        """Return slope (h, w, 3) and offset (h, w) of the linear model around every pixel."""
        mean = _box(plane, self.radius_px)
        r, g, b = (
            _box(self.guide[..., i] * plane, self.radius_px) - self.mean[..., i] * mean
            for i in range(3)
        )
        rr, rg, rb, gg, gb, bb = self.inverse
        slope = np.dstack(
            [rr * r + rg * g + rb * b, rg * r + gg * g + gb * b, rb * r + gb * g + bb * b]
        )
        offset = mean - _summed(slope * self.mean)
        return _box(slope, self.radius_px), _box(offset, self.radius_px)

    def __call__(self, plane: Plane) -> Plane:
        """Return a smoothed plane (h, w)."""
        slope, offset = self.model(plane)
        return _summed(slope * self.guide) + offset


def align(blur_map: BlurMap, sharp: Picture, work_pixels: int = WORK_PIXELS) -> BlurMap:
    """Return the map with its steps at the outlines of the picture.

    sharp: (H, W, 3), the restored picture in the orientation of the map.

    Where the map has a confidence, its sure values decide; where it was corrected, that does; and
    where depths were placed, they are the disparities.

    The planes amount, disparity_px and confidence come back as (h, w), of about `work_pixels`
    pixels, or of H x W if that is less; the others as they were. `enlarged` makes them as large as
    the picture.
    """
    guides = _Guides.of(sharp, work_pixels)
    confidence, disparity_px = blur_map.confidence, blur_map.disparity_px

    def aligned(plane: Plane, corrected: Plane | None = None) -> Plane:
        plane = guides.fitted(plane)
        if confidence is not None:
            plane = _filled(plane, guides.fitted(confidence), guides.small)
        if corrected is not None:
            better = guides.parts(corrected)
            plane = np.where(np.isnan(better), plane, better).astype(np.float32)
        for vote in guides.votes:
            plane = _weighted_median(plane, vote)
        return placed(plane)

    def placed(plane: Plane) -> Plane:
        return np.asarray(guides.filtered(plane).clip(plane.min(), plane.max()), np.float32)

    placed_px, placed_amount = blur_map.placed_px, blur_map.placed_amount
    if placed_px is not None:
        disparity_px = placed(placed_px)
    elif disparity_px is not None:
        disparity_px = aligned(disparity_px, blur_map.corrected_px)
    return replace(
        blur_map,
        amount=aligned(blur_map.amount) if placed_amount is None else placed(placed_amount),
        disparity_px=disparity_px,
        confidence=None if confidence is None else guides.filtered(confidence).clip(0, 1),
    )


def share_within(
    blur_map: BlurMap,
    sharp: Picture,
    is_within: Callable[[Plane], npt.NDArray[np.bool_]],
    work_pixels: int = WORK_PIXELS,
) -> Plane:
    """Return the share of each pixel's surroundings whose disparity is within a range, in [0, 1].

    A map passes between two depths through all that lie between them, and so does all that is
    interpolated from it. Here every measured disparity is judged first, and what is filled in and
    voted for is the judgement: between two things outside the range nothing is within. Steep
    slopes do not count (see `certainty`).

    blur_map: as it was measured, with disparities. sharp, work_pixels, size of the result: see
    `align`.
    """
    assert blur_map.disparity_px is not None
    guides = _Guides.of(sharp, work_pixels)
    if blur_map.placed_px is not None:
        placed_px = blur_map.placed_px
        vote = GuidedFilter.of(resized(sharp, placed_px.shape), _PLACED_RADIUS_PX)
        return guides.filtered(_decided(vote(is_within(placed_px).astype(np.float32)))).clip(0, 1)
    disparity_px = guides.fitted(blur_map.disparity_px)
    confidence = blur_map.confidence
    sure = np.ones_like(disparity_px) if confidence is None else guides.fitted(confidence)
    share = is_within(disparity_px).astype(np.float32)
    share = _filled(share, sure, guides.small, slopes_of=disparity_px)
    if blur_map.corrected_px is not None:
        better = guides.parts(blur_map.corrected_px)
        share = np.where(np.isnan(better), share, is_within(better)).astype(np.float32)
    for vote in guides.votes:
        share = _decided(vote(share))
    return np.asarray(guides.filtered(share).clip(0, 1), np.float32)


def _decided(share: Plane) -> Plane:
    """Return 0 or 1 where the vote is clear, and between them what is left open."""
    return np.asarray((0.5 + (share - np.float32(0.5)) / (2 * _MAJORITY)).clip(0, 1), np.float32)


@dataclass(frozen=True)
class _Guides:
    """A picture at the sizes at which maps are aligned to it, and its filters.

    small: (h, w, 3), of about VOTE_PIXELS. size: (width, height) of the result.
    """

    small: FloatArray
    size: tuple[int, int]
    votes: tuple[GuidedFilter, ...]
    edges: GuidedFilter

    @classmethod
    def of(cls, sharp: Picture, work_pixels: int) -> _Guides:
        guide, small = reduced(sharp, work_pixels), reduced(sharp, min(work_pixels, VOTE_PIXELS))
        votes = tuple(GuidedFilter.of(small, radius) for radius in _VOTE_RADII_PX)
        size = guide.shape[1], guide.shape[0]
        return cls(small, size, votes, GuidedFilter.of(guide, _EDGE_RADIUS_PX))

    def fitted(self, plane: Plane) -> Plane:
        """Return a plane at the size of `small`."""
        return _fitted(plane, (self.small.shape[1], self.small.shape[0]))

    def parts(self, corrected: Plane) -> Plane:
        """Return a plane that is even but for steps, NaN where nothing is known, at that size."""
        size = self.small.shape[1], self.small.shape[0]
        return np.asarray(cv2.resize(corrected, size, interpolation=cv2.INTER_NEAREST), np.float32)

    def filtered(self, plane: Plane) -> Plane:
        """Return a plane at the size of the result, its steps at the edges."""
        return self.edges(_fitted(plane, self.size))


def filled_disparity(blur_map: BlurMap, sharp: Picture) -> Plane:
    """Return a map's disparity as `align` fills it in before the votes, of about VOTE_PIXELS.

    The map has a disparity and a confidence. sharp: see `align`.
    """
    assert blur_map.disparity_px is not None
    assert blur_map.confidence is not None
    small = reduced(sharp, VOTE_PIXELS)
    size = small.shape[1], small.shape[0]
    return _filled(_fitted(blur_map.disparity_px, size), _fitted(blur_map.confidence, size), small)


def certainty(plane: Plane, confidence: Plane) -> Plane:
    """Return how sure each value of a plane of about VOTE_PIXELS is, (h, w) in [0, 1].

    A value on a steep slope is not, however confident: it lies between those of two depths.
    """
    low, high = (float(value) for value in np.percentile(plane, [1, 99]))
    smooth = cv2.GaussianBlur(plane, (0, 0), 1)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    steepness = np.hypot(across, down) / np.float32(_STEEP * max(high - low, 1e-6))
    return np.asarray(np.square(confidence) / (1 + steepness**4), np.float32)


def _filled(
    plane: Plane, confidence: Plane, guide: FloatArray, slopes_of: Plane | None = None
) -> Plane:
    """Return the plane filled in from its sure values up to the edges of the guide.

    slopes_of: what has the slopes on which values are not sure; the plane itself by default.
    """
    weights = certainty(plane if slopes_of is None else slopes_of, confidence)
    weights = weights + np.float32(_LEAST_WEIGHT)
    reach = (_FILL_REACH * max(guide.shape)) ** 2
    (filled,) = fill(plane[None], weights, guide, reach, _FILL_EDGE)
    return np.asarray(filled, np.float32)


def reduced(picture: Picture, pixels: int) -> FloatArray:
    """Return a picture as float32 with white at 1, scaled down to about `pixels` if it has more."""
    return as_float(reduced_picture(picture, pixels))


def enlarged(plane: Plane, sharp: Picture) -> Plane:
    """Return an aligned plane at the size of the picture, (H, W), its steps along the outlines.

    The linear models of the colours, found at the size of the plane, are applied to the picture
    (He and Sun, "Fast Guided Filter", 2015). Values stay within those of the plane.
    """
    if plane.shape == sharp.shape[:2]:
        return plane
    result = np.empty(sharp.shape[:2], np.float32)
    for rows, band in enlarged_bands(plane, sharp):
        result[rows] = band
    return result


def enlarged_bands(plane: Plane, sharp: Picture) -> Iterator[tuple[slice, Plane]]:
    """Yield rows of what `enlarged` returns: a whole plane of 45 MP takes 180 MB."""
    height, width = sharp.shape[:2]
    if plane.shape == (height, width):
        yield slice(0, height), plane
        return
    size = (plane.shape[1], plane.shape[0])
    small: Picture = cv2.resize(sharp, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    slope, offset = GuidedFilter.of(as_float(small), _ENLARGING_RADIUS_PX).model(plane)
    model = np.dstack([slope, offset])
    lowest, highest = float(plane.min()), float(plane.max())
    for start in range(0, height, _BAND_ROWS):
        rows = slice(start, min(start + _BAND_ROWS, height))
        large = _rows_of_enlarged(model, rows, (height, width))
        band = _summed(large[..., :3] * as_float(sharp[rows])) + large[..., 3]
        yield rows, np.asarray(band.clip(lowest, highest), np.float32)


def _rows_of_enlarged(planes: FloatArray, rows: slice, size: tuple[int, int]) -> FloatArray:
    """Return rows of planes (h, w, k) scaled to `size` (H, W), bilinearly."""
    height, width = size
    scale_y, scale_x = planes.shape[0] / height, planes.shape[1] / width
    # Where the middle of every pixel lies in the small planes.
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * scale_y - 0.5
    x = (np.arange(width, dtype=np.float32) + 0.5) * scale_x - 0.5
    shape = (len(y), width)
    map_x = np.ascontiguousarray(np.broadcast_to(x, shape), np.float32)
    map_y = np.ascontiguousarray(np.broadcast_to(y[:, None], shape), np.float32)
    large = cv2.remap(planes, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(large, np.float32)


def _weighted_median(plane: Plane, votes: GuidedFilter) -> Plane:
    """Return the median of the plane around every pixel, each value's vote spread by the filter."""
    lowest, highest = (float(value) for value in np.percentile(plane, [0.5, 99.5]))
    step = (highest - lowest) / _LEVELS
    if step < 1e-6:
        return plane
    median = np.full_like(plane, highest)
    before = np.zeros_like(plane)
    is_open = np.ones(plane.shape, bool)
    for number in range(_LEVELS + 1):
        level = lowest + number * step
        below = np.clip((level - plane) / np.float32(step) + np.float32(0.5), 0, 1)
        share = np.maximum(np.clip(votes(below), 0, 1), before)
        reached = is_open & (share >= 0.5)
        part = (0.5 - before[reached]) / np.maximum(share[reached] - before[reached], 1e-6)
        median[reached] = level + step * (part - 1)
        is_open &= ~reached
        before = share
    return median


def _fitted(plane: Plane, size: tuple[int, int]) -> Plane:
    if (plane.shape[1], plane.shape[0]) == size:
        return plane
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _summed(planes: FloatArray) -> Plane:
    """Return the sum of three planes, (h, w, 3): several times as fast as NumPy's."""
    return np.asarray(cv2.transform(planes, np.ones((1, 3), np.float32)), np.float32)


def _box(planes: FloatArray, radius_px: int) -> FloatArray:
    side = 2 * radius_px + 1
    blurred = cv2.blur(planes, (side, side), borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)
