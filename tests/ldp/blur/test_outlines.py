from dataclasses import replace

import numpy as np
import pytest

from ldp.blur.outlines import GuidedFilter, align, enlarged, reduced, share_within
from ldp.types import BlurMap

SIZE = (120, 160)
X = np.broadcast_to(np.arange(SIZE[1], dtype=np.float32), SIZE)
EDGE = 80
TWO, EIGHT = np.float32(2), np.float32(8)
PICTURE = np.where(X[..., None] < EDGE, [0.2, 0.3, 0.6], [0.7, 0.4, 0.3]).astype(np.float32)
PICTURE = PICTURE + np.random.default_rng(0).normal(0, 0.01, (*SIZE, 3)).astype(np.float32)


def _ramp(middle: float, width: float) -> np.ndarray:
    """A step from -2 to 3 that was measured as a ramp."""
    return (-2 + 5 * np.clip((X - middle) / width + 0.5, 0, 1)).astype(np.float32)


def _bleed_px(disparity: np.ndarray) -> float:
    share = (disparity + 2) / 5
    return float(np.abs(share - (X >= EDGE)).sum(axis=1).mean())


@pytest.mark.parametrize("offset_px", [-4, 0, 4])
def test_a_ramp_becomes_a_step_at_the_outline(offset_px: int) -> None:
    ramp = _ramp(EDGE + offset_px, 16)
    aligned = align(BlurMap(np.abs(ramp) / 8, ramp, np.ones(SIZE, np.float32)), PICTURE)
    assert aligned.disparity_px is not None
    assert _bleed_px(ramp) > 3.9
    assert _bleed_px(aligned.disparity_px) < 2


def test_even_maps_stay_even() -> None:
    even = np.full(SIZE, 1.5, np.float32)
    aligned = align(BlurMap(even / EIGHT, even, even / TWO), PICTURE)
    assert aligned.disparity_px is not None
    assert aligned.confidence is not None
    np.testing.assert_allclose(aligned.disparity_px, even, atol=1e-4)
    np.testing.assert_allclose(aligned.amount, even / 8, atol=1e-4)
    np.testing.assert_allclose(aligned.confidence, even / 2, atol=1e-3)


def test_a_map_without_disparity_has_none_afterwards() -> None:
    aligned = align(BlurMap(_ramp(EDGE, 10)), PICTURE)
    assert aligned.disparity_px is None
    assert aligned.confidence is None


def test_enlarging_keeps_steps_at_the_outlines_of_the_large_picture() -> None:
    large = np.repeat(np.repeat(PICTURE, 4, 0), 4, 1)
    step = np.where(X < EDGE, -2, 3).astype(np.float32)
    found = enlarged(step, large)
    assert found.shape == large.shape[:2]
    across = np.abs(found - np.repeat(np.repeat(step, 4, 0), 4, 1))
    assert across.mean(axis=0)[4 * EDGE - 24 : 4 * EDGE + 24].sum() / 5 < 2  # px of the large one
    assert found.min() >= -2
    assert found.max() <= 3


def test_the_filter_gives_back_a_plane_that_is_linear_in_the_colours() -> None:
    plane = PICTURE @ np.array([0.5, -1, 2], np.float32) + 1
    found = GuidedFilter.of(PICTURE, 5, edge=1e-9)(plane.astype(np.float32))
    np.testing.assert_allclose(found, plane, atol=1e-3)


def test_pictures_are_reduced_only_where_they_are_large() -> None:
    assert reduced(PICTURE, 10**6) is PICTURE
    assert reduced(PICTURE, SIZE[0] * SIZE[1] // 4).shape == (60, 80, 3)


def test_a_corrected_disparity_counts_and_other_planes_stay() -> None:
    even = np.full(SIZE, 1.5, np.float32)
    wrong = BlurMap(even / EIGHT, np.where(X < EDGE, even, 3), np.ones(SIZE, np.float32))
    corrected = np.where(X < EDGE, np.float32(-2), np.float32(np.nan))
    before, after = align(wrong, PICTURE), align(replace(wrong, corrected_px=corrected), PICTURE)
    assert before.disparity_px is not None
    assert after.disparity_px is not None
    assert np.abs(after.disparity_px[:, : EDGE - 4] + 2).max() < 0.2
    assert np.abs(after.disparity_px - before.disparity_px)[:, EDGE + 4 :].max() < 0.2
    np.testing.assert_array_equal(after.amount, before.amount)


def test_depths_that_were_placed_count_alone() -> None:
    even = np.full(SIZE, 1.5, np.float32)
    placed_px = np.where(X < EDGE, np.float32(-2), np.float32(3))
    placed = replace(
        BlurMap(even / EIGHT, even, np.ones(SIZE, np.float32)),
        placed_px=placed_px,
        placed_amount=np.asarray(np.abs(placed_px) / EIGHT, np.float32),
    )
    found = align(placed, PICTURE)
    assert found.disparity_px is not None
    away = np.abs(X - EDGE) > 4
    np.testing.assert_allclose(found.disparity_px[away], placed_px[away], atol=0.2)
    np.testing.assert_allclose(found.amount[away], np.abs(placed_px[away]) / EIGHT, atol=0.03)
    near = share_within(placed, PICTURE, lambda disparity_px: disparity_px > 0)
    np.testing.assert_allclose(near[away], placed_px[away] > 0, atol=0.05)
    # On the way from one depth to the other nothing is between them.
    passed = share_within(placed, PICTURE, lambda disparity_px: np.abs(disparity_px - 0.5) < 0.5)
    assert passed.max() < 0.05


@pytest.mark.parametrize("width_px", [4, 16])
@pytest.mark.parametrize("with_confidence", [True, False])
def test_a_step_past_a_range_is_nowhere_within(width_px: float, with_confidence: bool) -> None:
    ramp = _ramp(EDGE, width_px)
    confidence = np.ones(SIZE, np.float32) if with_confidence else None
    found = BlurMap(np.abs(ramp) / 8, ramp, confidence)
    assert ((ramp > 0) & (ramp < 1)).any()
    passed = share_within(found, PICTURE, lambda disparity_px: np.abs(disparity_px - 0.5) < 0.5)
    assert passed.max() < 0.05
    near = share_within(found, PICTURE, lambda disparity_px: disparity_px > 0)
    assert near[:, EDGE + 4 :].min() > 0.9
    assert near[:, : EDGE - 4].max() < 0.1


def test_a_slope_is_within_a_range_where_its_depth_is() -> None:
    slope = np.asarray(X / SIZE[1], np.float32)
    found = BlurMap(slope, slope, np.ones(SIZE, np.float32))
    even = np.full_like(PICTURE, 0.5)
    share = share_within(found, even, lambda disparity_px: np.abs(disparity_px - 0.5) < 0.2)
    assert share[:, 60:100].min() > 0.9
    assert max(share[:, :30].max(), share[:, 130:].max()) < 0.1


def test_a_correction_is_judged_in_place_of_what_was_measured() -> None:
    even = np.full(SIZE, 1.5, np.float32)
    corrected = np.where(X < EDGE, np.float32(-2), np.float32(np.nan))
    found = BlurMap(even / EIGHT, even, np.ones(SIZE, np.float32), corrected_px=corrected)
    share = share_within(found, PICTURE, lambda disparity_px: disparity_px > 0)
    assert share[:, : EDGE - 4].max() < 0.1
    assert share[:, EDGE + 4 :].min() > 0.9
