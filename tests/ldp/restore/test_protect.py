"""What is in focus stays as it is, and noise holds the network back."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ldp.restore.protect import (
    NOTHING_AT,
    RANGE_OF_NOISE,
    SMOOTHED_FROM,
    WEAKER_FROM,
    Protection,
    SmoothedViews,
    focus_weight,
    noise_level,
    noise_weight,
)
from ldp.restore.tile_plan import Band, Tile
from ldp.restore.tiles import restore_in_tiles
from ldp.restore.tiling import Span
from ldp.types import BlurMap, FloatArray, ViewPair
from tests.helpers.photo import on_cpu


def scene(rng: np.random.Generator, height: int = 200, width: int = 300) -> FloatArray:
    """Smooth waves and hard edges."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = 0.5 + 0.2 * np.sin(x / 9) * np.cos(y / 13)
    edges = np.where((x // 40 + y // 30) % 2 == 0, 0.1, -0.1)
    colours = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    return np.asarray((waves + edges)[..., None] * colours, np.float32)


def noisy(views: FloatArray, noise: float, seed: int = 0) -> ViewPair:
    rng = np.random.default_rng(seed)
    left, right = (
        (views + noise * rng.standard_normal(views.shape)).astype(np.float32) for _ in range(2)
    )
    return ViewPair(left, right)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03, 0.08])
def test_noise_is_measured_whatever_the_scene(noise: float) -> None:
    picture = scene(np.random.default_rng(1))
    views = on_cpu(noisy(picture, noise))
    assert noise_level(views) == pytest.approx(noise, rel=0.05)
    assert noise_level(views, in_whole_rows=True) == noise_level(views)


def test_views_without_noise_have_none_and_small_ones_can_be_measured() -> None:
    picture = scene(np.random.default_rng(1))
    assert noise_level(on_cpu(ViewPair(picture, picture))) == 0
    assert noise_level(on_cpu(ViewPair(picture[:2], picture[:2]))) == 0


def test_integer_views_are_measured_on_the_same_scale() -> None:
    views = noisy(np.full((128, 128, 3), 0.5, np.float32), 0.02)
    left, right = (
        (np.clip(view, 0, 1) * 65535).astype(np.uint16) for view in (views.left, views.right)
    )
    measured = noise_level(on_cpu(ViewPair(left, right)))
    assert measured == pytest.approx(noise_level(on_cpu(views)), rel=0.01)


def test_weight_falls_with_noise_from_all_to_nothing() -> None:
    levels = np.linspace(0, 2 * NOTHING_AT, 50)
    weights = [noise_weight(float(noise)) for noise in levels]
    assert noise_weight(WEAKER_FROM) == 1
    assert weights[-1] == 0
    assert all(later <= sooner for sooner, later in pairwise(weights))


def kept_weight(blur_map: BlurMap) -> FloatArray:
    """The share of the network's change that is kept in views without noise."""
    views = on_cpu(noisy(scene(np.random.default_rng(2)), 0.0))
    return Protection.of(views).kept(blur_map).weight


def test_weight_rises_with_disparity_of_either_sign() -> None:
    disparity = np.linspace(0, 2, 50, dtype=np.float32)[None]
    near, far = (kept_weight(BlurMap(disparity, sign * disparity)) for sign in (1, -1))
    assert near[0, 0] == 0
    assert near[0, -1] == 1
    assert (np.diff(near) >= 0).all()
    assert np.array_equal(near, far)
    assert np.array_equal(near, focus_weight(disparity, 0.0))


def test_the_border_of_near_and_far_is_kept_where_the_disparity_passes_through_0() -> None:
    amount = np.ones((1, 41), np.float32)
    disparity = np.linspace(3, -3, 41, dtype=np.float32)[None]
    crossing = kept_weight(BlurMap(amount, disparity))
    assert crossing[0, 20] == 0
    whole = kept_weight(BlurMap(amount, disparity, magnitude_px=np.full_like(disparity, 3)))
    assert (whole == 1).all()


def test_a_disparity_that_is_only_filled_in_has_to_be_larger() -> None:
    disparity = np.linspace(0, 2, 50, dtype=np.float32)[None]
    measured, filled = (
        focus_weight(disparity, 0.0, np.full_like(disparity, confidence))
        for confidence in (1.0, 0.0)
    )
    assert np.array_equal(measured, focus_weight(disparity, 0.0))
    assert (filled <= measured).all()
    assert filled[0, 10] == 0 < measured[0, 10]
    assert filled[0, -1] == 1


