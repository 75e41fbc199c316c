"""Which of the outline network's changes to a map are believed.

It is trained on rendered scenes. In real photos, where smooth surfaces and noise leave the views
with little to say, it may change depths here and there for no good reason, so a change has to be
large, to a depth that the map has nearby, favoured by the views, and at a step of the map.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.outline_net import LEVELS
from ldp.blur.outline_planes import COST_PLANES, OutlinePlanes, half
from ldp.types import Plane

_LEAST_CHANGE = 0.1
"""Changes up to this share of all depths are left out; those of twice as much count whole."""
_NEARBY_PX = 64
_LEAST_GAIN = 0.3
"""Of the logarithm of the views' costs, from which on a change counts whole; without gain not."""
_GAIN_SIGMA_PX = 4.0
"""Of the surroundings that the gain is a mean of, at half of the size."""
_STEP = 0.15
"""Share of all depths by which the map has to change within _STEP_SIDE_PX for a step."""
_STEP_SIDE_PX = 11
_AT_STEP_PX = 10
_SHARE_AT_STEP = 0.7
"""Of a group of changed pixels, that has to lie so near to a step."""
_IN_GROUP = 0.1
"""Pixels that count so much or more belong to a group."""


def believed(planes: OutlinePlanes, found: Plane) -> tuple[Plane, Plane]:
    """Return the depth where the map's changes are believed, and how far they are, (h, w) each.

    planes: with the map's own depth. found: (h, w), the network's, on the same scale.
    """
    own = planes.own
    nearby = _ellipse(_NEARBY_PX)
    found = np.clip(found, cv2.erode(own, nearby), cv2.dilate(own, nearby))
    change = found - own
    share = (np.abs(change) / np.float32(_LEAST_CHANGE) - 1).clip(0, 1)
    gain = _costs_at(planes, own) - _costs_at(planes, found)
    around = cv2.GaussianBlur(gain, (0, 0), _GAIN_SIGMA_PX)
    large = cv2.resize(around, own.shape[::-1], interpolation=cv2.INTER_LINEAR)
    share *= (large / np.float32(_LEAST_GAIN)).clip(0, 1)
    share *= _at_steps(own, share, change)
    return np.asarray(own + share * change, np.float32), np.asarray(share, np.float32)


def _costs_at(planes: OutlinePlanes, depth: Plane) -> Plane:
    """Return how much the views differ at a depth of (h, w), (h / 2, w / 2)."""
    costs = planes.coarse[COST_PLANES]
    place = half(depth).clip(0, 1) * np.float32(LEVELS - 1)
    below = np.minimum(place.astype(np.intp), LEVELS - 2)
    before, after = (np.take_along_axis(costs, (below + step)[None], axis=0)[0] for step in (0, 1))
    part = place - below
    return np.asarray((1 - part) * before + part * after, np.float32)


def _at_steps(own: Plane, share: Plane, change: Plane) -> npt.NDArray[np.bool_]:
    """Return which pixels belong to a group of changes to one side that lies at a step."""
    box = np.ones((_STEP_SIDE_PX, _STEP_SIDE_PX), np.uint8)
    is_step = cv2.dilate(own, box) - cv2.erode(own, box) > _STEP
    near_step = cv2.dilate(is_step.astype(np.uint8), _ellipse(_AT_STEP_PX)) > 0
    is_kept = np.zeros(own.shape, bool)
    for sign in (1, -1):
        changed = (share > _IN_GROUP) & (sign * change > 0)
        count, group_of = cv2.connectedComponents(changed.astype(np.uint8), connectivity=4)
        touching, close, sizes = (
            np.bincount(group_of[where], minlength=count)
            for where in (is_step, near_step, np.ones_like(is_step))
        )
        at_step = (touching > 0) & (close >= _SHARE_AT_STEP * sizes)
        at_step[0] = False
        is_kept |= at_step[group_of]
    return is_kept


def _ellipse(radius_px: int) -> npt.NDArray[np.uint8]:
    side = (2 * radius_px + 1, 2 * radius_px + 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, side), np.uint8)
