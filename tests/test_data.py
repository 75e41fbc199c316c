import cv2
import numpy as np
import pytest
import torch

from ldp.blur.disparity import DisparityEstimator
from training import data
from training.data import (
    SceneSettings,
    SyntheticCrops,
    add_camera,
    blur_amount,
    draw_blur_map,
    draw_crop,
    draw_kernel_shape,
    draw_scene,
    mirrored,
    read_photos,
    stored,
)

SETTINGS = SceneSettings(side_px=64, radius_px=6.0)


def photo(seed=0, height=120, width=160):
    noise = np.random.default_rng(seed).random((height // 8, width // 8, 3)).astype(np.float32)
    return (cv2.resize(noise, (width, height)) * 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for index, name in enumerate(("b.png", "a.PNG", "below/c.jpg")):
        assert cv2.imwrite(str(folder / name), photo(index)[..., ::-1])
    return folder


def scene(seed):
    return draw_scene(np.random.default_rng(seed), [photo(seed)], SETTINGS)


def in_pool(seed):
    return stored(np.random.default_rng(seed), scene(seed))


def test_photos_are_read_from_the_whole_folder_as_rgb(photos):
    found = read_photos(photos)
    assert len(found) == 3
    np.testing.assert_array_equal(found[0], photo(1))


def test_a_folder_without_photos_and_an_unreadable_photo_are_errors(photos, tmp_path):
    with pytest.raises(ValueError, match=r"absent: no photographs; expected .*\.jpg"):
        read_photos(tmp_path / "absent")
    (photos / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken.jpg: not a readable picture"):
        read_photos(photos)


@pytest.mark.parametrize("seed", range(12))
def test_scenes_keep_to_their_ranges(seed):
    drawn = scene(seed)
    assert drawn.left.shape == drawn.right.shape == drawn.sharp.shape == (64, 64, 3)
    for plane in (drawn.left, drawn.right, drawn.sharp):
        assert -1e-4 <= plane.min() <= plane.max() <= 1 + 1e-4
    assert np.abs(drawn.coc_px).max() <= SETTINGS.radius_px
    # The disparity has the blur's sign and is smaller than it.
    assert np.all(drawn.disparity_px * drawn.coc_px >= 0)
    assert np.all(np.abs(drawn.disparity_px) <= np.abs(drawn.coc_px) * 1.1)


def test_scenes_go_to_both_sides_of_focus_and_some_are_sharp():
    drawn = [scene(seed).coc_px for seed in range(60)]
    assert min(coc.min() for coc in drawn) < -2
    assert max(coc.max() for coc in drawn) > 2
    assert any(np.abs(coc).max() <= 0.4 for coc in drawn)
    assert any(coc.min() < -1 and coc.max() > 1 for coc in drawn)


def test_a_mirrored_scene_swaps_its_views_and_keeps_its_disparity():
    drawn = in_pool(3)
    left, right, sharp, disparity_px, amount = mirrored(drawn)
    np.testing.assert_array_equal(left, drawn[1][:, ::-1])
    np.testing.assert_array_equal(right, drawn[0][:, ::-1])
    np.testing.assert_array_equal(sharp, drawn[2][:, ::-1])
    np.testing.assert_array_equal(disparity_px, drawn[3][:, ::-1])
    np.testing.assert_array_equal(amount, drawn[4][:, ::-1])


def test_every_flip_of_a_crop_is_a_dual_pixel_pair(monkeypatch):
    """The left view's ramp is brighter at the right: in every crop, flipped or not, that holds."""
    monkeypatch.setattr(data, "add_camera", lambda rng, *views: views)
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float16)[None, :, None], (32, 1, 3))
    ramp[16:] *= np.float16(0.5)
    plane = np.full((32, 32), 0.5, np.float16)
    planes = (ramp, ramp[:, ::-1], np.ones_like(ramp), 4 * plane, plane)
    upper, lower = 0, 0
    for seed in range(16):
        views, _, _ = draw_crop(np.random.default_rng(seed), planes, 32)
        left, right = views[:3], views[3:]
        assert torch.all(left[:, :, -1] > left[:, :, 0])
        torch.testing.assert_close(right, left.flip(2))
        upper += bool(left[0, 0, -1] > left[0, -1, -1])
        lower += bool(left[0, 0, -1] < left[0, -1, -1])
    assert upper + lower == 16
    assert upper >= 3
    assert lower >= 3


def test_crops_have_the_networks_layout_and_range():
    views, amount, sharp = draw_crop(np.random.default_rng(0), in_pool(0), 48)
    assert [tuple(x.shape) for x in (views, amount, sharp)] == [
        (6, 48, 48),
        (1, 48, 48),
        (3, 48, 48),
    ]
    assert {x.dtype for x in (views, amount, sharp)} == {torch.float32}
    for plane in (views, amount, sharp):
        assert 0 <= plane.min() <= plane.max() <= 1
    # The views show the sharp picture, if less sharply.
    mean = (views[:3] + views[3:]) / 2
    assert np.corrcoef(mean.ravel(), sharp.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("seed", range(8))
def test_blur_maps_are_in_range_and_follow_the_blur(seed):
    rng = np.random.default_rng(seed)
    disparity_px = np.tile(np.linspace(-8, 8, 64, dtype=np.float32), (64, 1))
    amount = draw_blur_map(rng, disparity_px)
    assert amount.dtype == np.float32
    assert 0 <= amount.min() <= amount.max() <= 1
    assert amount[:, [0, -1]].mean() > amount[:, 28:36].mean() + 0.2


def test_blur_amount_is_the_estimators():
    scale_px = DisparityEstimator().disparity_scale_px
    found = blur_amount(np.array([0, scale_px, -scale_px], np.float32))
    np.testing.assert_allclose(found, [0, 1 - np.exp(-1), 1 - np.exp(-1)], rtol=1e-6)


def test_noise_is_each_photodiodes_own_and_the_truth_has_none():
    grey = np.full((64, 64, 3), 0.2, np.float32)
    noisy = 0
    for seed in range(20):
        left, right, sharp = add_camera(np.random.default_rng(seed), grey, grey, grey)
        assert np.ptp(sharp) < 1e-6
        noise = [view - cv2.GaussianBlur(view, (0, 0), 3) for view in (left, right)]
        if min(part.std() for part in noise) > 0.003:
            noisy += 1
            assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2
    assert noisy >= 4


def test_kernels_stay_within_their_family():
    rng = np.random.default_rng(0)
    shapes = [draw_kernel_shape(rng) for _ in range(200)]
    assert 0.25 <= min(s.ramp for s in shapes) < 0.4
    assert 1.7 < max(s.ramp for s in shapes) <= 1.9
    assert min(s.rim for s in shapes) < 0 < max(s.rim for s in shapes)


def test_the_same_seed_gives_the_same_crops_and_another_others(photos, monkeypatch):
    monkeypatch.setattr(data, "POOL_START", 2)
    monkeypatch.setattr(data, "POOL_BYTES", 3 * 64 * 64 * 20)

    def crops(seed):
        stream = iter(SyntheticCrops(photos, 32, seed, SETTINGS))
        return torch.stack([next(stream)[0] for _ in range(30)])

    first = crops(1)
    assert torch.equal(first, crops(1))
    assert not torch.equal(first, crops(2))
    assert first.std(0).mean() > 0.05


def test_the_estimators_map_of_a_scene_follows_its_blur():
    pair = draw_scene(np.random.default_rng(4), [photo(4, 400, 400)], SceneSettings(side_px=160))
    amount = data.estimated_blur_map(np.random.default_rng(0), pair)
    truth = data.blur_amount(pair.disparity_px)
    assert amount.shape == truth.shape
    assert np.median(np.abs(amount - truth)) < 0.1
