"""A change that the outline network makes is believed where the map and the views allow it."""

from __future__ import annotations

import numpy as np
import pytest

from ldp.blur.outline_changes import believed
from ldp.blur.outline_net import COARSE_PLANES, FINE_PLANES, LEVELS
from ldp.blur.outline_planes import COST_PLANES, OutlinePlanes
from ldp.types import FloatArray

SIZE = (160, 240)
EDGE = 120
Y, X = np.mgrid[: SIZE[0], : SIZE[1]]
FAR, NEAR = np.float32(0.125), np.float32(0.875)
OWN = np.where(X < EDGE, FAR, NEAR)
RIM = (X >= EDGE - 9) & (X < EDGE)
SPOT = (np.abs(X - 60) < 8) & (np.abs(Y - 80) < 8)


def _planes(best: FloatArray, gain: float = 3.0) -> OutlinePlanes:
    """What favours the depth `best`."""
    coarse = np.zeros((COARSE_PLANES, SIZE[0] // 2, SIZE[1] // 2), np.float32)
    places = np.linspace(0, 1, LEVELS, dtype=np.float32)[:, None, None]
    coarse[COST_PLANES] = gain * np.abs(places - best[::2, ::2])
    fine = np.zeros((FINE_PLANES, *SIZE), np.float32)
    scale = np.ones(SIZE[1], np.float32)
    return OutlinePlanes(fine, coarse, OWN, -4, 4, scale, np.zeros(SIZE, np.float32))


def _with(where: np.ndarray, depth: np.float32 = NEAR) -> FloatArray:
    return np.where(where, depth, OWN)


def test_a_rim_that_the_views_favour_is_believed() -> None:
    found, share = believed(_planes(_with(RIM)), _with(RIM))
    np.testing.assert_allclose(found[:, EDGE - 7 : EDGE], NEAR, atol=0.02)
    np.testing.assert_array_equal(found[:, : EDGE - 12], FAR)
    np.testing.assert_array_equal(found[:, EDGE:], NEAR)
    np.testing.assert_array_equal(share > 0, found != OWN)


@pytest.mark.parametrize("gain", [0.0, -3.0])
def test_a_rim_that_the_views_do_not_favour_is_not(gain: float) -> None:
    found, share = believed(_planes(_with(RIM), gain), _with(RIM))
    np.testing.assert_array_equal(found, OWN)
    assert not share.any()


def test_a_spot_away_from_the_map_s_steps_is_not() -> None:
    found, _ = believed(_planes(_with(SPOT)), _with(SPOT))
    np.testing.assert_array_equal(found, OWN)


def test_what_reaches_far_from_a_step_is_not() -> None:
    arm = (np.abs(Y - 80) < 6) & (X >= EDGE - 60) & (X < EDGE)
    found, _ = believed(_planes(_with(arm)), _with(arm))
    np.testing.assert_array_equal(found, OWN)


def test_a_small_change_is_left_out() -> None:
    slight = _with(RIM, FAR + np.float32(0.09))
    found, _ = believed(_planes(slight, 10.0), slight)
    np.testing.assert_array_equal(found, OWN)


def test_no_depth_is_believed_that_the_map_has_not_nearby() -> None:
    beyond = _with(RIM, np.float32(1.3))
    found, _ = believed(_planes(beyond, 3.0), beyond)
    assert found.max() <= NEAR
    assert (found[:, EDGE - 5 : EDGE] > 0.8).all()
