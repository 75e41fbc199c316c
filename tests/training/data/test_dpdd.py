"""DPDD: both layouts, what is refused, the patch rules, and what a crop is."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ldp.types import BlurMap, ViewPair
from tests.helpers.made_dpdd import made_scene, write_dpdd
from training.data.dpdd import (
    DpddCrops,
    find_scenes,
    patch_places,
    prepare,
    read_scene,
    sharpest_patches,
    sharpness,
)


class LeftToRight:
    """Every column's place as its blur; it counts how often it was asked."""

    def __init__(self):
        self.asked = 0

    def estimate(self, views):
        self.asked += 1
        height, width = views.size
        amount = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
        return BlurMap(amount, soft=np.float32(0.5) + np.float32(0.01) * amount)


@pytest.fixture
def folder(tmp_path):
    return write_dpdd(tmp_path / "dpdd")


def prepared(
    folder,
    tmp_path,
    estimator=None,
    estimator_id="a",
    *,
    patch_px=64,
    drop=8,
    planes=("amount",),
):
    estimator = estimator or LeftToRight()
    cache = tmp_path / "cache"
    return [
        prepare(scene, cache, estimator, estimator_id, patch_px=patch_px, drop=drop, planes=planes)
        for scene in find_scenes(folder)
    ]


@pytest.mark.parametrize("repack", [False, True])
@pytest.mark.parametrize("below", ["", "dd_dp_dataset_canon"])
def test_both_layouts_give_the_same_scenes_at_16_bit(tmp_path, repack, below):
    if repack and below:
        below = "train"  # the repack may be given by its inner folder too
    write_dpdd(tmp_path if repack else tmp_path / below, repack=repack)
    scenes = find_scenes(tmp_path / below if repack else tmp_path)
    assert len(scenes) == 3
    for index, scene in enumerate(scenes):
        pixels = read_scene(scene)
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, np.concatenate(made_scene(index, 96, 128), 2))


def test_8_bit_files_fill_the_range(folder):
    scene = find_scenes(folder)[0]
    for path in (scene.left, scene.right, scene.sharp):
        assert cv2.imwrite(str(path), np.full((8, 8, 3), 255, np.uint8))
    assert (read_scene(scene) == 65535).all()


def test_a_missing_file_is_told_by_the_counts(folder):
    find_scenes(folder)[1].right.unlink()
    with pytest.raises(ValueError, match=r"train_l/source: 3, .*train_r/source: 2, .*target: 3"):
        find_scenes(folder)


def test_pairs_that_do_not_belong_together_are_told(folder):
    scene = find_scenes(folder)[2]
    far = scene.sharp.rename(scene.sharp.with_name("1P0A0931.png"))
    with pytest.raises(ValueError, match=r"0921_L\.png and .*0931\.png .* 10 apart"):
        find_scenes(folder)
    far.rename(scene.sharp)
    scene.right.rename(scene.right.with_name("1P0A0999_R.png"))
    with pytest.raises(ValueError, match=r"0921_L\.png and .*0999_R\.png"):
        find_scenes(folder)


def test_capture_numbers_may_start_anew(tmp_path):
    write_dpdd(tmp_path, count=1)
    scene = find_scenes(tmp_path)[0]
    scene.left.rename(scene.left.with_name("1P0A9999_L.png"))
    scene.right.rename(scene.right.with_name("1P0A9999_R.png"))
    scene.sharp.rename(scene.sharp.with_name("1P0A0001.png"))
    assert find_scenes(tmp_path)[0].sharp.stem == "1P0A0001"


def test_the_repack_s_names_must_agree(tmp_path):
    write_dpdd(tmp_path, repack=True)
    target = find_scenes(tmp_path)[0].sharp
    target.rename(target.with_name("1P0A0900.png"))
    with pytest.raises(ValueError, match=r"0917\.png, 1P0A0917\.png and 1P0A0900\.png"):
        find_scenes(tmp_path)


