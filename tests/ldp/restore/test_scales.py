"""Restoring at several scales, with networks whose result is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from ldp.info import Source
from ldp.model import Model
from ldp.models.network import LDPNet, NetworkConfig
from ldp.restore.photo_views import StoredViews, whole
from ldp.restore.protect import Kept
from ldp.restore.reduced_views import ReducedViews
from ldp.restore.scale_weights import (
    FACTORS,
    LARGEST_RADIUS_PX,
    reach_px,
    single_scale,
    weights_for,
)
from ldp.restore.scales import carried_up, grain_share, map_at, with_grain
from ldp.types import BlurMap, FloatArray, ViewPair
from tests.helpers.scale_networks import MICRO, Adding, Smoothing, deblurrer_of

CPU = torch.device("cpu")
SIZE = (200, 300)
MAP = BlurMap(np.full((4, 6), 0.5, np.float32), disparity_px=np.full((4, 6), 3.0, np.float32))


def noisy_views(seed: int = 0, size: tuple[int, int] = SIZE) -> ViewPair:
    rng = np.random.default_rng(seed)
    left, right = (rng.uniform(0.3, 0.7, (*size, 3)).astype(np.float32) for _ in range(2))
    return ViewPair(left, right)


def whole_mean(views: ViewPair) -> FloatArray:
    return np.asarray((views.left + views.right) * np.float32(0.5), np.float32)


def half_in_focus() -> FloatArray:
    """The left half is in focus, the right half far away and strongly blurred."""
    radius = np.zeros((50, 75), np.float32)
    radius[:, 38:] = -30.0
    return radius


def test_each_radius_gets_its_scale_and_weights_add_up_to_1() -> None:
    radii = -np.asarray([[0.0, 2.0, 9.0, 12.0, 18.0, 36.0, 72.0, 200.0]], np.float32)
    radius = np.repeat(np.repeat(radii, 20, 0), 20, 1)
    weights = weights_for(radius, (20 * 40, 160 * 40))  # stripes much wider than the radii
    middle = np.stack([plane[10, 10::20] for plane in weights.planes])
    expected: list[list[float]] = [
        [0, 1, 1, 0.64, 0, 0, 0, 0],
        [0, 0, 0, 0.36, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]
    np.testing.assert_allclose(middle, np.asarray(expected), atol=0.01)
    assert weights.factors == FACTORS
    assert LARGEST_RADIUS_PX == 12


def test_an_object_reaches_so_many_radii_beyond_its_outline() -> None:
    radius = np.zeros((100, 100), np.float32)
    radius[:, 70:] = 20.0
    for reach, untouched, reached in ((1.0, 45, 55), (0.5, 55, 65)):
        found = reach_px(radius, (100, 100), reach)[50]
        assert found[:untouched].max() == 0
        assert found[reached:].min() > 15
    np.testing.assert_array_equal(reach_px(-radius, (100, 100), 1.0), 0)


def test_near_blur_reaches_over_what_is_in_focus_and_far_blur_does_not() -> None:
    radius = np.zeros((100, 100), np.float32)
    radius[:, 70:] = 20.0
    near, far = (
        np.sum(weights_for(r, (100, 100)).planes, axis=0).clip(max=1)[50] for r in (radius, -radius)
    )
    assert near[:30].max() == 0
    assert near[52:].min() > 0.99
    assert far[:60].max() == 0
    assert far[75:].min() > 0.99


def test_untouched_regions_equal_the_mean_view_to_the_last_bit() -> None:
    views = noisy_views()
    weights = weights_for(half_in_focus(), SIZE)
    sharp = deblurrer_of(Adding(0.1)).restore_uint16(views, MAP, weights=weights)
    mean = np.clip(whole_mean(views), 0, 1) * np.float32(65535) + np.float32(0.5)
    np.testing.assert_array_equal(sharp[:, :130], mean.astype(np.uint16)[:, :130])
    changed = sharp[:, 180:].astype(np.float64) / 65535 - whole_mean(views)[:, 180:]
    np.testing.assert_allclose(changed, 0.1, atol=2e-5)


def test_tiles_that_no_region_needs_are_not_computed() -> None:
    seen: list[tuple[int, int]] = []
    network = Adding(0.1, seen)
    weights = weights_for(np.zeros((50, 75), np.float32), SIZE)
    calls: list[int] = []
    deblurrer = deblurrer_of(network)
    sharp = deblurrer.restore(
        noisy_views(), MAP, lambda done, total: calls.append(total), weights=weights
    )
    np.testing.assert_array_equal(sharp, whole_mean(noisy_views()))
    assert (seen, calls) == ([], [])
    half = half_in_focus() * np.float32(5 / 30)
    deblurrer.restore(noisy_views(), MAP, weights=weights_for(half, SIZE))
    tiles_of_half = len(seen)
    everywhere = np.full_like(half, -5)
    deblurrer.restore(noisy_views(), MAP, weights=weights_for(everywhere, SIZE))
    assert 0 < tiles_of_half < len(seen) - tiles_of_half


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_constant_correction_is_the_same_at_every_scale(factor: int) -> None:
    views = noisy_views(size=(203, 301))
    sharp = deblurrer_of(Adding(0.125)).restore(views, MAP, weights=single_scale(factor))
    np.testing.assert_allclose(sharp, whole_mean(views) + 0.125, atol=1e-5)


def test_scale_1_everywhere_is_the_picture_without_scales() -> None:
    views, deblurrer = noisy_views(), deblurrer_of(Smoothing())
    plain = deblurrer.restore(views, MAP)
    np.testing.assert_allclose(
        deblurrer.restore(views, MAP, weights=single_scale(1)), plain, atol=1e-5
    )


def test_no_step_at_tile_borders_of_any_scale() -> None:
    # Tiles of a network of local operations cannot be told from one pass over the whole picture.
    views = noisy_views(3, (420, 640))
    radius = np.tile(np.geomspace(1, 80, 160, dtype=np.float32), (105, 1)) * -1
    weights = weights_for(radius, (420, 640))
    small, large = (
        deblurrer_of(Smoothing(), tile_px).restore(views, MAP, weights=weights)
        for tile_px in (64, 1024)
    )
    np.testing.assert_allclose(small, large, atol=1e-5)


NOISE = 0.02


def noise_beside_focus(network: Smoothing, radius_px: float) -> tuple[FloatArray, FloatArray]:
    """Columns of a restored ramp: mean, and deviation of the noise. The left half is in focus."""
    rng = np.random.default_rng(5)
    grain = rng.normal(0, NOISE, (2, 240, 320, 3)).astype(np.float32)
    ramp = np.linspace(0.3, 0.6, 320, dtype=np.float32)[None, :, None]
    views = ViewPair(ramp + grain[0], ramp + grain[1])
    radius = np.zeros((60, 80), np.float32)
    radius[:, 40:] = -radius_px
    weights = weights_for(radius, (240, 320))
    kept = Kept(StoredViews(views, CPU), np.ones((1, 1), np.float32), noise=NOISE)
    sharp = deblurrer_of(network).restore(views, MAP, kept=kept, weights=weights)
    return sharp.mean((0, 2)), np.std(sharp - ramp, (0, 2))


def deviation(noise: FloatArray, first: int, last: int) -> float:
    return float(np.sqrt(np.mean(noise[first:last] ** 2)))


@pytest.mark.parametrize("radius_px", [40.0, 4.0])
def test_gradients_and_noise_go_on_across_the_border_of_restored_and_untouched(
    radius_px: float,
) -> None:
    denoising = Smoothing(0.4)  # by a third
    mean, noise = noise_beside_focus(denoising, radius_px)
    untouched = deviation(noise, 20, 120)
    assert deviation(noise, 140, 180) == pytest.approx(untouched, rel=0.2)
    assert deviation(noise, 155, 162) == pytest.approx(untouched, rel=0.2)
    steps = np.abs(np.diff(mean))
    assert steps[140:180].max() < 1.5 * steps[20:120].max()
    if radius_px == 40:  # the correction of a copy
        assert deviation(noise, 200, 300) == pytest.approx(untouched, rel=0.2)


def test_noise_falls_from_the_border_on_to_what_the_network_leaves_of_it() -> None:
    _, noise = noise_beside_focus(Smoothing(0.4), 4.0)
    places = [deviation(noise, first, first + 4) for first in (152, 158, 162, 166)]
    far = deviation(noise, 180, 300)
    assert far == pytest.approx(0.67 * deviation(noise, 20, 120), rel=0.1)
    assert all(later < 1.03 * sooner for sooner, later in pairwise([*places, far]))
    assert max(sooner - later for sooner, later in pairwise(places)) < 0.2 * places[0]


def test_where_all_is_restored_at_full_size_no_noise_is_put_back() -> None:
    everywhere = np.full((30, 40), 0.9, np.float32)
    assert not grain_share(everywhere).any()
    everywhere[:, :10] = 0
    share = grain_share(everywhere)
    assert (share[:, :9] == 1).all()
    assert (share[:, 12:] == 0).all()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_corrections_are_the_same_in_parts_as_in_one(factor: int) -> None:
    correction = torch.from_numpy(np.random.default_rng(1).normal(size=(31, 21, 3))).float()
    height, width = 31 * factor - 1, 21 * factor - 1  # rounded up in the scaled views
    whole_up = carried_up(correction, factor, slice(0, height), slice(0, width))
    assert whole_up.shape == (3, height, width)
    rows = [slice(0, 17), slice(17, 50), slice(50, height)]
    columns = [slice(0, 19), slice(19, width)]
    parts = [torch.cat([carried_up(correction, factor, r, c) for c in columns], 2) for r in rows]
    torch.testing.assert_close(torch.cat(parts, 1), whole_up, atol=1e-5, rtol=0)
    channels_first = correction.permute(2, 0, 1)[None]
    enlarged = torch.nn.functional.interpolate(channels_first, scale_factor=factor, mode="bicubic")
    torch.testing.assert_close(whole_up, enlarged[0, :, :height, :width], atol=1e-5, rtol=0)


def test_reduced_is_the_mean_of_cells_and_rounds_up() -> None:
    view = np.arange(5 * 6 * 3, dtype=np.float32).reshape(5, 6, 3)
    source = StoredViews(ViewPair(view, view), CPU)
    half = ReducedViews(source, 2, CPU)
    small = whole(half).left
    assert small.shape == (3, 3, 3)
    np.testing.assert_allclose(small[0, 0], view[:2, :2].mean((0, 1)))
    np.testing.assert_allclose(small[2, 1], view[4, 2:4].mean(0))
    quarter = whole(ReducedViews(half, 2, CPU)).left
    np.testing.assert_allclose(quarter[0, 0], view[:4, :4].mean((0, 1)))


def test_reduced_views_read_in_parts_are_those_read_whole() -> None:
    views = noisy_views(size=(530, 2100))
    source = StoredViews(views, CPU)
    expected = whole(ReducedViews(source, 4, CPU))
    part = ReducedViews(source, 4, CPU).pair(slice(60, 133), slice(250, 525))
    np.testing.assert_array_equal(
        part.permute(1, 2, 0).numpy()[..., 3:], expected.right[60:133, 250:525]
    )
    means = views.left[240:244, 1000:1004].mean((0, 1))
    np.testing.assert_allclose(part[:3, 0, 0].numpy(), means, rtol=1e-6)


def test_a_map_in_pixels_shrinks_with_them_and_another_one_stays() -> None:
    amount = -np.expm1(-np.asarray([[8.0, 2.0]], np.float32) / 4)
    in_pixels = map_at(BlurMap(amount, radius_px=amount), 4).amount
    np.testing.assert_allclose(in_pixels, -np.expm1(-np.asarray([[2.0, 0.5]]) / 4), atol=1e-6)
    np.testing.assert_array_equal(map_at(BlurMap(amount), 4).amount, amount)


def test_only_changes_as_small_as_noise_are_put_back() -> None:
    mean = torch.tensor([0.5, 0.5, 0.5])
    restored = mean - torch.tensor([0.001, 0.01, 0.2])
    noise = 0.01
    back = (with_grain(restored, mean, noise) - restored) / (mean - restored)
    assert back[0] == pytest.approx(1, abs=0.01)
    assert 0.8 < back[1] < 1
    assert back[2] < 1e-9


def test_an_unknown_scale_is_refused() -> None:
    network = LDPNet(NetworkConfig(width=4, encoder=(1,), middle=1, decoder=(1,), attention=False))
    with pytest.raises(ValueError, match="scale '3': expected one of auto, 1, 2, 4, 8"):
        Model(network, device="cpu", scale="3")


@pytest.mark.parametrize(("training_radius_px", "scale"), [(6.0, "2"), (12.0, "1"), (30.0, "1")])
def test_a_network_of_smaller_radii_goes_to_the_next_scale_sooner(
    training_radius_px: float, scale: str
) -> None:
    torch.manual_seed(0)
    network = LDPNet(MICRO)
    blur_map = BlurMap(np.full((40, 60), 0.5, np.float32), radius_px=np.full((40, 60), -8.0))
    source = Source(training_radius_px=training_radius_px)
    by_radius, expected = (
        Model(network, device="cpu", scale=name, source=source, protect=False)
        .restore_uint16(noisy_views(), blur_map=blur_map)
        .sharp.astype(int)
        for name in ("auto", scale)
    )
    assert np.abs(by_radius - expected).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 7), (97, 95)])
def test_pictures_of_a_few_pixels_are_restored(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    sharp = Model(LDPNet(MICRO), device="cpu", scale="auto").restore(noisy_views(size=size)).sharp
    assert sharp.shape == (*size, 3)
    assert np.isfinite(sharp).all()
