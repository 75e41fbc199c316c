"""Correct the depth of parts of a photo that its map has wrong, once the photo is restored.

A blur map spreads what was measured at an outline to both sides of it. Where one side is even (a
sky, a leaf, a shirt) or hardly larger than its blur, that is all it has there, and it may have
taken the depth of what is behind. The restored picture shows where the outlines are, so the photo
is divided into parts that end at its edges, and the views are matched again for all parts at once:
each edge moves with the nearer of its two sides (ldp.blur.beliefs). The map is changed only where
the views clearly contradict it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.beliefs import LARGEST_STEP, Costs, Levels, beliefs
from ldp.blur.falloff import evening
from ldp.blur.matching import edge_costs, lightness
from ldp.blur.outlines import filled_disparity
from ldp.blur.parts import Parts, divide, gradient_x
from ldp.blur.sizes import resized
from ldp.types import BlurMap, FloatArray, Picture, Plane, ReducibleViews, ViewPair

VIEW_PIXELS = 400_000
"""The views are matched again at about this size."""
_PART_SIDE_PX = 12
_LEAST_SIDE_PX = 4 * _PART_SIDE_PX
_LEVELS = 24
_COARSEST_STEP_PX = 0.5
_MARGIN = 0.15
"""Depths beyond those of the map are tried by this share of them."""
_FRAME_PX = 12
"""Edges this close to the frame's sides, and half of a disparity more, are not looked at."""
_COST_FLOOR = 0.02
"""Added to the differences of the views, whose logarithms are the costs."""
_EDGE_SIGMA_PX = 6.0
_LEAST_EDGE = 1e-5
"""Square of a gradient, white at 1, that counts as an edge by half."""
_TIE = 40.0
"""What a pixel of an even border costs where the depth steps."""
_ALWAYS_TIED = 0.2
"""Added to each border's ties in px."""
_MAP_WEIGHT = 0.2
"""What a pixel of full confidence costs where its depth is not that of the map."""
# A group of parts is changed where its depth changes by this share of all depths, and where it has
# so many pixels, and this share of them away from the frame's sides: of a strip along them nothing
# but its colour is known.
_LEAST_CHANGE = 0.25
_LEAST_AREA_PX = 500
_LEAST_INNER = 0.5
# It also needs a gain in the costs of the views: a share of all that they can say, and so much a
# pixel, with a gain in the ties a pixel, which keeps even parts and repeated patterns from chance;
# or by itself a share that leaves no doubt. To be brought nearer it needs a larger share: blur lies
# over what is behind an outline, so that the views favour the nearer depth there.
_NEARER_SHARE = 0.25
_FARTHER_SHARE = 0.1
_BEYOND_DOUBT = 0.55
_LEAST_GAIN = 0.15
_LEAST_GAIN_OF_TIES = 0.15
# What is measured at an outline is the depth of its nearer side, and the map spreads it to the
# farther one too. So where the map has a step within an even part, which has none in the picture,
# the nearer half of the part is brought farther without a gain in the views, if they lose a small
# share of what the ties gain. To bring the farther half nearer takes a larger gain of the ties: an
# even part that has only nearer things around it may be anywhere behind them.
_CLEAR_GAIN_OF_TIES = 3.0
_CLEAR_GAIN_NEARER = 4.0
_SMALL_LOSS = 0.03


@dataclass(frozen=True)
class _Matched:
    """levels_px: (k,), disparities that were tried, rising. map_level: (n,), of each part in the
    map, in steps of levels_px. costs: with the map's own say; views: without."""

    levels_px: npt.NDArray[np.float64]
    map_level: FloatArray
    costs: Costs
    views: Costs


