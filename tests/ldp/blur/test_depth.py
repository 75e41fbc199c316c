"""The map for editors: what matching says, joined with what the blur's shape says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from ldp.blur.depth import depth_map, with_shape
from ldp.blur.disparity import DisparityEstimator
from ldp.types import BlurMap, Plane, ViewPair

ESTIMATOR = DisparityEstimator()
SIZE = (240, 480)
"""(H, W) of the views; the map has half of that, the radius a quarter."""
RATIO = 0.2


@dataclass(frozen=True)
class Unseen:
    """Views of which nothing but the size may be asked for."""

    size: tuple[int, int] = SIZE

    def reduced(self, pixels: int) -> ViewPair:
        raise AssertionError("the views were looked at")


def plane(row: npt.NDArray[np.floating], height: int) -> Plane:
    return np.repeat(np.asarray(row, np.float32)[None], height, axis=0)


def smeared_step(radius_px: float, confidence: float = 0.5) -> BlurMap:
    """What is far by `radius_px` on the left, near on the right: a ramp in the match, a step in
    the radius."""
    x = np.linspace(-1, 1, 240, dtype=np.float32)
    disparity_px = plane(RATIO * radius_px * np.clip(3 * x, -1, 1), 120)
    radius = plane(radius_px * np.where(np.arange(120) < 60, -1, 1), 60)
    return BlurMap(
        amount=-np.expm1(-np.abs(disparity_px) / np.float32(4)),
        disparity_px=disparity_px,
        confidence=np.full((120, 240), confidence, np.float32),
        radius_px=radius,
        radius_confidence=np.full((60, 120), 0.9, np.float32),
    )


def error_px(disparity_px: Plane | None, radius_px: float) -> float:
    assert disparity_px is not None
    truth = plane(RATIO * radius_px * np.where(np.arange(240) < 120, -1, 1), 120)
    return float(np.abs(disparity_px - truth).mean())


@pytest.mark.parametrize("radius_px", [8.0, 40.0])
def test_a_smeared_step_becomes_a_step(radius_px: float) -> None:
    given = smeared_step(radius_px)
    found = with_shape(given, Unseen(), ESTIMATOR)
    assert error_px(found.disparity_px, radius_px) < 0.5 * error_px(given.disparity_px, radius_px)
    assert found.disparity_px is not None
    inside = found.disparity_px[:, 20:220]
    assert (inside[:, :95] < 0).all()
    assert (inside[:, 105:] > 0).all()
    assert found.confidence is given.confidence
    np.testing.assert_allclose(
        found.disparity_px[:, :60], -RATIO * radius_px, rtol=0.02
    )  # there both agree


def test_the_amount_follows_the_joined_magnitude() -> None:
    found = with_shape(smeared_step(20.0), Unseen(), ESTIMATOR)
    assert found.magnitude_px is not None
    np.testing.assert_allclose(found.amount, 1 - np.exp(-found.magnitude_px / 4), atol=1e-6)
    # The match passes through zero, the blur of what is beside it does not.
    assert found.magnitude_px.min() > 0.3 * found.magnitude_px.max()


def test_a_match_counts_less_the_stronger_the_blur() -> None:
    errors = []
    for radius_px in (2.0, 30.0):
        found = with_shape(smeared_step(radius_px), Unseen(), ESTIMATOR)
        errors.append(error_px(found.disparity_px, radius_px) / radius_px)
    assert errors[1] < 0.6 * errors[0]


def test_what_does_not_agree_anywhere_changes_nothing() -> None:
    given = smeared_step(20.0)
    assert given.radius_px is not None
    assert given.disparity_px is not None
    rng = np.random.default_rng(3)
    signs = rng.choice([-1, 1], given.radius_px.shape).astype(np.float32)
    contrary = replace(given, radius_px=given.radius_px * signs)
    found = with_shape(contrary, Unseen(), ESTIMATOR)
    assert found.disparity_px is not None
    np.testing.assert_allclose(found.disparity_px, given.disparity_px, atol=1e-4)


def test_maps_without_what_it_takes_come_back_as_they_are() -> None:
    given = smeared_step(20.0)
    for lacking in (
        replace(given, disparity_px=None),
        replace(given, confidence=None),
        replace(given, radius_px=None),  # this estimator finds none
        replace(given, radius_confidence=None),  # the map follows from the radius
    ):
        assert with_shape(lacking, Unseen(), ESTIMATOR) is lacking


class _OfOthers:
    def estimate(self, views: object) -> BlurMap:
        raise AssertionError("not called")


def test_maps_of_other_estimators_come_back_as_they_are() -> None:
    given = smeared_step(20.0)
    assert depth_map(given, Unseen(), _OfOthers(), None) is given
    joined = depth_map(given, Unseen(), ESTIMATOR, None)
    np.testing.assert_array_equal(joined.amount, with_shape(given, Unseen(), ESTIMATOR).amount)