def test_other_folders_and_unusable_pictures_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no DPDD; expected train_l/source.*inputL"):
        find_scenes(tmp_path / "elsewhere")
    scene = find_scenes(folder)[0]
    assert cv2.imwrite(str(scene.sharp), np.zeros((96, 100, 3), np.uint16))
    with pytest.raises(ValueError, match=r"0917_L.png 128 x 96, .*0918.png 100 x 96"):
        read_scene(scene)
    scene.left.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"0917_L\.png: missing, or not a readable picture"):
        read_scene(scene)


def test_a_photo_of_the_data_set_has_28_patches_of_512():
    places = patch_places((1120, 1680), 512)
    assert len(places) == 28
    assert sorted({top for top, _ in places}) == [0, 204, 408, 608]
    assert sorted({left for _, left in places}) == [0, 204, 408, 612, 816, 1020, 1168]
    assert patch_places((64, 64), 64) == [(0, 0)]
    with pytest.raises(ValueError, match="100 x 50 is smaller than a patch of 64"):
        patch_places((50, 100), 64)


def naive_sharpness(patch):
    """Sobel kernels from their definition, correlated in loops, borders mirrored."""
    grey = patch.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    product = np.ones_like(grey)
    for kernel in (3, 7, 11, 15):
        smooth, slope = np.ones(1), np.array([-1.0, 0, 1])
        for _ in range(kernel - 1):
            smooth = np.convolve(smooth, [1, 1])
        for _ in range(kernel - 3):
            slope = np.convolve(slope, [1, 1])
        reach = kernel // 2
        padded = np.pad(grey, reach, mode="reflect")
        magnitude = np.zeros_like(grey)
        for y in range(grey.shape[0]):
            for x in range(grey.shape[1]):
                window = padded[y : y + kernel, x : x + kernel]
                magnitude[y, x] = np.hypot(smooth @ window @ slope, slope @ window @ smooth)
        product *= (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min())
    return product.sum()


def test_sharpness_is_the_naive_product_of_sobel_magnitudes():
    patch = made_scene(0, 24, 32)[2]
    # cv2 rounds the grey value to 16 bit.
    assert sharpness(patch) == pytest.approx(naive_sharpness(patch), rel=1e-3)
    assert sharpness(np.full((24, 24, 3), 9, np.uint16)) == 0


def test_the_least_sharp_patches_are_dropped():
    sharp = made_scene(0, 64, 160)[2].copy()
    sharp[:, 64:128] = 30000
    # Patches of 64 px begin at 0, 25, 50, 75 and 96; those with the most even ground go.
    assert patch_places((64, 160), 64) == [(0, x) for x in (0, 25, 50, 75, 96)]
    assert sharpest_patches(sharp, 64, 0) == patch_places((64, 160), 64)
    kept = sharpest_patches(sharp, 64, 4)
    assert kept == [(0, 0)]
    with pytest.raises(ValueError, match=r"5 patches, of which 5 would be dropped"):
        sharpest_patches(sharp, 64, 5)


def test_preparing_is_done_once_and_again_after_a_change(folder, tmp_path):
    estimator = LeftToRight()
    first = prepared(folder, tmp_path, estimator)
    assert estimator.asked == 3
    assert [len(scene.patches) for scene in first] == [4, 4, 4]
    assert prepared(folder, tmp_path, estimator) == first
    assert estimator.asked == 3
    # Other patches need no other maps; another estimator does, and one changed photo alone.
    more = prepared(folder, tmp_path, estimator, drop=7)
    assert [len(scene.patches) for scene in more] == [5, 5, 5]
    assert estimator.asked == 3
    prepared(folder, tmp_path, estimator, "b")
    assert estimator.asked == 6
    changed = find_scenes(folder)[0].left
    assert cv2.imwrite(str(changed), np.zeros((96, 128, 3), np.uint16))
    again = prepared(folder, tmp_path, estimator)
    assert estimator.asked == 7
    assert not np.load(again[0].pixels)[..., :3].any()
    assert again[1:] == first[1:]
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_the_soft_plane_is_kept_where_it_is_read_and_goes_along_with_the_amount(folder, tmp_path):
    estimator = LeftToRight()
    one = prepared(folder, tmp_path, estimator)
    two = prepared(folder, tmp_path, estimator, planes=("amount", "soft"))
    assert estimator.asked == 6
    assert np.load(one[0].blur).shape == (1, 96, 128)
    # A network without the soft plane reads the same amounts; no digit of the other one is lost.
    amount, soft = np.load(two[0].blur)
    np.testing.assert_array_equal(amount, np.load(one[0].blur)[0])
    np.testing.assert_array_equal(
        soft, estimator.estimate(ViewPair(*np.zeros((2, 96, 128, 3), np.uint8))).soft
    )
    crops = DpddCrops(two, patch_px=64, crop_px=32, seed=(1,))
    mirrored = set()
    for position in range(20):
        _, blur, _ = crops[position]
        assert blur.shape == (2, 32, 32)
        torch.testing.assert_close(blur[1], 0.5 + 0.01 * blur[0], rtol=0, atol=1e-6)
        mirrored.add(bool(blur[1, 0, 0] > blur[1, 0, -1]))
    assert mirrored == {False, True}