@dataclass(frozen=True)
class _Gains:
    """of_views, of_ties: in the costs of the views and of the ties, positive where these fall.

    share: of_views as a share of all that the views can say.
    """

    of_views: float
    share: float
    of_ties: float

    def are_clear(self, nearer: bool, area_px: float) -> bool:
        """Return whether they are enough to bring so many pixels nearer, or farther."""
        # A repeated pattern fits a wrong depth as well, which then has a step on all its borders.
        if self.share >= _BEYOND_DOUBT and (self.of_ties >= 0 or not nearer):
            return True
        clear_gain = _CLEAR_GAIN_NEARER if nearer else _CLEAR_GAIN_OF_TIES
        if self.of_ties >= clear_gain * area_px:
            return self.of_views >= -_SMALL_LOSS * self.of_ties
        return (
            self.share >= (_NEARER_SHARE if nearer else _FARTHER_SHARE)
            and self.of_views >= _LEAST_GAIN * area_px
            and self.of_ties >= _LEAST_GAIN_OF_TIES * area_px
        )


def reconsidered(blur_map: BlurMap, views: ReducibleViews, sharp: Picture) -> BlurMap:
    """Return the map with `corrected_px`, where something of its disparity was found wrong.

    views: those the map was estimated from. sharp: (H, W, 3), the restored picture, in the
    orientation of the views. Maps without disparity or confidence and those of very
    small pictures come back as they are.
    """
    disparity_px, confidence = blur_map.disparity_px, blur_map.confidence
    if disparity_px is None or confidence is None:
        return blur_map
    pair = views.reduced(VIEW_PIXELS)
    height, width = pair.size
    if min(height, width) < _LEAST_SIDE_PX:
        return blur_map
    guide = resized(sharp, (height, width)).clip(0, 1)
    # Disparities as the views show them at this size.
    scale = np.float32(width / views.size[1]) / evening(width, blur_map.falloff)
    known_px = resized(filled_disparity(blur_map, sharp), (height, width)) * scale
    parts = divide(guide, _PART_SIDE_PX)
    found = _matched(
        parts,
        guide,
        pair,
        resized(disparity_px, (height, width)) * scale,
        resized(confidence, (height, width)),
        known_px=parts.means(known_px),
    )
    if found is None:
        return blur_map
    is_new, new_px = _corrections(parts, found)
    if not is_new.any():
        return blur_map
    corrected = np.where(is_new[parts.part_of], new_px[parts.part_of] / scale, np.nan)
    return replace(blur_map, corrected_px=np.asarray(corrected, np.float32))


def _matched(
    parts: Parts,
    guide: FloatArray,
    views: ViewPair,
    map_px: Plane,
    confidence: Plane,
    *,
    known_px: FloatArray,
) -> _Matched | None:
    """Return what the views and the map say of each part; None where all is at one depth.

    guide, views: (h, w, 3). map_px, confidence: (h, w). known_px: (n,).
    """
    low, high = (float(value) for value in np.percentile(map_px, [0.5, 99.5]))
    if high - low < 1e-3:
        return None
    low, high = low - _MARGIN * (high - low), high + _MARGIN * (high - low)
    step_px = min(_COARSEST_STEP_PX, (high - low) / _LEVELS)
    levels_px = np.arange(np.floor(low / step_px), np.ceil(high / step_px) + 1) * step_px
    left, right = lightness(views.left), lightness(views.right)
    volume = np.stack(list(edge_costs(left, right, levels_px)))
    of_views = _view_costs(parts, volume, _edge_weights(guide, levels_px))
    weights = parts.sums(confidence)
    own_px = parts.means(map_px, confidence + np.float32(1e-6))
    apart = np.abs(levels_px[:, None] - own_px) / (LARGEST_STEP * step_px)
    of_map = _MAP_WEIGHT * weights * np.minimum(apart, 1)
    costs = replace(of_views, inside=np.asarray(of_views.inside + of_map, np.float32))
    level = np.asarray((known_px - levels_px[0]) / step_px, np.float32)
    return _Matched(levels_px, level.clip(0, len(levels_px) - 1), costs, of_views)