def finished(
    protection: Protection, blur_map: BlurMap, restored: FloatArray, first_row: int = 0
) -> FloatArray:
    """Rows of the result that `restored` becomes, (n, W, 3)."""
    result = np.empty_like(restored)

    def receive(rows: slice, columns: slice, pixels: Tensor) -> None:
        result[rows.start - first_row : rows.stop - first_row, columns] = pixels.permute(1, 2, 0)

    kept = protection.kept(blur_map)
    tile = torch.from_numpy(restored).permute(2, 0, 1)
    spans = Span(first_row, first_row + len(restored), 0, 0), Span(0, restored.shape[1], 0, 0)
    bands = [Band(spans[0], (Tile(*spans),) if kept.wants(*spans) else ())]
    width = restored.shape[1]
    restore_in_tiles(lambda *_: tile, bands, width, kept, receive, None, device=torch.device("cpu"))
    return result


def shown_mean(protection: Protection) -> FloatArray:
    height, width = protection.shown.size
    both = protection.shown.pair(slice(0, height), slice(0, width))
    return np.asarray((both[:3] + both[3:]).permute(1, 2, 0) / 2, np.float32)


def test_in_focus_the_mean_of_the_views_comes_back() -> None:
    views = noisy(scene(np.random.default_rng(2)), 0.005)
    blur_map = BlurMap(np.zeros((50, 75), np.float32), np.zeros((50, 75), np.float32))
    kept = finished(Protection.of(on_cpu(views)), blur_map, np.zeros_like(views.left))
    assert np.array_equal(kept, (views.left + views.right) / 2)


def test_out_of_focus_without_much_noise_the_network_s_picture_comes_back() -> None:
    views = noisy(scene(np.random.default_rng(2)), 0.005)
    far = np.full((50, 75), -3, np.float32)
    restored = scene(np.random.default_rng(3))
    kept = finished(Protection.of(on_cpu(views)), BlurMap(np.abs(far), far), restored)
    assert np.abs(kept - restored).max() < 1e-6


def test_strong_noise_is_smoothed_for_the_network_and_stays_in_the_picture() -> None:
    picture = np.full((128, 128, 3), 0.5, np.float32)
    views = noisy(picture, 1.5 * SMOOTHED_FROM)
    protection = Protection.of(on_cpu(views))
    shown = shown_mean(protection)
    mean = (views.left + views.right) / 2
    assert shown.std() < 0.5 * mean.std()
    far = np.full((8, 8), -3, np.float32)
    # A network that changes nothing: the photo's own grain comes back.
    kept = finished(protection, BlurMap(np.abs(far), far), shown)
    assert np.abs(kept - mean).max() < 1e-6


def test_in_the_strongest_noise_no_tile_is_wanted() -> None:
    views = noisy(scene(np.random.default_rng(2)), 1.2 * NOTHING_AT)
    far = np.full((8, 8), -3, np.float32)
    kept = Protection.of(on_cpu(views)).kept(BlurMap(np.abs(far), far))
    assert not kept.wants(Span(0, 200, 0, 0), Span(0, 300, 0, 0))


def test_smoothing_is_the_bilateral_filter_of_opencv() -> None:
    views = noisy(scene(np.random.default_rng(2)), 0.03)
    smoothed = SmoothedViews(on_cpu(views), 0.03).pair(slice(0, 200), slice(0, 300))
    expected = cv2.bilateralFilter(views.left, 5, RANGE_OF_NOISE * 0.03, 1.5)
    inner = np.s_[4:-4, 4:-4]
    left = np.asarray(smoothed[:3].permute(1, 2, 0))
    np.testing.assert_allclose(left[inner], expected[inner], atol=1e-4)


def test_windows_are_smoothed_as_the_whole_is() -> None:
    smoothed = SmoothedViews(on_cpu(noisy(scene(np.random.default_rng(2)), 0.03)), 0.03)
    whole = smoothed.pair(slice(0, 200), slice(0, 300))
    part = smoothed.pair(slice(37, 90), slice(0, 111))
    np.testing.assert_allclose(part, whole[:, 37:90, :111], atol=1e-6)


def test_bands_are_finished_as_the_whole_is() -> None:
    rng = np.random.default_rng(4)
    views = noisy(scene(rng), 0.01)
    disparity = rng.normal(0, 0.3, (50, 75)).astype(np.float32)
    blur_map, protection = BlurMap(np.abs(disparity), disparity), Protection.of(on_cpu(views))
    restored = scene(np.random.default_rng(5))
    whole = finished(protection, blur_map, restored)
    bands = [
        finished(protection, blur_map, restored[row : row + 64], row) for row in range(0, 200, 64)
    ]
    assert np.allclose(np.concatenate(bands), whole, atol=1e-6)
