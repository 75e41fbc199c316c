"""Laws of the disparity map, on textures whose shift is known exactly."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ldp.blur.disparity import DisparityEstimator
from ldp.blur.filling import fill
from ldp.blur.matching import noise_sigma
from ldp.types import BlurMap, Picture, ViewPair

Grid = npt.NDArray[np.float64]

# As measured, without evening out the lens's falloff: the laws of geometry hold for this.
AS_MEASURED = DisparityEstimator(field_falloff=0.0)
INNER = (slice(16, -16), slice(16, -16))


def texture(x: Grid, y: Grid, seed: int = 0, shortest_px: float = 5.0) -> npt.NDArray[np.float32]:
    """A picture in [0, 1] that is known between the pixels too: a sum of random waves at x, y."""
    rng = np.random.default_rng(seed)
    total = np.zeros(np.broadcast(x, y).shape)
    for _ in range(48):
        frequency = 2 * np.pi / (shortest_px * 8 ** rng.random())
        angle = rng.random() * 2 * np.pi
        phase = rng.random() * 2 * np.pi
        total += np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return (0.5 + 0.06 * total).clip(0.02, 0.98).astype(np.float32)


def grid(height: int, width: int) -> tuple[Grid, Grid]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x, y


def grey(plane: npt.NDArray[np.float32]) -> Picture:
    return np.ascontiguousarray(np.repeat(plane[..., None], 3, axis=2))


def shifted_pair(
    disparity_px: float | Grid, height: int = 120, width: int = 160, seed: int = 0
) -> ViewPair:
    x, y = grid(height, width)
    return ViewPair(
        grey(texture(x - disparity_px / 2, y, seed)), grey(texture(x + disparity_px / 2, y, seed))
    )


def enlarged(pair: ViewPair, size: tuple[int, int]) -> ViewPair:
    """The pair at another size, (width, height)."""
    left, right = (
        cv2.resize(view, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        for view in (pair.left, pair.right)
    )
    return ViewPair(left, right)


def disparity(blur_map: BlurMap) -> npt.NDArray[np.float32]:
    assert blur_map.disparity_px is not None
    return blur_map.disparity_px


def confidence(blur_map: BlurMap) -> npt.NDArray[np.float32]:
    assert blur_map.confidence is not None
    return blur_map.confidence


@pytest.mark.parametrize("shift_px", [-3.3, -1.0, -0.39, 0.25, 0.8, 2.6])
def test_a_known_shift_is_recovered_with_its_sign(shift_px: float) -> None:
    found = disparity(AS_MEASURED.estimate(shifted_pair(shift_px)))[INNER]
    assert abs(np.median(found) - shift_px) < 0.03
    assert np.percentile(np.abs(found - shift_px), 95) < 0.05


def test_identical_views_have_no_disparity_and_no_blur() -> None:
    blur_map = AS_MEASURED.estimate(shifted_pair(0.0))
    assert np.abs(disparity(blur_map)).max() < 0.02
    assert blur_map.amount.max() < 0.01


def test_noise_leaves_a_shift_unbiased() -> None:
    pair = shifted_pair(0.6)
    rng = np.random.default_rng(1)
    left, right = (
        (view + 0.02 * rng.standard_normal(view.shape)).astype(np.float32)
        for view in (pair.left, pair.right)
    )
    found = disparity(AS_MEASURED.estimate(ViewPair(left, right)))[INNER]
    assert abs(np.median(found) - 0.6) < 0.05
    assert found.std() < 0.1


def test_swapped_views_have_the_opposite_disparity() -> None:
    pair = shifted_pair(1.3)
    one = AS_MEASURED.estimate(pair)
    other = AS_MEASURED.estimate(ViewPair(pair.right, pair.left))
    np.testing.assert_allclose(disparity(other), -disparity(one), atol=2e-3)
    np.testing.assert_allclose(confidence(other), confidence(one), atol=2e-3)


@pytest.mark.parametrize("width", [160, 157])
def test_a_mirrored_pair_has_the_mirrored_map(width: int) -> None:
    x, y = grid(120, width)
    pair = shifted_pair(1.5 * np.sin(x / 30) * np.cos(y / 40), 120, width)
    left, right = (
        np.ascontiguousarray(view[:, ::-1], np.float32) for view in (pair.right, pair.left)
    )
    mirrored = ViewPair(left, right)
    for estimator in (AS_MEASURED, DisparityEstimator()):
        there = estimator.estimate(pair)
        back = estimator.estimate(mirrored)
        np.testing.assert_allclose(disparity(back)[:, ::-1], disparity(there), atol=0.02)
        np.testing.assert_allclose(back.amount[:, ::-1], there.amount, atol=0.02)


def test_gain_offset_and_shading_of_one_view_change_nothing() -> None:
    pair = shifted_pair(-1.2)
    ramp = np.linspace(0.6, 0.9, pair.size[1], dtype=np.float32)[None, :, None]
    uneven = ViewPair(pair.left, (pair.right * ramp + 0.08).astype(np.float32))
    before = disparity(AS_MEASURED.estimate(pair))[INNER]
    after = disparity(AS_MEASURED.estimate(uneven))[INNER]
    assert np.abs(after - before).max() < 0.1
    assert np.percentile(np.abs(after - before), 95) < 0.05


def test_negative_values_and_every_sample_type_are_read_alike() -> None:
    pair = shifted_pair(0.9)
    dark = ViewPair(pair.left - np.float32(0.3), pair.right - np.float32(0.3))
    expected = disparity(AS_MEASURED.estimate(pair))
    np.testing.assert_allclose(disparity(AS_MEASURED.estimate(dark)), expected, atol=0.01)
    sample_types: Any = (np.uint8, np.uint16)
    for sample_type in sample_types:
        white = np.iinfo(sample_type).max
        left, right = (
            np.rint(view * white).astype(sample_type) for view in (pair.left, pair.right)
        )
        coded = ViewPair(left, right)
        np.testing.assert_allclose(disparity(AS_MEASURED.estimate(coded)), expected, atol=0.03)


@pytest.mark.parametrize("noise", [0.0, 0.004])
def test_an_area_without_texture_is_filled_from_around_it_with_low_confidence(
    noise: float,
) -> None:
    pair = shifted_pair(2.0, 240, 320)
    rng = np.random.default_rng(0)
    for view in (pair.left, pair.right):
        view[70:170, 90:230] = 0.5
        view += np.float32(noise) * rng.standard_normal(view.shape).astype(np.float32)
    blur_map = AS_MEASURED.estimate(pair)
    deep = (slice(105, 135), slice(140, 180))
    assert np.abs(disparity(blur_map)[deep] - 2.0).max() < 0.4
    assert np.median(confidence(blur_map)[deep]) < 0.1
    assert np.median(confidence(blur_map)[8:60, 16:-16]) > 0.8


def test_an_object_keeps_its_outline_and_each_side_its_sign() -> None:
    height, width = 160, 240
    x, y = grid(height, width)

    def view(side: float) -> Picture:
        back = texture(x + side * 1.0, y, seed=1) * 0.5
        front = 0.5 + texture(x - side * 2.0, y, seed=2) * 0.5
        object_x = x - side * 2.0
        inside = (np.abs(object_x - 120) < 50) & (np.abs(y - 80) < 45)
        return grey(np.where(inside, front, back).astype(np.float32))

    blur_map = AS_MEASURED.estimate(ViewPair(view(0.5), view(-0.5)))
    truth = (np.abs(x - 120) < 50) & (np.abs(y - 80) < 45)
    found = disparity(blur_map) > 0.5
    overlap = np.count_nonzero(truth & found) / np.count_nonzero(truth | found)
    assert overlap > 0.9
    assert abs(np.median(disparity(blur_map)[truth]) - 2.0) < 0.1
    assert abs(np.median(disparity(blur_map)[~truth]) + 1.0) < 0.1


def test_a_picture_twice_as_large_has_twice_the_disparity() -> None:
    pair = shifted_pair(1.1)
    large = enlarged(pair, (2 * pair.size[1], 2 * pair.size[0]))
    found = disparity(AS_MEASURED.estimate(large))
    assert found.shape == large.size
    assert abs(np.median(found) - 2.2) < 0.06
    # And the same when the map of the large one is made at the small one's size.
    reduced = DisparityEstimator(field_falloff=0.0, map_pixels=120 * 160)
    blur_map = reduced.estimate(large)
    assert blur_map.amount.shape == pair.size
    assert abs(np.median(disparity(blur_map)) - 2.2) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("shift_px", [-21.7, 23.4])
def test_a_large_shift_of_a_large_picture_is_found(shift_px: float) -> None:
    small = shifted_pair(shift_px / 4, 180, 600, seed=3)
    large = enlarged(small, (2400, 720))
    found = disparity(AS_MEASURED.estimate(large))
    assert abs(np.median(found) - shift_px) < 0.2
    assert np.mean(np.abs(found - shift_px) < 0.5) > 0.95


def test_the_lens_falloff_is_evened_out() -> None:
    x, _ = grid(120, 240)
    position = (x + 0.5) / 120 - 1.0
    gain = 1.0 - 0.5 * np.abs(position) ** 1.5
    blur_map = DisparityEstimator(field_falloff=0.5).estimate(
        shifted_pair(2.0 * gain / gain.mean(), 120, 240)
    )
    assert np.abs(disparity(blur_map)[INNER] - 2.0).max() < 0.15


@pytest.mark.parametrize("shift_px", [-2.5, 1.5])
def test_the_amount_is_a_fixed_function_of_the_disparity(shift_px: float) -> None:
    estimator = DisparityEstimator(disparity_scale_px=2.0)
    blur_map = estimator.estimate(shifted_pair(shift_px))
    expected = 1 - np.exp(-np.abs(disparity(blur_map)) / 2.0)
    np.testing.assert_allclose(blur_map.amount, expected, atol=1e-3)
    assert blur_map.amount.max() > 0.5


def test_no_sharp_line_runs_between_a_near_and_a_far_object() -> None:
    x, _ = grid(120, 160)
    blur_map = AS_MEASURED.estimate(shifted_pair(np.where(x < 80, 2.5, -2.5)))
    across = disparity(blur_map)[INNER]
    assert across.max() > 2
    assert across.min() < -2
    assert blur_map.amount[INNER].min() > 0.4 * (1 - np.exp(-2.5 / 4.0))
    assert blur_map.magnitude_px is not None
    assert np.abs(across).min() < 0.1 < 0.7 < blur_map.magnitude_px[INNER].min()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_picture_gives_zeros_without_confidence(value: float) -> None:
    flat = np.full((33, 47, 3), value, np.float32)
    blur_map = AS_MEASURED.estimate(ViewPair(flat, flat))
    assert not disparity(blur_map).any()
    assert not blur_map.amount.any()
    assert not confidence(blur_map).any()


@pytest.mark.parametrize("size", [(8, 8), (1, 40), (40, 1), (1, 1), (2, 3), (31, 57)])
def test_any_size_gives_a_finite_map_of_that_size(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random((2, *size, 3), np.float32)
    blur_map = DisparityEstimator().estimate(ViewPair(left, right))
    for plane in (blur_map.amount, disparity(blur_map), confidence(blur_map)):
        assert plane.shape == size
        assert plane.dtype == np.float32
        assert np.isfinite(plane).all()
    assert confidence(blur_map).min() >= 0
    assert confidence(blur_map).max() <= 1


def test_the_map_is_never_larger_than_asked_for() -> None:
    pair = shifted_pair(0.5, 300, 400)
    blur_map = DisparityEstimator(map_pixels=30_000).estimate(pair)
    assert blur_map.amount.shape == (150, 200)


def test_filling_stops_at_the_edges_of_the_guide() -> None:
    guide = np.zeros((20, 40, 3), np.float32)
    guide[:, 20:] = 1.0
    values = np.zeros((20, 40), np.float32)
    weights = np.zeros((20, 40), np.float32)
    for column, value in ((5, 3.0), (34, -2.0)):
        values[10, column], weights[10, column] = value, 1.0
    (filled,) = fill(values[None], weights, guide, reach=400.0, edge=0.05)
    np.testing.assert_allclose(filled[:, :20], 3.0, atol=1e-2)
    np.testing.assert_allclose(filled[:, 20:], -2.0, atol=1e-2)


def test_the_noise_of_a_picture_is_measured_beside_its_texture() -> None:
    x, y = grid(120, 160)
    picture = texture(x, y, shortest_px=12.0)
    picture[:, 80:] = 0.5
    picture += 0.03 * np.random.default_rng(0).standard_normal(picture.shape).astype(np.float32)
    assert noise_sigma(picture) == pytest.approx(0.03, rel=0.15)