def _edge_weights(guide: FloatArray, levels_px: npt.NDArray[np.float64]) -> Plane:
    """Return how much of an edge along y each pixel is among those around it, (h, w) from 0.

    Only changes along x show a disparity, and only the strongest around show theirs.
    """
    smooth = np.asarray(cv2.GaussianBlur(guide, (0, 0), 0.7), np.float32)
    edges = np.square(gradient_x(smooth)).sum(axis=2)
    weights = edges / (cv2.GaussianBlur(edges, (0, 0), _EDGE_SIGMA_PX) + np.float32(_LEAST_EDGE))
    frame_px = _frame_px(levels_px)
    weights[:, :frame_px] = weights[:, -frame_px:] = 0
    return np.asarray(weights, np.float32)


def _frame_px(levels_px: npt.NDArray[np.float64]) -> int:
    """Return how far from the frame's sides edges are not looked at."""
    return int(np.abs(levels_px).max() / 2) + _FRAME_PX


def _view_costs(parts: Parts, volume: FloatArray, weights: Plane) -> Costs:
    """Sum the costs of the views, (k, h, w), over the parts and borders.

    They are logarithms, as if each pixel's least cost were the variance of its errors.
    """
    at_border = parts.border_of >= 0
    of_border = parts.border_of[at_border]
    least = volume.min(axis=0) + np.float32(_COST_FLOOR)
    inside, border = [], []
    for level in volume:
        cost = weights * np.log((level + np.float32(_COST_FLOOR)) / least)
        inside.append(parts.sums(np.where(at_border, 0, cost)))
        border.append(np.bincount(of_border, cost[at_border], len(parts.pairs)))
    ties = np.float32(_TIE) * (parts.ties + np.float32(_ALWAYS_TIED))
    return Costs(np.stack(inside), np.asarray(np.stack(border), np.float32), parts.pairs, ties)


def _corrections(parts: Parts, found: _Matched) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which parts are to be changed, (n,), and the disparities of all parts, (n,)."""
    believed = beliefs(found.costs)
    new_level = _refined(believed)
    new, old = believed.argmin(axis=0), np.rint(found.map_level).astype(np.intp)
    low, high = np.percentile(new_level[parts.part_of], [1, 99])
    change = new_level - found.map_level
    is_new = np.zeros(len(new), bool)
    frame_px = _frame_px(found.levels_px)
    inner = np.zeros(parts.part_of.shape, np.float32)
    inner[frame_px:-frame_px, frame_px:-frame_px] = 1
    inner_px = parts.sums(inner)
    for sign in (1, -1):
        for group in parts.groups(sign * change > max(_LEAST_CHANGE * (high - low), 1)):
            area_px = float(parts.area_px[group].sum())
            if area_px < _LEAST_AREA_PX or inner_px[group].sum() < _LEAST_INNER * area_px:
                continue
            if _gains(found.views, group, old, new).are_clear(sign > 0, area_px):
                is_new[group] = True
    step_px = found.levels_px[1] - found.levels_px[0]
    return is_new, np.asarray(found.levels_px[0] + step_px * new_level, np.float32)


def _refined(believed: FloatArray) -> FloatArray:
    """Return the level of least cost of each part, between levels by a parabola."""
    least = believed.argmin(axis=0)
    middle, parts = np.clip(least, 1, len(believed) - 2), np.arange(len(least))
    before, at, behind = (believed[middle + step, parts] for step in (-1, 0, 1))
    curvature = before + behind - 2 * at
    offset = np.divide(
        before - behind, 2 * curvature, out=np.zeros_like(at), where=curvature > 1e-6
    ).clip(-0.5, 0.5)
    return np.asarray(least + np.where(middle == least, offset, 0), np.float32)


def _gains(views: Costs, group: Levels, old: Levels, new: Levels) -> _Gains:
    """Return what a group of parts gains by its new levels; old, new: (n,) of all parts."""
    mixed = new.copy()
    mixed[group] = old[group]
    borders = np.flatnonzero(np.isin(views.pairs, group).any(axis=1))
    largest = float(views.inside[:, group].max(axis=0).sum())
    largest += float(views.border[:, borders].max(axis=0).sum())
    of_views = views.of_views(mixed, group, borders) - views.of_views(new, group, borders)
    return _Gains(
        of_views,
        of_views / max(largest, 1e-6),
        views.of_ties(mixed, borders) - views.of_ties(new, borders),
    )
