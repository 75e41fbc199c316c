"""Laws of filling a map from measured values."""

from __future__ import annotations

import numpy as np

from ldp.blur.filling import fill, fill_up_to_steps
from ldp.types import Plane

SIZE = (40, 200)
BORDER = 100
REACH = 20.0**2


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
    stepped = fill_up_to_steps(values, weights, guide, reach=REACH, edge=0.03, step=0.1)
    assert widest_error_px(plain, 0.4) > 15
    assert widest_error_px(stepped, 0.4) <= 3


def test_an_uncertain_strip_at_a_step_is_filled_from_both_sides() -> None:
    values, guide = step_in_flat_picture()
    weights = np.ones(SIZE, np.float32)
    strip = slice(BORDER - 5, BORDER + 5)
    weights[:, strip] = 1e-3
    values[..., strip] = 20  # what is measured there is wrong
    stepped = fill_up_to_steps(values, weights, guide, reach=REACH, edge=0.03, step=0.1)
    assert widest_error_px(stepped, 0.4) <= 6


def test_noise_of_the_values_is_smoothed_as_without_steps() -> None:
    values, guide = step_in_flat_picture(noise=0.1)
    weights = np.ones(SIZE, np.float32)
    inside = np.s_[0, :, : BORDER - 40]
    plain, stepped = (
        np.std(filled[inside])
        for filled in (
            fill(values, weights, guide, REACH, 0.03),
            fill_up_to_steps(values, weights, guide, reach=REACH, edge=0.03, step=0.1),
        )
    )
    assert stepped < 1.5 * plain
    assert stepped < 0.02


def test_a_slope_stays_a_slope() -> None:
    slope = np.broadcast_to(np.linspace(0, 2, SIZE[1], dtype=np.float32), (1, *SIZE))
    guide, weights = np.full((*SIZE, 1), 0.5, np.float32), np.ones(SIZE, np.float32)
    stepped = fill_up_to_steps(slope, weights, guide, reach=REACH, edge=0.03, step=0.1)
    inner = np.s_[0, :, 30:-30]
    np.testing.assert_allclose(stepped[inner], slope[inner], atol=0.03)
