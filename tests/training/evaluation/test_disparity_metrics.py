"""Laws of the disparity metrics."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.disparity_metrics import (
    affine_mae,
    affine_rmse,
    blur_accuracy,
    in_focus_accuracy,
    rank_error,
    share_within,
    spearman,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.random((30, 40))


def test_ranks_ignore_any_rising_change_and_turn_with_a_falling_one() -> None:
    assert spearman(np.exp(3 * TRUTH), TRUTH) == pytest.approx(1.0)
    assert spearman(-(TRUTH**3), TRUTH) == pytest.approx(-1.0)
    assert rank_error(-TRUTH, TRUTH) == pytest.approx(0.0, abs=1e-12)
    assert abs(spearman(RNG.random((30, 40)), TRUTH)) < 0.1


def test_equal_values_share_their_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    found = spearman(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found == pytest.approx(4.5 / np.sqrt(22.5))


def test_a_constant_map_has_no_rank_correlation() -> None:
    assert spearman(np.zeros_like(TRUTH), TRUTH) == 0.0
    assert rank_error(np.zeros_like(TRUTH), TRUTH) == 1.0


def test_affine_errors_vanish_for_an_affine_map() -> None:
    assert affine_rmse(-4 * TRUTH + 7, TRUTH) == pytest.approx(0.0, abs=1e-9)
    assert affine_mae(-4 * TRUTH + 7, TRUTH) == pytest.approx(0.0, abs=1e-6)


def test_a_constant_map_errs_by_the_spread_of_the_truth() -> None:
    flat = np.ones_like(TRUTH)
    assert affine_rmse(flat, TRUTH) == pytest.approx(TRUTH.std())
    median_error = np.abs(TRUTH - np.median(TRUTH)).mean()
    assert affine_mae(flat, TRUTH) == pytest.approx(median_error, rel=1e-3)


def test_the_absolute_error_is_fitted_robustly() -> None:
    truth = 3 * TRUTH + 1
    truth[:2] += 50.0
    # Exact on 28 rows of 30 once the fit ignores the other two; least squares is drawn to them.
    assert affine_mae(TRUTH, truth) == pytest.approx(50.0 * 2 / 30, rel=1e-3)
    plain = np.polynomial.Polynomial.fit(TRUTH.ravel(), truth.ravel(), 1)
    assert np.abs(plain(TRUTH) - truth).mean() > 1.5 * affine_mae(TRUTH, truth)


def test_the_affine_errors_are_ordered_like_their_norms() -> None:
    estimate = TRUTH + 0.3 * RNG.standard_normal(TRUTH.shape)
    assert affine_mae(estimate, TRUTH) <= affine_rmse(estimate, TRUTH)


def test_the_share_within_counts_pixels_up_to_the_tolerance() -> None:
    truth = np.zeros(4)
    estimate = np.array([0.0, 1.0, -1.5, 3.0])
    assert share_within(estimate, truth) == 0.5
    assert share_within(estimate, truth, tolerance_px=2.0) == 0.75


def test_what_is_in_focus_is_told_by_the_size_of_the_disparity() -> None:
    truth = np.array([0.0, -1.0, 3.0, -4.0])
    assert in_focus_accuracy(-truth, truth) == 1.0
    assert in_focus_accuracy(truth * 0.3, truth) == 0.75  # 0.9 is, 1.2 is not
    assert in_focus_accuracy(truth + 2.5, truth) == 0.5


def test_unknown_truth_is_left_out() -> None:
    truth = TRUTH.copy()
    truth[0] = np.nan
    estimate = TRUTH.copy()
    estimate[0] = 99.0
    assert spearman(estimate, truth) == pytest.approx(1.0)
    assert share_within(estimate, truth, 0.0) == 1.0


@pytest.mark.parametrize(
    "metric", [spearman, rank_error, affine_mae, affine_rmse, share_within, blur_accuracy]
)
def test_what_cannot_be_compared_is_an_error(metric) -> None:
    with pytest.raises(ValueError, match="shapes"):
        metric(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="fewer than two"):
        metric(np.full(3, np.nan), np.zeros(3))


def test_blur_accuracy_is_that_of_the_best_threshold() -> None:
    disparity = np.array([-3.0, -0.5, 0.0, 0.9, 1.5, 4.0])
    assert blur_accuracy(np.abs(disparity) * 7, disparity) == 1
    # Of equal amounts none can be told from another.
    assert blur_accuracy(np.ones(6), disparity) == 0.5
    amount = np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.6])
    assert blur_accuracy(amount, disparity) == pytest.approx(5 / 6)
