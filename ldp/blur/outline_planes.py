"""What the outline network is given of a photo (ldp.blur.outline_net)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.falloff import evening
from ldp.blur.matching import blur, differences, edge_costs, lightness
from ldp.blur.outline_net import COARSE_PLANES, LEVELS
from ldp.blur.outlines import align
from ldp.blur.sizes import resized
from ldp.types import BlurMap, FloatArray, Picture, Plane, ReducibleViews

PIXELS = 400_000
"""The network looks at pictures of about this size."""
_LEAST_SIDE_PX = 64
_MARGIN = 0.15
"""Depths beyond those of the map are tried by this share of them."""
_CONTRAST_SIGMA_PX = 8.0
_CONTRAST_FLOOR = 0.01
_COST_FLOOR = 0.02
_DIFFERENCE_GAIN = 2.0
_LARGEST_VALUE = 4.0


OWN_PLANE = 5
"""Of the fine planes: the map, -1 at the first level and 1 at the last."""
MEASURED_PLANE, CONFIDENCE_PLANE = 0, 1
"""Of the coarse planes: the map before it was aligned, likewise; and its confidence."""
COST_PLANES = slice(COARSE_PLANES - 2 * LEVELS, COARSE_PLANES - LEVELS)
"""The logarithm of each level's cost over the least one: how much worse the views fit there."""
TENT_PLANES = slice(COARSE_PLANES - LEVELS, None)


@dataclass(frozen=True)
class OutlinePlanes:
    """What the network is given, and what its answers mean.

    fine: (FINE_PLANES, h, w). coarse: (COARSE_PLANES, h / 2, w / 2). own: (h, w), the map, 0 at
    low_px and 1 at high_px. low_px, high_px: the first and the last disparity that are tried, in
    px of a picture of this size. scale: (w,), its px to one of the map's disparity. amount: (h, w),
    of the map.
    """

    fine: FloatArray
    coarse: FloatArray
    own: Plane
    low_px: float
    high_px: float
    scale: FloatArray
    amount: Plane

    def disparity_px(self, depth: Plane) -> Plane:
        """Return disparities in px of a picture of this size, of depths on the scale of `own`."""
        span_px = np.float32(self.high_px - self.low_px)
        return np.asarray(depth * span_px + np.float32(self.low_px), np.float32)


def outline_planes(
    blur_map: BlurMap, views: ReducibleViews, sharp: Picture
) -> OutlinePlanes | None:
    """Return what the network is given of a photo; None for a map without disparity or confidence
    or of one depth, and for very small pictures. See ldp.blur.placing.OutlinePlacer.placed."""
    if blur_map.disparity_px is None or blur_map.confidence is None:
        return None
    pair = views.reduced(PIXELS)
    height, width = (side - side % 2 for side in pair.size)
    if min(height, width) < _LEAST_SIDE_PX:
        return None
    size = height, width
    left, right = (resized(lightness(view), size) for view in (pair.left, pair.right))
    guide = resized(sharp, size).clip(0, 1)
    aligned = align(blur_map, sharp, PIXELS)
    assert aligned.disparity_px is not None
    # Disparities as the views show them at this size.
    scale = np.float32(width / views.size[1]) / evening(width, blur_map.falloff)
    own_px = resized(aligned.disparity_px, size) * scale
    low, high = (float(value) for value in np.percentile(own_px, [0.5, 99.5]))
    if high - low < 1e-3:
        return None
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    levels_px = np.linspace(low, high, LEVELS)
    own = (own_px - np.float32(low)) / np.float32(high - low)
    measured_px = resized(blur_map.disparity_px, size) * scale
    measured = (measured_px - np.float32(low)) / np.float32(high - low)
    confidence = resized(blur_map.confidence, size)
    fine = [
        *np.moveaxis(2 * guide - 1, 2, 0),
        *_normalised(lightness(guide), 0.5 * (left + right)),
        2 * own - 1,
        *(np.float32(_DIFFERENCE_GAIN) * each for each in differences(left, right, levels_px)),
    ]
    coarse = [
        2 * half(measured) - 1,
        half(confidence),
        *_constants(low, high, (height // 2, width // 2)),
        *_costs(left, right, levels_px),
        *tents(own),
    ]
    amount = resized(aligned.amount, size)
    return OutlinePlanes(_stacked(fine), _stacked(coarse), own, low, high, scale, amount)


def _stacked(planes: list[Plane]) -> FloatArray:
    return np.asarray(np.stack(planes).clip(-_LARGEST_VALUE, _LARGEST_VALUE), np.float32)


def half(plane: Plane) -> Plane:
    """Return a plane of (h, w) at half of its size."""
    size = plane.shape[1] // 2, plane.shape[0] // 2
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _normalised(sharp: Plane, views: Plane) -> tuple[Plane, Plane]:
    """Return the lightness of the restored picture and of the views, less their local means, over
    the local contrast of the former: how much flatter the views are tells their blur."""
    centred, of_views = (each - blur(each, _CONTRAST_SIGMA_PX) for each in (sharp, views))
    variance = blur(np.square(centred), _CONTRAST_SIGMA_PX)
    contrast = np.sqrt(variance + np.float32(_CONTRAST_FLOOR**2))
    return centred / contrast, of_views / contrast


def _constants(low_px: float, high_px: float, size: tuple[int, int]) -> list[Plane]:
    """Return planes of one value each: how far the depths are apart, and where the focus lies."""
    span_px = high_px - low_px
    values = np.log2(span_px) / 4, np.clip(-low_px / span_px, -1, 2), np.clip(span_px / 16, 0, 2)
    return [np.full(size, value, np.float32) for value in values]


def _costs(left: Plane, right: Plane, levels_px: npt.NDArray[np.float64]) -> list[Plane]:
    """Return the logarithm of the least cost, and of each level's over it."""
    costs = [half(cost) + np.float32(_COST_FLOOR) for cost in edge_costs(left, right, levels_px)]
    least = np.minimum.reduce(costs)
    return [np.log(least) / 2, *(np.log(cost / least) for cost in costs)]


def tents(own: Plane) -> list[Plane]:
    """Return how near a map, (h, w), is to each level, 1 at it and 0 at the next one, at half of
    its size."""
    steps = half(own) * np.float32(LEVELS - 1)
    return [(1 - np.abs(steps - np.float32(level))).clip(0, 1) for level in range(LEVELS)]
