from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dpbatch.raw.develop import develop
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from ldp.srgb import decode_srgb
from tests.helpers.scenes import write_depth_scene
from training.errors import DataError, OpticsError
from training.simulator.exposure import DepthScale, Lens, expose_scene
from training.simulator.optics import EOS_5D_MARK_IV_FIELD, view_disparity_px
from training.simulator.render import RenderedPair
from training.simulator.sensor import write_dual_pixel_raw

SCALE = DepthScale(near_m=1.0, far_m=3.0)
LENS = Lens(focal_length_mm=50, f_number=2.0, focus_m=1.5, pixel_pitch_um=100)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    return write_depth_scene(tmp_path)


def write(out: Path, picture: Path, depth: Path, scale: DepthScale) -> RenderedPair:
    exposure = expose_scene(picture, depth, scale, LENS, iso=100)
    write_dual_pixel_raw(out, exposure.left, exposure.right, exposure.sensor, seed=0)
    return exposure.pair


def linear(path: Path) -> np.ndarray:
    stored = cv2.imread(str(path))
    assert stored is not None
    return decode_srgb(stored[..., ::-1].astype(np.float32) / np.float32(255))


def disparity_px(left: np.ndarray, right: np.ndarray) -> float:
    """x_left - x_right that brings two strips closest, by a parabola through the best three."""
    shifts = np.arange(-6, 7)
    errors = [np.mean((np.roll(right, s, 1) - left)[:, 8:-8] ** 2) for s in shifts]
    best = int(np.argmin(errors))
    before, at, after = errors[best - 1 : best + 2]
    return float(shifts[best] + (before - after) / 2 / (before - 2 * at + after))


def test_near_and_far_are_put_out_of_focus_by_a_thin_lens(
    tmp_path: Path, scene: tuple[Path, Path]
) -> None:
    out = tmp_path / "a.CR2"
    pair = write(out, *scene, SCALE)
    # c(z) = (z_f - z) / z * F^2 / (N (z_f - F)) / 2 on the sensor, in pixels of 0.1 mm
    factor = 0.05**2 / (2 * (1.5 - 0.05)) / 2 / 100e-6
    assert pair.coc_px[64, 20] == pytest.approx(0.5 / 1 * factor, rel=1e-4)
    assert pair.coc_px[64, 230] == pytest.approx(-1.5 / 3 * factor, rel=1e-4)
    views = develop(read_dual(out), RawSettings())
    assert views.size == (128, 256)
    near, far = (slice(None), slice(8, 112)), (slice(None), slice(144, 248))
    for side in (near, far):
        measured = disparity_px(views.left[side][..., 1], views.right[side][..., 1])
        assert measured == pytest.approx(float(np.median(pair.disparity_px[side])), abs=0.35)


