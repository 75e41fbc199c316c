from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ldp.blur.disparity import DisparityEstimator
from training.data.cache import PoolSettings
from training.data.rendered import (
    BatchRange,
    CropSettings,
    SyntheticCrops,
    blur_amount,
    cut,
    mirrored,
    numbered_scene,
    sample_blur_map,
    synthetic_batches,
    validation_pairs,
)
from training.simulator.camera import simulate_camera
from training.simulator.scenes import SceneSettings, estimated_blur_map, sample_scene

CPU = torch.device("cpu")
SCENES = SceneSettings(side_px=64, radius_px=6.0)
SETTINGS = CropSettings(7, 32, 4, SCENES, PoolSettings(start=3, size=4, every=2))


def photo(seed=0, height=120, width=160):
    noise = np.random.default_rng(seed).random((height // 8, width // 8, 3)).astype(np.float32)
    return (cv2.resize(noise, (width, height)) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos():
    return [photo(seed) for seed in range(2)]


def batches(photos, cache, place, count, settings=SETTINGS, workers=0):
    made = synthetic_batches(photos, settings, place, cache, workers, CPU)
    return [next(made) for _ in range(count)]


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_batches_have_the_networks_layout_and_range(photos, tmp_path):
    for views, amount, sharp in batches(photos, tmp_path, BatchRange(), 3):
        assert views.shape == (4, 6, 32, 32)
        assert amount.shape == (4, 1, 32, 32)
        assert sharp.shape == (4, 3, 32, 32)
        for planes in (views, amount, sharp):
            assert planes.dtype == torch.float32
            assert 0 <= planes.min() <= planes.max() <= 1
        # The views show the sharp picture, if less sharply.
        mean = (views[:, :3] + views[:, 3:]) / 2
        assert np.corrcoef(mean.ravel(), sharp.ravel())[0, 1] > 0.8


def test_a_resumed_training_gets_the_batches_it_would_have_got(photos, tmp_path):
    whole = batches(photos, tmp_path / "whole", BatchRange(), 6)
    assert not same(whole[0], whole[1])
    # With the scenes that were rendered so far, and without them.
    for cache in ("whole", "new"):
        for one, other in zip(
            whole[4:], batches(photos, tmp_path / cache, BatchRange(step=4), 2), strict=True
        ):
            assert same(one, other)


def test_neither_workers_nor_processes_nor_passes_change_the_batches(photos, tmp_path):
    whole = batches(photos, tmp_path / "0", BatchRange(), 5)
    by_workers = batches(photos, tmp_path / "2", BatchRange(), 5, workers=2)
    assert all(same(one, other) for one, other in zip(whole, by_workers, strict=True))

    ranks = [
        batches(photos, tmp_path / "2", BatchRange(accumulate=2, rank=rank, processes=2), 4)
        for rank in range(2)
    ]
    # Each pass of a step is shared by the processes.
    parts = [ranks[rank][turn] for turn in range(2) for rank in range(2)]
    assert same(whole[0], [torch.cat(x) for x in zip(*parts, strict=True)])


def test_workers_may_leave_the_camera_to_the_trainings_device(photos, tmp_path):
    crops = SyntheticCrops(photos, SETTINGS, BatchRange(steps=2), tmp_path, None)
    left = [
        simulate_camera(crop, CPU) for crop in DataLoader(crops, batch_size=None, num_workers=1)
    ]
    whole = batches(photos, tmp_path, BatchRange(steps=2), 2)
    assert all(same(one, other) for one, other in zip(left, whole, strict=True))


def test_steps_of_several_crop_sizes_have_about_the_same_pixels(photos, tmp_path):
    mixed = replace(SETTINGS, sizes_px=(16, 32, 64))
    whole = batches(photos, tmp_path, BatchRange(), 12, mixed)
    shapes = {views.shape[-1]: len(views) for views, *_ in whole}
    assert shapes == {16: 16, 32: 4, 64: 1}
    for views, amount, sharp in whole:
        assert views.shape[2:] == amount.shape[2:] == sharp.shape[2:]
    # The size of a step depends on the step alone, however the batch is shared and resumed.
    resumed = batches(photos, tmp_path, BatchRange(step=8, accumulate=2), 8, mixed)
    for step, (views, *_) in enumerate(whole[8:]):
        if len(views) > 1:
            parts = [part[0] for part in resumed[2 * step : 2 * step + 2]]
            assert torch.equal(torch.cat(parts), views)


def test_stages_and_seeds_differ_and_share_no_crop(photos, tmp_path):
    first = batches(photos, tmp_path, BatchRange(), 1)[0]
    assert not same(first, batches(photos, tmp_path, BatchRange(stage=1), 1)[0])
    other = CropSettings(8, 32, 4, SCENES, SETTINGS.pool)
    assert not same(first, batches(photos, tmp_path, BatchRange(), 1, other)[0])
    # Of other scenes, which do not mix.
    assert len(list(tmp_path.glob("scenes-*"))) == 2


def test_a_place_ends_with_its_last_step(photos, tmp_path):
    crops = SyntheticCrops(
        photos, SETTINGS, BatchRange(step=1, steps=3, accumulate=2), tmp_path, CPU
    )
    assert len(list(crops)) == 4


def test_a_scene_is_a_function_of_its_number(photos):
    first = numbered_scene(photos, SETTINGS, 5)
    assert first.dtype == np.float16
    assert first.shape == (11, 64, 64)
    np.testing.assert_array_equal(first, numbered_scene(photos, SETTINGS, 5))
    assert not np.array_equal(first, numbered_scene(photos, SETTINGS, 6))


def test_a_mirrored_scene_swaps_its_views_and_keeps_its_disparity(photos):
    drawn = numbered_scene(photos, SETTINGS, 3)
    turned = mirrored(drawn)
    np.testing.assert_array_equal(turned[:3], drawn[3:6, :, ::-1])
    np.testing.assert_array_equal(turned[3:6], drawn[:3, :, ::-1])
    np.testing.assert_array_equal(turned[6:], drawn[6:, :, ::-1])


def test_every_flip_of_a_crop_is_a_dual_pixel_pair():
    """The left view's ramp is brighter at the right: in every crop, flipped or not, that holds."""
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float16), (3, 32, 1))
    ramp[:, 16:] *= np.float16(0.5)
    scene = np.concatenate(
        [ramp, ramp[..., ::-1], np.ones_like(ramp), np.full((2, 32, 32), 0.5, np.float16)]
    )
    upper = lower = 0
    for seed in range(16):
        crop = cut(np.random.default_rng(seed), scene, 32)
        assert crop.shape == (10, 32, 32)
        left, right = crop[:3], crop[3:6]
        assert np.all(left[..., -1] > left[..., 0])
        np.testing.assert_array_equal(right, left[..., ::-1])
        upper += bool(left[0, 0, -1] > left[0, -1, -1])
        lower += bool(left[0, 0, -1] < left[0, -1, -1])
    assert upper + lower == 16
    assert upper >= 3
    assert lower >= 3


def test_crops_come_from_all_over_the_scene_with_either_map():
    rows, columns = np.meshgrid(np.arange(48), np.arange(48), indexing="ij")
    planes = [rows / 64, columns / 64, *[np.ones((48, 48))] * 7, 0 * rows, np.full((48, 48), 0.5)]
    scene = np.stack(planes).astype(np.float16)
    crops = [cut(np.random.default_rng(seed), scene, 32) for seed in range(60)]
    tops = {float(crop[[0, 3]].min() * 64) for crop in crops if crop[3:6].min() == 1}
    assert min(tops) <= 2
    assert max(tops) >= 14
    estimated = [bool(np.all(crop[-1] == np.float16(0.5))) for crop in crops]
    assert 0.4 < np.mean(estimated) < 0.8


@pytest.mark.parametrize("seed", range(8))
def test_blur_maps_are_in_range_and_follow_the_blur(seed):
    rng = np.random.default_rng(seed)
    disparity_px = np.tile(np.linspace(-8, 8, 64, dtype=np.float32), (64, 1))
    amount = sample_blur_map(rng, disparity_px)
    assert amount.dtype == np.float32
    assert 0 <= amount.min() <= amount.max() <= 1
    assert amount[:, [0, -1]].mean() > amount[:, 28:36].mean() + 0.2


def test_blur_amount_is_the_estimators():
    scale_px = DisparityEstimator().disparity_scale_px
    found = blur_amount(np.array([0, scale_px, -scale_px], np.float32))
    np.testing.assert_allclose(found, [0, 1 - np.exp(-1), 1 - np.exp(-1)], rtol=1e-6)


def test_the_estimators_map_of_a_scene_follows_its_blur():
    pair = sample_scene(np.random.default_rng(4), [photo(4, 400, 400)], SceneSettings(side_px=160))
    amount = estimated_blur_map(np.random.default_rng(0), pair)
    truth = blur_amount(pair.disparity_px)
    assert amount.shape == truth.shape
    assert np.median(np.abs(amount - truth)) < 0.1


def test_validation_pairs_are_fixed_and_no_training_scenes(photos):
    pairs = validation_pairs(photos, SETTINGS, 3)
    for views, amount, sharp in pairs:
        assert (views.shape, amount.shape, sharp.shape) == ((6, 32, 32), (1, 32, 32), (3, 32, 32))
    other_seed = CropSettings(8, 32, 2, SCENES)
    for one, other in zip(pairs, validation_pairs(photos, other_seed, 3), strict=True):
        assert same(one, other)
    # More of them begin with the same ones.
    assert same(pairs[0], validation_pairs(photos, SETTINGS, 1)[0])
    assert not same(pairs[0], pairs[1])
