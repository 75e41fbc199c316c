"""Disparity from coarse to fine: where a finer scale measures nothing, the coarser one counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ldp.blur.falloff import agreement, gain_across
from ldp.blur.filling import fill, short_fill, with_steps, without_dips
from ldp.blur.matching import Match, blur, lightness, search, warp
from ldp.types import Plane, ViewPair

if TYPE_CHECKING:
    from ldp.blur.radius import RadiusEstimator

_SEARCH_PIXELS = 500_000
# The blur's shape is looked at in the largest picture of a pyramid with at most so many pixels.
_SHAPE_PIXELS = 600_000
_REFINE_REACH_PX = 1.0
# How far values are spread into areas without texture, as a share of the longer side.
_FILL_REACH = 0.05
_FILL_EDGE = 0.05
_FILL_STEP_PX = 0.1
_LEAST_CONFIDENCE = 0.02
_WIDEST_DIP_PX = 25
_DIP_PX = 0.6
# A measurement this far from its filled surroundings has half the weight.
_OUTLIER_PX = 0.3
# Two sure measurements that lie this far apart are a third as certain as either.
_CONTRADICTION_PX = 0.5
# The shape of the blur counts where the contrast of these scales (deviations of two Gaussians) is
# more than the first times what the noise alone would have, and in full from the second on.
_BAND_PX = (1.5, 6.0)
_TEXTURED = (1.5, 3.0)
# So it does where the matches around are on average more certain than the first, in full from the
# second on; in noise alone they have 0.08.
_MATCHED = (0.12, 0.3)
# Deviation of white noise after a Gaussian of the first, and a bound for pictures without noise.
_NOISE_LEFT = 0.19
_LEAST_NOISE = 0.002
# Of the square that is averaged: smaller ones differ by chance.
_LEAST_SIDE_PX = 31
# Added to the matching cost, which bounds the weight of a perfect match.
_COST_FLOOR = 0.02


@dataclass(frozen=True)
class Found:
    """The disparity of two views, in their pixels; planes of (h, w).

    disparity_px and magnitude_px are filled separately.
    confidence: in [0, 1], of the scale which measured the disparity best, or of the blur's shape.
    falloff: the measured one, 0 where none was measured.
    """

    disparity_px: Plane
    magnitude_px: Plane
    confidence: Plane
    falloff: float


@dataclass(frozen=True)
class Support:
    """A disparity that is known apart from a match, and how well; (h, w) each."""

    disparity_px: Plane
    confidence: Plane
    falloff: float = 0.0


def coarse_to_fine(
    left: Plane,
    right: Plane,
    reach_px: float,
    radius: RadiusEstimator | None = None,
    search_pixels: int = _SEARCH_PIXELS,
) -> Found:
    """Return the disparity of two views, (h, w, 3) float32, searched within +-reach_px.

    radius: tells what the shape of the blur says where the views cannot be matched.
    search_pixels: the whole range of disparities is searched at no more pixels than this; finer
        scales search only around the disparity of the coarser one.
    """
    height, width = left.shape[:2]
    shows_shape = radius is not None and height * width <= _SHAPE_PIXELS
    coarse: Support | None = None
    if height * width <= search_pixels:
        match = search(lightness(left), lightness(right), reach_px)
    else:
        half = ((width + 1) // 2, (height + 1) // 2)
        coarse = _enlarged(
            coarse_to_fine(
                _resized(left, half, cv2.INTER_AREA),
                _resized(right, half, cv2.INTER_AREA),
                reach_px * half[0] / width,
                None if shows_shape else radius,
                search_pixels,
            ),
            (width, height),
        )
        match = _refined(left, right, coarse.disparity_px)
    support = coarse
    if radius is not None and shows_shape:
        support = _with_shape(left, right, match, coarse, radius)
    return _settled(match, 0.5 * (left + right), support)


def _enlarged(coarse: Found, size: tuple[int, int]) -> Support:
    factor = np.float32(size[0] / coarse.disparity_px.shape[1])
    disparity_px, confidence = (
        _resized(plane, size) for plane in (coarse.disparity_px, coarse.confidence)
    )
    return Support(disparity_px * factor, confidence, coarse.falloff)


def _resized(plane: Plane, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> Plane:
    return np.asarray(cv2.resize(plane, size, interpolation=interpolation), np.float32)


def _with_shape(
    left: Plane, right: Plane, match: Match, coarse: Support | None, radius: RadiusEstimator
) -> Support | None:
    """Add the disparity that follows from the blur's radius to a support, where it is known."""
    found = radius.estimate(ViewPair(left, right))
    size = (left.shape[1], left.shape[0])
    radius_px, radius_confidence = (
        _resized(plane, size) for plane in (found.radius_px, found.confidence)
    )
    own = _confidence(match)
    disparity_px, confidence = joined(match.disparity_px, own, coarse)
    agreed = agreement(disparity_px, confidence, radius_px, radius_confidence)
    if agreed is None:
        return coarse
    gain = np.float32(agreed.ratio) * gain_across(size[0], agreed.falloff)
    # Noise has no shape, whatever the network sees in it: even areas are filled from around them.
    textured = _textured(lightness(left), lightness(right), own)
    shape = Support(gain * radius_px, np.float32(agreed.trust) * radius_confidence * textured)
    if coarse is None:
        return replace(shape, falloff=agreed.falloff)
    disparity_px, confidence = joined(coarse.disparity_px, coarse.confidence, shape)
    return Support(disparity_px, confidence, agreed.falloff)


