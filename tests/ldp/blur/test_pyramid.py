"""Laws of matching from coarse to fine, and of what the blur's shape adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import pytest

from ldp.blur.disparity import DisparityEstimator
from ldp.blur.estimator import BlurEstimator
from ldp.blur.falloff import gain_across
from ldp.blur.loading import load_estimator
from ldp.blur.pyramid import Found, coarse_to_fine
from ldp.blur.radius import RadiusEstimator, RadiusMap
from ldp.types import FloatArray, Plane, ReducibleViews, ViewPair
from training.evaluation.native_scenes import NativeScene, make_pair

HEIGHT, WIDTH = 160, 240
INNER = (slice(16, -16), slice(24, -24))


def texture(shift_px: float, shortest_px: float, seed: int = 0) -> Plane:
    """A sum of random waves of shortest_px to three times that, moved to the right."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    total = np.zeros((HEIGHT, WIDTH))
    for _ in range(40):
        frequency = 2 * np.pi / (shortest_px * 3 ** rng.random())
        angle, phase = rng.random(2) * 2 * np.pi
        total += np.cos(frequency * (np.cos(angle) * (x - shift_px) + np.sin(angle) * y) + phase)
    return np.asarray(total / 40**0.5, np.float32)


def pictures(views: Sequence[Plane], noise: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """Grey pictures of the left and the right view, each with noise of its own."""
    rng = np.random.default_rng(1)
    left, right = (
        np.repeat(view[..., None], 3, 2)
        + np.float32(noise) * rng.standard_normal((HEIGHT, WIDTH, 3), np.float32)
        for view in views
    )
    return left, right


def moved(shift_px: float, shortest_px: float, contrast: float) -> list[Plane]:
    """Both views of a texture of disparity `shift_px`."""
    halves = (shift_px / 2, -shift_px / 2)
    return [np.float32(0.5) + np.float32(contrast) * texture(x, shortest_px) for x in halves]


def in_two_steps(views: tuple[FloatArray, FloatArray]) -> Found:
    """Searched at half the size, then refined."""
    return coarse_to_fine(*views, reach_px=4.0, search_pixels=HEIGHT * WIDTH // 3)


def test_a_coarse_measurement_survives_where_the_fine_scale_sees_only_noise() -> None:
    found = in_two_steps(pictures(moved(1.5, 30.0, 0.05), noise=0.05))
    assert np.mean(found.confidence > 0.1) > 0.9
    assert abs(np.median(found.disparity_px[INNER]) - 1.5) < 0.15
    assert np.mean(np.abs(found.disparity_px[INNER] - 1.5) < 0.4) > 0.9


def test_where_scales_agree_the_confidence_is_that_of_the_surer_one() -> None:
    size = (WIDTH // 2, HEIGHT // 2)
    views = pictures(moved(1.0, 20.0, 0.05), noise=0.02)
    left, right = (
        np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.float32)
        for view in views
    )
    coarse = coarse_to_fine(left, right, reach_px=2.0)
    fine = in_two_steps(views)
    enlarged = cv2.resize(coarse.confidence, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    agree = np.abs(fine.disparity_px - 1.0) < 0.1
    assert agree.mean() > 0.5
    assert np.mean(fine.confidence[agree] > 0.8 * enlarged[agree]) > 0.9


def test_fine_texture_that_the_coarse_scale_does_not_see_is_measured() -> None:
    halves = (0.6, -0.6)
    views = [np.float32(0.5) + np.float32(0.1) * texture(shift, 2.6) for shift in halves]
    found = in_two_steps(pictures(views))
    assert abs(np.median(found.disparity_px[INNER]) - 1.2) < 0.15


def test_both_views_swapped_give_the_opposite_sign_through_all_scales() -> None:
    left, right = pictures(moved(2.0, 8.0, 0.1), noise=0.01)
    there, back = in_two_steps((left, right)), in_two_steps((right, left))
    assert np.median(there.disparity_px) == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(back.disparity_px, -there.disparity_px, atol=0.01)


@dataclass(frozen=True)
class KnownRadius:
    """Says the same radii of every photo."""

    radius_px: Plane

    def estimate(self, views: ReducibleViews) -> RadiusMap:
        return RadiusMap(self.radius_px, np.full_like(self.radius_px, 0.5))


def with_radius(radius_px: Plane) -> DisparityEstimator:
    return DisparityEstimator(radius=cast(RadiusEstimator, KnownRadius(radius_px)))


def scene_with_a_faint_wall() -> tuple[ViewPair, Plane]:
    """Texture of disparity 2 px around a wall of -2 px, whose texture is fainter than the noise.

    The radius of both is the one that belongs to it.
    """
    wall = np.zeros((HEIGHT, WIDTH), bool)
    wall[40:120, 70:170] = True
    around, faint = moved(2.0, 6.0, 0.1), moved(-2.0, 6.0, 0.0025)
    left, right = pictures(
        [np.where(wall, inner, outer) for inner, outer in zip(faint, around, strict=True)], 0.004
    )
    return ViewPair(left, right), np.where(wall, np.float32(-5.0), np.float32(5.0))


def test_what_cannot_be_matched_surely_follows_the_shape_of_the_blur() -> None:
    views, radius_px = scene_with_a_faint_wall()
    deep = (slice(65, 95), slice(100, 140))
    alone = DisparityEstimator().estimate(views).disparity_px
    found = with_radius(radius_px).estimate(views).disparity_px
    assert alone is not None
    assert found is not None
    assert np.median(found[deep]) == pytest.approx(-2.0, abs=0.5)
    assert np.abs(found[deep] + 2.0).mean() < 0.5 * np.abs(alone[deep] + 2.0).mean()
    assert np.median(found[:30]) == pytest.approx(2.0, abs=0.1)


def test_an_even_area_is_filled_from_around_it_whatever_its_noise_looks_like() -> None:
    even = np.zeros((HEIGHT, WIDTH), bool)
    even[:100] = True
    left, right = pictures(
        [np.where(even, np.float32(0.6), view) for view in moved(2.0, 6.0, 0.1)], 0.02
    )
    radius_px = np.where(even, np.float32(-5.0), np.float32(5.0))
    views = ViewPair(left, right)
    alone = DisparityEstimator().estimate(views)
    found = with_radius(radius_px).estimate(views)
    assert alone.disparity_px is not None
    assert found.disparity_px is not None
    # The shape says -2 px; near the outline some of it remains.
    assert np.abs(found.disparity_px - alone.disparity_px)[:60].mean() < 0.7
    assert found.confidence is not None
    assert found.confidence[:60].mean() < 0.03


def test_black_beside_texture_leaves_no_hole_in_the_map() -> None:
    bright = np.zeros((HEIGHT, WIDTH), bool)
    bright[:, :80] = True
    views = [np.where(bright, 100 * view, np.float32(0.0)) for view in moved(2.0, 6.0, 0.1)]
    left, right = pictures(views)
    found = with_radius(np.full((HEIGHT, WIDTH), 5.0, np.float32)).estimate(ViewPair(left, right))
    assert found.disparity_px is not None
    assert np.isfinite(found.disparity_px).all()
    assert np.isfinite(found.amount).all()


def test_a_shape_that_contradicts_what_is_measured_changes_nothing() -> None:
    views, radius_px = scene_with_a_faint_wall()
    alone = DisparityEstimator().estimate(views).disparity_px
    found = with_radius(-radius_px).estimate(views).disparity_px
    assert alone is not None
    assert found is not None
    np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("falloff", [-0.1, 1.0, float("nan")])
def test_a_falloff_that_leaves_no_disparity_is_refused(falloff: float) -> None:
    with pytest.raises(ValueError, match=r"field_falloff .*: expected 0 to below 1"):
        DisparityEstimator(field_falloff=falloff)


@pytest.fixture(scope="module")
def shipped() -> BlurEstimator:
    return load_estimator("disparity")


def constant_blur(falloff: float, radius_px: float, ratio: float) -> ViewPair:
    """Letters in one blur; the views' distance falls off as a lens's does."""
    rng = np.random.default_rng(0)
    speckles = rng.integers(60, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    photo = np.asarray(cv2.GaussianBlur(speckles, (0, 0), 1.0), np.uint8)
    for y in range(8, HEIGHT, 12):
        cv2.putText(photo, "Xyz 0123 abc 456 " * 3, (-y, y), 0, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    full, none = (
        make_pair(NativeScene("a", (radius_px,), r), [photo], (HEIGHT, WIDTH), 0).views
        for r in (ratio, ratio * 0.2)
    )
    # A mixture of two kernels has the mixture of their centroids.
    share = ((gain_across(WIDTH, falloff) - 0.2) / 0.8)[None, :, None]
    left, right = (
        np.asarray(share * a + (1 - share) * b, np.float32)
        for a, b in ((full.left, none.left), (full.right, none.right))
    )
    return ViewPair(left, right)


def by_column(estimator: BlurEstimator, views: ViewPair) -> tuple[float, float]:
    """The median disparity in the middle third and in the outer sixths."""
    disparity_px = estimator.estimate(views).disparity_px
    assert disparity_px is not None
    edge = WIDTH // 6
    outer = np.concatenate([disparity_px[:, :edge], disparity_px[:, -edge:]], 1)
    return float(np.median(disparity_px[:, 2 * edge : -2 * edge])), float(np.median(outer))


@pytest.mark.parametrize("radius_px", [-6.0, 4.0])
def test_constant_blur_has_no_ramp_when_the_lens_is_unknown(
    shipped: BlurEstimator, radius_px: float
) -> None:
    middle, outer = by_column(shipped, constant_blur(0.0, radius_px, 0.5))
    assert np.sign(middle) == np.sign(radius_px)
    assert outer == pytest.approx(middle, rel=0.1)


def test_a_falloff_that_the_photo_shows_is_evened_out(shipped: BlurEstimator) -> None:
    views = constant_blur(0.6, -6.0, 0.5)
    middle, outer = by_column(DisparityEstimator(), views)
    assert outer / middle < 0.7
    middle, outer = by_column(shipped, views)
    assert outer / middle == pytest.approx(1.0, abs=0.2)
