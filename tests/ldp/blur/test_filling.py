"""Laws of filling a map from measured values."""

from __future__ import annotations

import numpy as np

from ldp.blur.filling import fill, short_fill, with_steps, without_dips
from ldp.types import Plane

SIZE = (40, 200)
BORDER = 100
REACH = 20.0**2


def filled_up_to_steps(values: Plane, weights: Plane, guide: Plane) -> Plane:
    """Fill with breaks at the steps that a short fill leaves."""
    smooth = fill(values, weights, guide, REACH, 0.03)[0]
    first = short_fill(values[0], weights, guide, smooth, reach=REACH, edge=0.03, least=0.02)
    return fill(values, weights, with_steps(guide, first, 0.03, 0.1), REACH, 0.03)


def step_in_flat_picture(noise: float = 0.0) -> tuple[Plane, Plane]:
    """Values that step from 0 to 4 where the picture shows nothing, (1, h, w), and that picture."""
    values = np.zeros((1, *SIZE), np.float32)
    values[..., BORDER:] = 4
    values += np.random.default_rng(0).normal(0, noise, values.shape).astype(np.float32)
    return values, np.full((*SIZE, 1), 0.5, np.float32)


def widest_error_px(filled: Plane, tolerance: float) -> int:
    """How far beside the border a value is off by more than a tolerance."""
    off = np.abs(filled[0] - np.where(np.arange(SIZE[1]) < BORDER, 0, 4)) > tolerance
    columns = np.flatnonzero(off.any(axis=0))
    return int(np.abs(columns + 0.5 - BORDER).max() + 0.5) if columns.size else 0


def test_a_step_of_the_values_alone_stays_a_step() -> None:
    values, guide = step_in_flat_picture()
    weights = np.ones(SIZE, np.float32)
    plain = fill(values, weights, guide, REACH, 0.03)
    stepped = filled_up_to_steps(values, weights, guide)
    assert widest_error_px(plain, 0.4) > 15
    assert widest_error_px(stepped, 0.4) <= 3


def test_an_uncertain_strip_at_a_step_is_filled_from_both_sides() -> None:
    values, guide = step_in_flat_picture()
    weights = np.ones(SIZE, np.float32)
    strip = slice(BORDER - 5, BORDER + 5)
    weights[:, strip] = 1e-3
    values[..., strip] = 20  # what is measured there is wrong
    stepped = filled_up_to_steps(values, weights, guide)
    assert widest_error_px(stepped, 0.4) <= 6


def test_noise_of_the_values_is_smoothed_as_without_steps() -> None:
    values, guide = step_in_flat_picture(noise=0.1)
    weights = np.ones(SIZE, np.float32)
    inside = np.s_[0, :, : BORDER - 40]
    plain, stepped = (
        np.std(filled[inside])
        for filled in (
            fill(values, weights, guide, REACH, 0.03),
            filled_up_to_steps(values, weights, guide),
        )
    )
    assert stepped < 1.5 * plain
    assert stepped < 0.02


def test_a_slope_stays_a_slope() -> None:
    slope = np.broadcast_to(np.linspace(0, 2, SIZE[1], dtype=np.float32), (1, *SIZE))
    guide, weights = np.full((*SIZE, 1), 0.5, np.float32), np.ones(SIZE, np.float32)
    stepped = filled_up_to_steps(slope, weights, guide)
    inner = np.s_[0, :, 30:-30]
    np.testing.assert_allclose(stepped[inner], slope[inner], atol=0.03)


def test_nothing_measured_makes_no_step() -> None:
    values, guide = np.full((1, *SIZE), 3, np.float32), np.full((*SIZE, 1), 0.5, np.float32)
    values[..., 5:] = -7  # not measured
    weights = np.zeros(SIZE, np.float32)
    weights[:, :5] = 1
    np.testing.assert_allclose(filled_up_to_steps(values, weights, guide), 3, atol=1e-3)


def test_narrow_dips_are_closed_and_wide_ones_stay() -> None:
    values = np.full((30, 90), 3, np.float32)
    values[10:14, 10:14] = 0
    values[5:25, 40:70] = 0
    values[20, 20] = 2.9  # not deep enough to count
    closed = without_dips(values, widest=9, least=0.5)
    expected = values.copy()
    expected[10:14, 10:14] = 3
    np.testing.assert_array_equal(closed, expected)
