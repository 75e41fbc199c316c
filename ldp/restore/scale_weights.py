"""Which scale suits which blur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ldp.types import Plane

FACTORS = (1, 2, 4, 8)
"""By how much the views are scaled down, both sides, for one correction each."""
LARGEST_RADIUS_PX = 12.0
"""The radius, in pixels of the scaled views, up to which a scale suits. `tiny` gains most at 8 to
11 px. For a network that was trained on smaller radii alone it is the largest of them."""
BLENDED_OCTAVES = (-0.18, 0.32)
"""Radii, in octaves above it, between which a region gets a share of both scales. Their middle is
above it: with 13 px of one scale `tiny` and `small` do as well as with half of that at the next."""
IN_FOCUS_RADIUS_PX = (0.6, 1.2)
"""Up to the first radius nothing is corrected, from the second on everything is. Of what is in
focus 99 % are found to have 0.53 px or less."""
NEAR_REACH = 1.4
"""How far the correction of a near object reaches beyond it, in radii: its blur reaches 1, and the
radius is found too small rather than too large."""
FAR_REACH = 0.5
"""The same for what is far, over what is not in focus."""
_SPREAD_PIXELS = 400_000
_SPREAD_LEVELS_PER_OCTAVE = 3
_SMOOTHED_SIGMA = 1.5
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class ScaleWeights:
    """How much of the correction of each scale a region gets.

    factors: by how much the views are scaled down, rising.
    planes: one (h, w) float32 in [0, 1] for each factor; it covers the whole view, which may have
        more pixels.
    """

    factors: tuple[int, ...]
    planes: tuple[Plane, ...]


def single_scale(factor: int) -> ScaleWeights:
    """Return the weights that give every region the whole correction of one scale."""
    return ScaleWeights((factor,), (np.ones((1, 1), np.float32),))


def weights_for(
    radius_px: Plane,
    size: tuple[int, int],
    factors: Sequence[int] = FACTORS,
    largest_radius_px: float = LARGEST_RADIUS_PX,
) -> ScaleWeights:
    """Choose the scales that suit a map of the blur's radius.

    radius_px: (h, w) signed radius in pixels of the full-size view, near of focus positive.
    size: (H, W) of the full-size view.
    largest_radius_px: see LARGEST_RADIUS_PX.

    The blurred outline of a near object reaches as far as its radius beyond the object, over
    whatever is behind it, and so does the weight of the object's scale. Beside a sharper depth the
    radius of what is far is found too small, so its weight reaches on as well, though not over what
    is in focus.
    """
    own_px = np.abs(radius_px)
    own = _suited(own_px, factors, largest_radius_px)
    near = _suited(reach_px(radius_px, size, NEAR_REACH), factors, largest_radius_px)
    far_px = reach_px(-radius_px, size, FAR_REACH) * _out_of_focus(own_px)
    far = _suited(far_px, factors, largest_radius_px)
    planes = []
    for number, shares in enumerate(zip(own, near, far, strict=True)):
        # A far object's reach calls for coarser scales only, a near one's for its own.
        largest = np.max(shares if number else shares[:2], axis=0)
        smooth = cv2.GaussianBlur(largest, (0, 0), _SMOOTHED_SIGMA)
        # A trace of weight would have a whole tile computed.
        planes.append(np.asarray(np.where(smooth < _LEAST_WEIGHT, 0, smooth), np.float32))
    return ScaleWeights(tuple(factors), tuple(planes))


def reach_px(radius_px: Plane, size: tuple[int, int], reach: float) -> Plane:
    """Return at each place the largest positive radius of those whose objects reach it, (h, w).

    It is 0 where none does. reach: how far an object reaches beyond its outline, in radii. Other
    arguments are those of weights_for.
    """
    height, width = radius_px.shape
    shrink = min(1.0, (_SPREAD_PIXELS / radius_px.size) ** 0.5)
    small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    blurred = cv2.resize(np.maximum(radius_px, 0), small, interpolation=cv2.INTER_AREA)
    cell_px = size[1] / small[0]
    reached = np.zeros_like(blurred)
    largest_px = float(blurred.max())
    lowest_px = 2 * cell_px / reach
    while lowest_px <= largest_px:
        highest_px = lowest_px * 2 ** (1 / _SPREAD_LEVELS_PER_OCTAVE)
        level = np.where((blurred >= lowest_px) & (blurred < highest_px), blurred, np.float32(0))
        cells = round(reach * lowest_px / cell_px)
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * cells + 1, 2 * cells + 1))
        reached = np.maximum(reached, cv2.dilate(level, disk))
        lowest_px = highest_px
    return np.asarray(cv2.resize(reached, (width, height)), np.float32)


def _suited(radius_px: Plane, factors: Sequence[int], largest_radius_px: float) -> list[Plane]:
    """One plane for each factor: its share of a region by the region's radius. The first factor
    takes all smaller radii, the last one all larger ones."""
    octaves = np.log2(np.maximum(radius_px, np.float32(1e-3)) / np.float32(largest_radius_px))
    first, last = BLENDED_OCTAVES
    passed = [
        np.clip((octaves - np.float32(np.log2(factor)) - np.float32(first)) / (last - first), 0, 1)
        for factor in factors[:-1]
    ]
    wanted = _out_of_focus(radius_px)
    from_below = [np.ones_like(octaves), *passed]
    above = [*passed, np.zeros_like(octaves)]
    pairs = zip(from_below, above, strict=True)
    return [np.asarray(wanted * (here - beyond), np.float32) for here, beyond in pairs]


def _out_of_focus(radius_px: Plane) -> Plane:
    sharp_px, blurred_px = IN_FOCUS_RADIUS_PX
    return np.asarray(np.clip((radius_px - sharp_px) / (blurred_px - sharp_px), 0, 1), np.float32)