def test_a_flat_scene_in_focus_stays_as_it_is(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    sharp_lens = replace(LENS, f_number=1e6)
    pair = expose_scene(*scene, SCALE, sharp_lens, iso=100).pair
    assert np.abs(pair.disparity_px).max() < 0.01
    np.testing.assert_allclose(pair.left, pair.sharp, atol=1e-3)
    np.testing.assert_allclose(pair.left, pair.right, atol=1e-4)
    assert np.abs(pair.sharp - linear(scene[0])).mean() < 0.02


def test_before_correction_each_view_is_dark_at_its_side(tmp_path: Path) -> None:
    """A grey wall, out of focus: in the file the views differ and light falls off to the corners;
    developing evens out the one and leaves the other, as it is the lens's."""
    cv2.imwrite(str(tmp_path / "picture.png"), np.full((128, 256, 3), 180, np.uint8))
    cv2.imwrite(str(tmp_path / "depth.png"), np.zeros((128, 256), np.uint8))
    wall = tmp_path / "picture.png", tmp_path / "depth.png"
    out = tmp_path / "a.CR2"
    pair = write(out, *wall, DepthScale(1.0, 3.0))
    np.testing.assert_allclose(pair.left, pair.right, atol=1e-5)
    raw = read_dual(out)
    height, width = raw.composite.shape
    first = raw.photodiode.astype(np.float32) - 512
    both = raw.composite.astype(np.float32) - 512
    views = develop(raw, RawSettings())
    middle = slice(height // 2 - 16, height // 2 + 16)
    share = first[middle].reshape(32, 16, -1).sum((0, 2)) / both[middle].reshape(32, 16, -1).sum(
        (0, 2)
    )
    share = share if share[0] > share[-1] else 1 - share
    assert np.all(np.diff(share) < 0.003)
    # A quarter stop up and down, and as much on either side.
    assert share[0] / 0.5 == pytest.approx(2**0.25, rel=0.05)
    assert share[-1] / 0.5 == pytest.approx(2**-0.25, rel=0.05)
    corner, centre = both[:16, :16].mean(), both[middle, width // 2 - 16 : width // 2 + 16].mean()
    assert 0.55 < corner / centre < 0.75
    light = [
        decode_srgb(view.astype(np.float32) / np.float32(65535))
        for view in (views.left, views.right)
    ]
    for place in (np.s_[48:80, 4:20], np.s_[48:80, -20:-4]):
        one, other = (picture[place].mean() for picture in light)
        assert one == pytest.approx(other, rel=0.015)


def test_the_default_lens_loses_the_disparity_that_was_measured_at_the_side() -> None:
    found = [view_disparity_px(6.0, EOS_5D_MARK_IV_FIELD.shape_at(x, 0)) for x in (0, 0.6, 1)]
    assert found[0] / 6 == pytest.approx(0.64, abs=0.02)
    assert found[1] / found[0] == pytest.approx(1 - 0.35 * 0.6**1.5, abs=0.06)
    assert found[2] / found[0] == pytest.approx(1 - 0.35, abs=0.02)


def test_depth_scales() -> None:
    grey = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(DepthScale(1, 6).metres(grey), [[1, 2, 6]], rtol=1e-6)
    np.testing.assert_allclose(DepthScale(6, 1).metres(grey), [[6, 5, 1]], rtol=1e-6)
    np.testing.assert_allclose(
        DepthScale(unit_m=0.001).metres(np.array([[0, 1500]], np.uint16)), [[np.nan, 1.5]]
    )


def test_an_unknown_depth_is_taken_from_around(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    depth = np.full((128, 256), 1500, np.uint16)
    depth[40:60, 100:140] = 0
    cv2.imwrite(str(scene[1]), depth)
    pair = expose_scene(*scene, DepthScale(unit_m=0.001), LENS, iso=100).pair
    assert np.abs(pair.coc_px).max() < 0.01


def test_a_portrait_lies_on_its_side_on_the_sensor(
    tmp_path: Path, scene: tuple[Path, Path]
) -> None:
    for path in scene:
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert stored is not None
        cv2.imwrite(str(path), np.rot90(stored, -1))
    out = tmp_path / "a.CR2"
    pair = write(out, *scene, SCALE)
    assert pair.left.shape == (128, 256, 3)
    assert develop(read_dual(out), RawSettings()).orientation == 6
    upright = np.rot90(pair.sharp, -1)
    assert np.abs(upright - linear(scene[0])).mean() < 0.03
    assert np.abs(upright[::-1] - linear(scene[0])).mean() > 0.05


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None), "either near_m with far_m"),
        ((1.0, None, None), "either near_m with far_m"),
        ((1.0, None, 0.1), "either near_m with far_m"),
        ((1.0, 2.0, 0.1), "either near_m with far_m"),
        ((0.0, 2.0, None), "a depth of 0.0 m"),
    ],
)
def test_a_depth_scale_is_said_in_one_way(given: tuple[float | None, ...], message: str) -> None:
    with pytest.raises(OpticsError, match=message):
        DepthScale(*given)


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        (replace(LENS, focus_m=0.05), "cannot focus at 0.05 m"),
        (replace(LENS, f_number=0), "expected more than 0"),
        (replace(LENS, pixel_pitch_um=0), "expected more than 0"),
        (replace(LENS, pixel_pitch_um=1), "at 1 m a point would become a disk of radius"),
    ],
)
def test_impossible_optics_are_refused(
    tmp_path: Path, scene: tuple[Path, Path], lens: Lens, message: str
) -> None:
    with pytest.raises(OpticsError, match=message):
        expose_scene(*scene, SCALE, lens, iso=100)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((128, 256, 3), "in colour, expected a grey depth map"),
        ((128, 128), "is 128x128, .*picture.png 256x128: expected the same shape"),
        (None, "depth.png: missing, or not a readable picture"),
    ],
)
def test_an_unfitting_depth_map_is_refused(
    tmp_path: Path, scene: tuple[Path, Path], shape: tuple[int, ...] | None, message: str
) -> None:
    scene[1].unlink()
    if shape:
        rng = np.random.default_rng(0)
        cv2.imwrite(str(scene[1]), rng.integers(0, 256, shape).astype(np.uint8))
    with pytest.raises(DataError, match=message):
        expose_scene(*scene, SCALE, LENS, iso=100)
