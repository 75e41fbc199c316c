"""Laws of the falloff that a photo shows: the ratio of disparity to radius over its columns."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ldp.blur.falloff import agreement, evening, gain_across
from ldp.types import Plane

SIZE = (96, 144)
SURE = np.ones(SIZE, np.float32)


def random_radii(seed: int = 0, largest_px: float = 6.0) -> Plane:
    """Smooth radii of both signs."""
    coarse = np.random.default_rng(seed).uniform(-largest_px, largest_px, (6, 9))
    return np.asarray(cv2.resize(coarse.astype(np.float32), SIZE[::-1]), np.float32)


def measured(radius_px: Plane, ratio: float, falloff: float, error_px: float = 0.1) -> Plane:
    noise = np.random.default_rng(1).normal(0, error_px, SIZE)
    disparity_px = ratio * radius_px * gain_across(SIZE[1], falloff) + noise
    return np.asarray(disparity_px, np.float32)


@pytest.mark.parametrize("falloff", [0.35, 0.6])
@pytest.mark.parametrize("ratio", [0.15, 0.6])
def test_falloff_and_ratio_are_recovered(falloff: float, ratio: float) -> None:
    radius_px = random_radii()
    found = agreement(measured(radius_px, ratio, falloff), SURE, radius_px, SURE)
    assert found is not None
    assert found.falloff == pytest.approx(falloff, abs=0.101)
    assert found.ratio == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_a_lens_without_falloff_gets_none(seed: int) -> None:
    radius_px = random_radii(seed)
    found = agreement(measured(radius_px, 0.4, 0.0, 0.3), SURE, radius_px, SURE)
    assert found is not None
    assert found.falloff == 0


def test_blur_that_is_biased_by_its_strength_is_not_taken_for_falloff() -> None:
    # Blur grows towards the edges, and the radius of strong blur is found too large.
    x = np.abs(np.linspace(-1, 1, SIZE[1], dtype=np.float32))
    radius_px = np.exp2(1.0 + x + 0.25 * random_radii()).astype(np.float32)
    disparity_px = measured(np.minimum(radius_px, 3 + 0.3 * (radius_px - 3)), 0.4, 0.0)
    found = agreement(disparity_px, SURE, radius_px, SURE)
    assert found is not None
    assert found.falloff < 0.1


def test_a_radius_that_has_nothing_to_do_with_the_disparity_is_not_trusted() -> None:
    found = agreement(measured(random_radii(5), 0.4, 0.0), SURE, random_radii(6), SURE)
    assert found is not None
    assert found.trust < 0.1


def test_where_nothing_is_blurred_nothing_can_be_told() -> None:
    radius_px = random_radii(largest_px=0.5)
    assert agreement(measured(radius_px, 0.4, 0.5), SURE, radius_px, SURE) is None
    radius_px = random_radii()
    assert agreement(measured(radius_px, 0.4, 0.5), 0 * SURE, radius_px, SURE) is None


def test_evening_undoes_the_gain_and_is_the_same_from_both_sides() -> None:
    product = evening(37, 0.6) * gain_across(37, 0.6)
    np.testing.assert_allclose(product, product[0], rtol=1e-6)
    np.testing.assert_allclose(evening(37, 0.6), evening(37, 0.6)[::-1], rtol=1e-6)
    np.testing.assert_array_equal(evening(37, 0.0), 1.0)