def test_an_interrupted_estimate_is_made_again(folder, tmp_path):
    class Fails:
        def estimate(self, views):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(folder, tmp_path, Fails())
    assert prepared(folder, tmp_path) == prepared(folder, tmp_path)


def test_scenes_with_too_few_patches_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"0917_L\.png: 12 patches, of which 12"):
        prepared(folder, tmp_path, drop=12)


def test_a_crop_is_cut_out_of_a_patch_and_its_map_goes_along(folder, tmp_path):
    scenes = prepared(folder, tmp_path)
    crops = DpddCrops(scenes, patch_px=64, crop_px=32, seed=(1,))
    pictures = [np.load(scene.pixels) / np.float32(65535) for scene in scenes]
    flips = set()
    for position in range(40):
        views, amount, sharp = (x.numpy() for x in crops[position])
        assert views.shape == (6, 32, 32)
        assert amount.shape == (1, 32, 32)
        assert sharp.shape == (3, 32, 32)
        crop = np.concatenate([views, sharp]).transpose(1, 2, 0)
        mirrored = amount[0, 0, 0] > amount[0, 0, -1]
        if mirrored:
            crop = crop[:, ::-1, [3, 4, 5, 0, 1, 2, 6, 7, 8]]
        left_edge = round(float(amount.min()) * 127)
        found = [
            (scene, y, left_edge, down)
            for scene, picture in enumerate(pictures)
            for y in range(96 - 32 + 1)
            for down in (False, True)
            if np.array_equal(
                picture[y : y + 32, left_edge : left_edge + 32], crop[::-1] if down else crop
            )
        ]
        assert len(found) == 1
        scene, y, x, down = found[0]
        inside = [
            top <= y <= top + 32 and left <= x <= left + 32 for top, left in scenes[scene].patches
        ]
        assert any(inside)
        flips.add((mirrored, down))
    assert len(flips) == 4


def test_a_position_gives_the_same_crop_at_any_time_and_a_round_has_every_patch(folder, tmp_path):
    scenes = [replace(scene, patches=scene.patches[:2]) for scene in prepared(folder, tmp_path)]
    crops = DpddCrops(scenes, patch_px=64, crop_px=64, seed=(1, 0))
    once = [crops[position] for position in range(18)]
    other = DpddCrops(scenes, patch_px=64, crop_px=64, seed=(1, 0))
    for position in (17, 3, 11, 0):
        for x, y in zip(once[position], other[position], strict=True):
            assert torch.equal(x, y)
    # A whole patch is known by the sum of its pixels, however it is flipped.
    sums = [round(float(sharp.double().sum()), 3) for _, _, sharp in once]
    rounds = [sums[first : first + 6] for first in (0, 6, 12)]
    assert all(len(set(row)) == 6 and set(row) == set(rounds[0]) for row in rounds)
    assert not rounds[0] == rounds[1] == rounds[2]
    third = DpddCrops(scenes, patch_px=64, crop_px=64, seed=(1, 1))
    assert [round(float(third[p][2].double().sum()), 3) for p in range(18)] != sums