def _textured(left: Plane, right: Plane, certain: Plane) -> Plane:
    """Return where two views, (h, w), show more than noise: 0 to 1, smooth.

    certain: the confidence of their match.
    """
    difference = left - right
    noise = np.median(np.abs(difference - blur(difference, 1.0))) / np.float32(0.6745 * 2)
    light = 0.5 * (left + right)
    fine, coarse = (blur(light, sigma_px) for sigma_px in _BAND_PX)
    side = max(_LEAST_SIDE_PX, round(_FILL_REACH * max(light.shape)))
    # A running sum over black may end a little below 0.
    contrast = np.sqrt(np.maximum(cv2.blur(np.square(fine - coarse), (side, side)), 0.0))
    ratio = contrast / np.float32(_NOISE_LEFT * max(float(noise), _LEAST_NOISE))
    matched = np.asarray(cv2.blur(certain, (side, side)), np.float32)
    return np.maximum(_rising(ratio, *_TEXTURED), _rising(matched, *_MATCHED))


def _rising(values: Plane, none: float, full: float) -> Plane:
    """Return 0 up to `none`, 1 from `full` on, and a straight line between."""
    return np.asarray(np.clip((values - none) / np.float32(full - none), 0.0, 1.0), np.float32)


def _refined(left: Plane, right: Plane, prior_px: Plane) -> Match:
    """Align the views by a first disparity and match them again around it."""
    # warp() is exact at 1/32 px.
    half = np.rint(16.0 * prior_px) / np.float32(32.0)
    left, right = warp(left, half), warp(right, -half)
    match = search(lightness(left), lightness(right), _REFINE_REACH_PX)
    return replace(match, disparity_px=match.disparity_px + 2 * half)


def _confidence(match: Match) -> Plane:
    # Curvature over residual is the inverse variance of a least-squares match, in px^-2: far above
    # 1 for texture, below 1 where noise was matched with noise. It is mapped to [0, 1): otherwise
    # the outline of a sharp object would outweigh everything blurred beside it.
    certainty: Plane = match.curvature / (match.cost + np.float32(_COST_FLOOR))
    return np.asarray(
        certainty / (certainty + 1.0) / (1.0 + np.square(match.inconsistency_px)), np.float32
    )


def _settled(match: Match, guide: Plane, support: Support | None) -> Found:
    """Join a match with its support, and fill what is uncertain in both from around it."""
    guide = blur(guide, 0.7)
    reach = (_FILL_REACH * max(guide.shape)) ** 2
    own = _confidence(match)
    disparity, confidence = joined(match.disparity_px, own, support)
    (first,) = fill(disparity[None], confidence, guide, reach, _FILL_EDGE)
    own /= 1.0 + np.square((match.disparity_px - first) / np.float32(_OUTLIER_PX))
    disparity, confidence = joined(match.disparity_px, own, support)
    # Between a near and a far object the disparity passes through zero, but nothing is in focus.
    steps = short_fill(
        disparity, confidence, guide, first, reach=reach, edge=_FILL_EDGE, least=_LEAST_CONFIDENCE
    )
    magnitude = _filled(
        np.abs(disparity), confidence, guide, without_dips(np.abs(steps), _WIDEST_DIP_PX, _DIP_PX)
    )
    disparity = _filled(disparity, confidence, guide, steps)
    return Found(disparity, magnitude, confidence, 0.0 if support is None else support.falloff)


def _filled(values: Plane, weights: Plane, guide: Plane, steps: Plane) -> Plane:
    """Fill a plane, but not across the guide's edges and the steps of `steps`."""
    reach = (_FILL_REACH * max(guide.shape)) ** 2
    ends = with_steps(guide, steps, _FILL_EDGE, _FILL_STEP_PX)
    filled: Plane = fill(values[None], weights, ends, reach, _FILL_EDGE)[0]
    return filled


def joined(disparity_px: Plane, own: Plane, support: Support | None) -> tuple[Plane, Plane]:
    """Return the mean of a match and its support by their confidences, and its confidence: the
    greater of the two, less where they contradict each other."""
    if support is None:
        return disparity_px, own
    other = support.confidence
    total = own + other
    share = np.divide(other, total, out=np.zeros_like(total), where=total > 1e-12)
    apart_px = support.disparity_px - disparity_px
    contradiction = np.minimum(own, other) * np.square(apart_px / np.float32(_CONTRADICTION_PX))
    return disparity_px + share * apart_px, np.maximum(own, other) / (1.0 + 2.0 * contradiction)
