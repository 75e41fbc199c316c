from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dpbatch.cli.main import main
from dpbatch.errors import SettingsError
from dpbatch.raw.container import probe
from dpbatch.raw.develop import develop
from dpbatch.raw.reader import open_dual
from dpbatch.settings import RawSettings
from ldp.srgb import decode_srgb, encode_srgb
from training.simulator.cr2.layout import CameraTags
from training.simulator.optics import view_disparity_px
from training.simulator.sensor import (
    EOS_5D_MARK_IV_FIELD,
    DepthScale,
    Lens,
    Sensor,
    photograph,
    photograph_ordinary,
    photograph_scene,
    sensor_at,
    slice_edges,
)

COLOURS = ((0.18, 0.18, 0.18), (0.4, 0.1, 0.08), (0.05, 0.2, 0.35), (0.5, 0.45, 0.1))


def patches(height: int = 192, width: int = 384) -> np.ndarray:
    picture = np.empty((height, width, 3), np.float32)
    for index, colour in enumerate(COLOURS):
        picture[:, index * width // 4 : (index + 1) * width // 4] = colour
    return picture


def test_a_developed_photo_has_the_colours_that_were_photographed(tmp_path: Path) -> None:
    scene = patches()
    path = tmp_path / "a.CR2"
    photograph(path, scene, scene, Sensor(shading=0.2), seed=0, noise=False)
    with open_dual(path) as dual:
        views = develop(dual, RawSettings())
    truth = encode_srgb(scene.copy())
    for view in (views.left, views.right):
        for index in range(4):
            middle = slice(index * 96 + 24, index * 96 + 72)
            found = np.median(view[48:144, middle], (0, 1))
            np.testing.assert_allclose(found, truth[96, middle.start], atol=0.006)


def test_noise_is_drawn_for_each_photodiode_and_repeats_with_the_seed(tmp_path: Path) -> None:
    scene = np.full((128, 256, 3), 0.2, np.float32)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        photograph(tmp_path / name, scene, scene, Sensor(shading=0), seed)
    files = [(tmp_path / name).read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    (tmp_path / "a").rename(tmp_path / "a.CR2")
    with open_dual(tmp_path / "a.CR2") as dual:
        inside = (slice(60, 180), slice(160, 400))
        first = dual.pair.photodiode[inside].astype(float)
        second = dual.pair.composite[inside] - first
    green = (slice(0, None, 2), slice(1, None, 2))
    assert first[green].std() > 10
    assert abs(np.corrcoef(first[green].ravel(), second[green].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("dual", [True, False])
def test_the_probe_tells_dual_from_ordinary(tmp_path: Path, dual: bool) -> None:
    scene = patches()
    path = tmp_path / "a.CR2"
    if dual:
        photograph(path, scene, scene, Sensor(), seed=0)
    else:
        photograph_ordinary(path, scene, Sensor())
    assert probe(path).is_dual_pixel is dual


SCALE = DepthScale(near_m=1.0, far_m=3.0)
LENS = Lens(focal_length_mm=50, f_number=2.0, focus_m=1.5, pixel_pitch_um=100)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """Noise, 8 bit, whose left half lies at 1 m and whose right half at 3 m."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (128, 256, 3)).astype(np.uint8), (0, 0), 1)
    depth = np.zeros((64, 128), np.uint16)
    depth[:, 64:] = 65535
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    cv2.imwrite(str(tmp_path / "depth.png"), depth)
    return tmp_path / "picture.png", tmp_path / "depth.png"


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
    out = tmp_path / "new" / "a.CR2"
    pair = photograph_scene(out, *scene, SCALE, LENS, iso=100, seed=0)
    # c(z) = (z_f - z) / z * F^2 / (N (z_f - F)) / 2 on the sensor, in pixels of 0.1 mm
    factor = 0.05**2 / (2 * (1.5 - 0.05)) / 2 / 100e-6
    assert pair.coc_px[64, 20] == pytest.approx(0.5 / 1 * factor, rel=1e-4)
    assert pair.coc_px[64, 230] == pytest.approx(-1.5 / 3 * factor, rel=1e-4)
    with open_dual(out) as dual:
        views = develop(dual, RawSettings())
    assert views.size == (128, 256)
    near, far = (slice(None), slice(8, 112)), (slice(None), slice(144, 248))
    for side in (near, far):
        measured = disparity_px(views.left[side].mean(2), views.right[side].mean(2))
        assert measured == pytest.approx(float(np.median(pair.disparity_px[side])), abs=0.35)


def test_a_flat_scene_in_focus_stays_as_it_is(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    sharp_lens = replace(LENS, f_number=1e6)
    pair = photograph_scene(tmp_path / "a.CR2", *scene, SCALE, sharp_lens, iso=100, seed=0)
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
    pair = photograph_scene(out, *wall, DepthScale(1.0, 3.0), LENS, iso=100, seed=0)
    np.testing.assert_allclose(pair.left, pair.right, atol=1e-5)
    with open_dual(out) as dual:
        top, left, height, width = dual.pair.active
        inside = (slice(top, top + height), slice(left, left + width))
        first = dual.pair.photodiode[inside].astype(np.float32) - 512
        both = dual.pair.composite[inside].astype(np.float32) - 512
        views = develop(dual, RawSettings())
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
    light = [decode_srgb(np.float32(view) / 65535) for view in (views.left, views.right)]
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
    pair = photograph_scene(
        tmp_path / "a.CR2", *scene, DepthScale(unit_m=0.001), LENS, iso=100, seed=0
    )
    assert np.abs(pair.coc_px).max() < 0.01


def test_a_portrait_lies_on_its_side_on_the_sensor(
    tmp_path: Path, scene: tuple[Path, Path]
) -> None:
    for path in scene:
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert stored is not None
        cv2.imwrite(str(path), np.rot90(stored, -1))
    out = tmp_path / "a.CR2"
    pair = photograph_scene(out, *scene, SCALE, LENS, iso=100, seed=0)
    assert pair.left.shape == (128, 256, 3)
    with open_dual(out) as dual:
        assert develop(dual, RawSettings()).orientation == 6
    upright = np.rot90(pair.sharp, -1)
    assert np.abs(upright - linear(scene[0])).mean() < 0.03
    assert np.abs(upright[::-1] - linear(scene[0])).mean() > 0.05


def test_noise_grows_with_the_iso() -> None:
    low, high = (sensor_at(iso, CameraTags()) for iso in (100, 3200))
    assert high.electrons_per_dn == pytest.approx(low.electrons_per_dn / 32)
    assert high.read_noise_dn > 5 * low.read_noise_dn


def test_slices_are_cut_where_little_lies() -> None:
    coc = np.concatenate([np.full(500, -4.0), np.linspace(-1.2, -1, 20), np.full(500, 2.0)])
    edges = slice_edges(coc.astype(np.float32).reshape(20, 51))
    assert len(edges) == 2
    assert all(-3.9 < edge < 1.9 and not -1.2 <= edge <= -1 for edge in edges)
    assert slice_edges(np.zeros((4, 4), np.float32)) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None), "either --near-m with --far-m"),
        ((1.0, None, None), "either --near-m with --far-m"),
        ((1.0, None, 0.1), "either --near-m with --far-m"),
        ((1.0, 2.0, 0.1), "either --near-m with --far-m"),
        ((0.0, 2.0, None), "a depth of 0.0 m"),
    ],
)
def test_a_depth_scale_is_said_in_one_way(given: tuple[float | None, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
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
    with pytest.raises(SettingsError, match=message):
        photograph_scene(tmp_path / "a.CR2", *scene, SCALE, lens, iso=100, seed=0)
    assert not (tmp_path / "a.CR2").exists()


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
    with pytest.raises(SettingsError, match=message):
        photograph_scene(tmp_path / "a.CR2", *scene, SCALE, LENS, iso=100, seed=0)


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_the_command_writes_a_dual_pixel_raw(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    out = tmp_path / "a.CR2"
    options = ("--near-m", 1, "--far-m", 3, "--f-number", 4, "--iso", 800, "--out", out)
    result = simulate(*scene, *options)
    assert result.exit_code == 0, result.output
    assert "256x128, circle of confusion" in result.output
    assert probe(out).is_dual_pixel
    again = simulate(*scene, *options)
    assert again.exit_code == 2
    assert "replace it with --overwrite" in again.output
    assert simulate(*scene, *options, "--overwrite").exit_code == 0


def test_the_command_wants_a_cr2(tmp_path: Path, scene: tuple[Path, Path]) -> None:
    result = simulate(*scene, "--depth-scale", 0.001, "--out", tmp_path / "a.tif")
    assert result.exit_code == 2
    assert "ends in .CR2" in result.output


def test_a_place_that_cannot_be_written_ends_with_a_message(
    tmp_path: Path, scene: tuple[Path, Path]
) -> None:
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "file" / "a.CR2"
    result = simulate(*scene, "--near-m", 1, "--far-m", 3, "--f-number", 8, "--out", out)
    assert result.exit_code == 3
    assert "could not be written" in result.output
