"""The blur map from dual-pixel disparity, signed and sub-pixel; it needs no trained weights."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ldp.blur.filling import fill
from ldp.blur.matching import Match, blur, search, warp
from ldp.types import BlurMap, Plane, ReducibleViews, as_float

# Weights of the three channels in the lightness that is matched: green is the least noisy.
_LIGHTNESS = np.array([0.3, 0.5, 0.2], np.float32)
# The whole range of disparities is searched at about this many pixels; finer scales search only
# around the disparity of the coarser one.
_SEARCH_PIXELS = 500_000
_SHORTEST_REACH_PX = 4.0
_REFINE_REACH_PX = 1.0
# How far values are spread into areas without texture, as a share of the longer side.
_FILL_REACH = 0.05
_FILL_EDGE = 0.05
# A measurement this far from its filled surroundings has half the weight.
_OUTLIER_PX = 0.3
# Added to the matching cost, which bounds the weight of a perfect match.
_COST_FLOOR = 0.02
_FALLOFF_POWER = 1.5


@dataclass(frozen=True)
class DisparityEstimator:
    """Signed disparity between the two views by multi-scale matching, as a blur map.

    The disparity of a dual-pixel photo is proportional to the blur, with the sign of the side of
    the focus plane (Wadhwa et al., "Synthetic Depth-of-Field with a Single-Camera Mobile Phone",
    ACM TOG 2018; Punnappurath et al., ICCP 2020).

    disparity_scale_px: amount = 1 - exp(-|disparity_px| / this), in pixels of the full-size view: a
        fixed scale, not the photo's own range, so that amounts are comparable between photos.
    search_share: the largest disparity searched, as a share of the picture's width.
    field_falloff: the share of a disparity that is lost at the frame's left and right edge: the
        same blur shifts the views less there, by about 0.6 on an EOS R6 Mark II with RF 50 mm, and
        0.35 on EOS 5D Mark IV photos; the default is between the two. The measured disparity is
        divided by 1 - field_falloff * |x|^1.5, x from -1 to 1 across the frame, scaled to mean 1,
        so that one depth has one value all over an uncropped photo. 0 keeps the shift as measured,
        which is right for views that were rendered without such a lens.
    map_pixels: the map has at most about this many values; larger views are reduced first.
    """

    disparity_scale_px: float = 4.0
    search_share: float = 0.01
    field_falloff: float = 0.5
    map_pixels: int = 2_000_000

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of the views: amount, disparity_px and confidence."""
        small = views.reduced(self.map_pixels)
        left, right = as_float(small.left), as_float(small.right)
        width = left.shape[1]
        reach_px = max(_SHORTEST_REACH_PX, self.search_share * width)
        found = _coarse_to_fine(left, right, reach_px)
        scale = np.float32(views.size[1] / width) * _evening(width, self.field_falloff)
        # Between a near object and a far one the filled disparity passes through zero, which would
        # draw a sharp line around everything in front; the filled magnitude does not.
        amount = -np.expm1(-found.magnitude_px * scale / np.float32(self.disparity_scale_px))
        return BlurMap(
            amount=amount, disparity_px=found.disparity_px * scale, confidence=found.confidence
        )


@dataclass(frozen=True)
class _Found:
    """disparity_px and its magnitude, each filled separately, and the confidence; (h, w) each."""

    disparity_px: Plane
    magnitude_px: Plane
    confidence: Plane


def _resized(picture: Plane, size: tuple[int, int], interpolation: int) -> Plane:
    return np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.float32)


def _coarse_to_fine(left: Plane, right: Plane, reach_px: float) -> _Found:
    """Return the disparity in pixels of these views."""
    height, width = left.shape[:2]
    if height * width <= _SEARCH_PIXELS:
        match = search(left @ _LIGHTNESS, right @ _LIGHTNESS, reach_px)
        return _filled(match, 0.5 * (left + right))
    half = ((width + 1) // 2, (height + 1) // 2)
    coarse = _coarse_to_fine(
        _resized(left, half, cv2.INTER_AREA),
        _resized(right, half, cv2.INTER_AREA),
        reach_px * half[0] / width,
    )
    prior = _resized(coarse.disparity_px, (width, height), cv2.INTER_LINEAR)
    return _refined(left, right, prior * np.float32(width / half[0]))


def _refined(left: Plane, right: Plane, prior_px: Plane) -> _Found:
    """Align the views by a first disparity and match them again around it."""
    # warp() is exact at 1/32 px.
    half = np.rint(16.0 * prior_px) / np.float32(32.0)
    left, right = warp(left, half), warp(right, -half)
    match = search(left @ _LIGHTNESS, right @ _LIGHTNESS, _REFINE_REACH_PX)
    match = Match(
        match.disparity_px + 2 * half, match.curvature, match.cost, match.inconsistency_px
    )
    return _filled(match, 0.5 * (left + right))


def _filled(match: Match, guide: Plane) -> _Found:
    """Fill uncertain disparities from their surroundings; also return the confidence."""
    # Curvature over residual is the inverse variance of a least-squares match, in px^-2: far above
    # 1 for texture, below 1 where noise was matched with noise. It is mapped to [0, 1): otherwise
    # the outline of a sharp object would outweigh everything blurred beside it.
    certainty: Plane = match.curvature / (match.cost + np.float32(_COST_FLOOR))
    confidence = certainty / (certainty + 1.0)
    confidence /= 1.0 + np.square(match.inconsistency_px)
    guide = blur(guide, 0.7)
    reach = (_FILL_REACH * max(guide.shape)) ** 2
    (first,) = fill(match.disparity_px[None], confidence, guide, reach, _FILL_EDGE)
    confidence /= 1.0 + np.square((match.disparity_px - first) / np.float32(_OUTLIER_PX))
    values = np.stack([match.disparity_px, np.abs(match.disparity_px)])
    disparity, magnitude = fill(values, confidence, guide, reach, _FILL_EDGE)
    return _Found(disparity, magnitude, confidence)


def _evening(width: int, falloff: float) -> Plane:
    """Return the factor of each column, (width,), that undoes the lens's falloff; mean 1."""
    x = (np.arange(width, dtype=np.float32) + 0.5) * (2.0 / width) - 1.0
    gain = 1.0 - falloff * np.abs(x) ** _FALLOFF_POWER
    evening: Plane = (gain.mean() / gain).astype(np.float32)
    return evening
