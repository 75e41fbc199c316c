import cv2
import numpy as np
import pytest

from training.simulator import scenes
from training.simulator.optics import KernelShape
from training.simulator.scenes import SceneSettings, read_photos, sample_kernel_shape, sample_scene

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
    return sample_scene(np.random.default_rng(seed), [photo(seed)], SETTINGS)


def test_photos_are_read_from_the_whole_folder_as_rgb(photos):
    found = read_photos(photos)
    assert len(found) == 3
    np.testing.assert_array_equal(found[0], photo(1))


def test_a_folder_without_photos_and_an_unreadable_photo_are_errors(photos, tmp_path):
    with pytest.raises(ValueError, match=r"absent: no photos; expected .*\.jpg"):
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
    assert np.all(drawn.disparity_px * drawn.coc_px >= -1e-6)
    assert np.all(np.abs(drawn.disparity_px) <= np.abs(drawn.coc_px) * 1.1)


def test_scenes_go_to_both_sides_of_focus_and_some_are_sharp():
    drawn = [scene(seed).coc_px for seed in range(60)]
    assert min(coc.min() for coc in drawn) < -2
    assert max(coc.max() for coc in drawn) > 2
    assert any(np.abs(coc).max() <= 0.4 for coc in drawn)
    assert any(coc.min() < -1 and coc.max() > 1 for coc in drawn)


def test_kernels_stay_within_their_family():
    rng = np.random.default_rng(0)
    shapes = [sample_kernel_shape(rng) for _ in range(400)]
    on_axis = [s for s in shapes if s.clip_x == s.clip_y == s.shading == 0]
    assert 0.4 < len(on_axis) / len(shapes) < 0.6
    assert 0.25 <= min(s.ramp for s in on_axis) < 0.4
    assert 1.7 < max(s.ramp for s in on_axis) <= 1.9
    assert min(s.rim for s in shapes) < 0 < max(s.rim for s in shapes)
    # Off the axis: cat's eyes turned every way, up to half the radius, and views of unequal light.
    others = [s for s in shapes if s.shading]
    assert min(s.ramp for s in others) < 0.25
    assert 0.25 < max(np.hypot(s.clip_x, s.clip_y) for s in others) <= 0.5
    for side_x, side_y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        assert any(side_x * s.clip_x > 0 and side_y * s.clip_y > 0 for s in others)
    assert min(s.shading for s in others) < -0.4 < 0.4 < max(s.shading for s in others)


def test_a_fixed_kernel_is_the_plainest_one_in_every_scene(monkeypatch):
    seen = []
    monkeypatch.setattr(scenes, "render", lambda surfaces, lens: seen.append(lens))
    for fixed in (True, False):
        settings = SceneSettings(side_px=32, fixed_kernel=fixed)
        for seed in range(6):
            sample_scene(np.random.default_rng(seed), [photo(0, 100, 100)], settings)
    assert seen[:6] == [KernelShape()] * 6
    assert KernelShape() not in seen[6:]


def write_depth(folder, nearness):
    picture = photo(3, *nearness.shape)
    assert cv2.imwrite(str(folder / "d.png"), picture[..., ::-1])
    assert cv2.imwrite(str(folder / "d.depth.png"), nearness)
    return picture


def test_a_photo_with_a_depth_map_beside_it_has_it_as_its_fourth_plane(photos):
    nearness = np.full((90, 120), 65535, np.uint16)
    nearness[:, :60] = 0x4000
    picture = write_depth(photos, nearness)
    found = read_photos(photos)
    assert [planes.shape[2] for planes in found] == [3, 3, 3, 4]
    np.testing.assert_array_equal(found[3][..., :3], picture)
    np.testing.assert_array_equal(found[3][0, [0, 59, 60, 119], 3], [64, 64, 255, 255])
    # Maps are often smaller than their photo, and of 8 bits.
    assert cv2.imwrite(str(photos / "d.depth.png"), (nearness[::3, ::3] >> 8).astype(np.uint8))
    np.testing.assert_array_equal(read_photos(photos)[3], found[3])
    assert cv2.imwrite(str(photos / "d.depth.png"), picture)
    with pytest.raises(ValueError, match=r"d\.depth\.png: in colour, expected a grey depth map"):
        read_photos(photos)


def test_a_given_depth_is_the_scenes():
    """A near half before a far one: the disparity steps where the depth does, and nowhere else."""
    nearness = np.zeros((400, 400), np.uint8)
    nearness[:, 200:] = 255
    planes = np.dstack([photo(0, 400, 400), nearness])
    settings = SceneSettings(side_px=128, radius_px=8, in_focus_share=0, fixed_kernel=True)
    steps = 0
    for seed in range(12):
        drawn = sample_scene(np.random.default_rng(seed), [planes], settings)
        assert np.abs(drawn.coc_px).max() <= 8 + 1e-3
        edges = np.abs(np.diff(drawn.coc_px, axis=1))
        assert np.abs(np.diff(drawn.coc_px, axis=0)).max() < 1e-3
        if np.ptp(drawn.coc_px) < 4:
            continue
        steps += 1
        (columns,) = np.nonzero(edges[64] > 0.5)
        assert 1 <= len(columns) <= 3
        assert np.all(np.diff(columns) == 1)
    assert steps >= 4


def test_scenes_with_given_depth_come_as_often_as_such_photos(monkeypatch):
    seen: list[int] = []

    def depth_surfaces(*_):
        seen.append(1)
        return []

    monkeypatch.setattr(scenes, "depth_surfaces", depth_surfaces)
    monkeypatch.setattr(scenes, "render", lambda surfaces, lens: surfaces)
    plain = photo(0, 80, 80)
    photos = [plain, np.dstack([plain, plain[..., 0]]), plain]
    for seed in range(150):
        sample_scene(np.random.default_rng(seed), photos, SceneSettings(side_px=16))
    assert 30 < len(seen) < 70
