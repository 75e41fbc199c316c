"""The ray-traced test set: its optics by hand, and by tiny scenes of flat cards."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from ldp.srgb import decode_srgb
from training.evaluation.raytraced import main, make_set
from training.evaluation.raytraced_layout import RAMP_SLOPES, Layout, sample_layouts
from training.evaluation.raytracer import (
    Rendered,
    ThinLens,
    aperture_positions,
    left_weights,
    load_mitsuba,
    render_scene,
)
from training.evaluation.scenes import real_scenes
from training.pictures import read_rgb

BLACK = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}}
LENS = ThinLens(64, 48, focal_px=90.0, focus_m=2.0, aperture_m=0.1, ramp_slope=0.5)


def test_positions_fill_the_disk_evenly_and_in_pairs() -> None:
    positions = aperture_positions(256)
    radii = np.hypot(*positions.T)
    assert radii.max() < 1
    # Of a disk, E[r^2] = 1/2 and E[x^2] = E[y^2] = 1/4.
    np.testing.assert_allclose((positions**2).mean(0), 0.25, atol=0.01)
    np.testing.assert_array_equal(positions[:128] * (-1, 1), positions[128:])


@pytest.mark.parametrize("slope", [*RAMP_SLOPES, np.inf])
def test_the_views_get_the_same_light_and_a_disparity_by_the_ramp(slope: float) -> None:
    x = aperture_positions(4096)[:, 0]
    weights = left_weights(x, slope)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.sum() == pytest.approx(2048)
    ratio = replace(LENS, ramp_slope=slope).disparity_per_radius
    if slope <= 0.5:
        assert ratio == pytest.approx(slope, rel=0.01)
    if np.isinf(slope):
        assert ratio == pytest.approx(8 / (3 * np.pi), rel=0.01)  # twice a half disk's centroid


def test_the_circle_of_confusion_is_the_thin_lens_s() -> None:
    depths = np.array([1.0, 2.0, 4.0, 1e9], np.float32)
    # focal_px * aperture * (1/z - 1/2)
    np.testing.assert_allclose(LENS.coc_px(depths), [4.5, 0, -2.25, -4.5], atol=1e-5)


def test_the_set_is_the_same_every_time_and_scales_with_its_width() -> None:
    one, other = (sample_layouts(2, width) for width in (768, 96))
    assert list(one) == ["01", "02"]
    for name, layout in one.items():
        small = other[name]
        for x, y in zip(layout.things, small.things, strict=True):
            np.testing.assert_array_equal(x.texture, y.texture)
            assert repr(replace(x, texture=y.texture)) == repr(y)
        assert (layout.lens.width, layout.lens.height, small.lens.width) == (768, 512, 96)
        wall = max(thing.at[2] for thing in layout.things)
        radii = [scene.lens.coc_px(np.array([wall], np.float32))[0] for scene in (layout, small)]
        assert -12.1 < radii[0] < -1.9
        assert radii[0] == pytest.approx(8 * radii[1], rel=1e-4)
        nearest = min(thing.at[2] for thing in layout.things)
        assert layout.lens.coc_px(np.array([nearest], np.float32))[0] < 12.1
    assert len({layout.lens.ramp_slope for layout in one.values()}) == 2


def test_textures_come_from_photos_where_they_are_given(photos: Path, tmp_path: Path) -> None:
    photo = decode_srgb(read_rgb(photos / "photo.png").astype(np.float32) / np.float32(255))
    colours = {tuple(colour) for colour in np.clip(photo[::6, ::6], 0.01, 0.95).reshape(-1, 3)}
    (layout,) = sample_layouts(1, 96, photos).values()
    sizes = {thing.texture.shape for thing in layout.things if not thing.glow}
    assert sizes == {(768, 768, 3)}
    # Blocks of one colour stay so where a texture is enlarged from the photo.
    textures = [thing.texture for thing in layout.things if not thing.glow]
    inside = [colour for texture in textures for colour in texture[390, ::40]]
    assert any(np.allclose(x, y, atol=2e-3) for x in inside for y in colours)
    with pytest.raises(ValueError, match="no photos; expected a folder with pictures"):
        sample_layouts(1, 96, tmp_path / "none")


def test_a_set_without_scenes_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "set"), "--count", "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--count 0: expected 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


@pytest.fixture(scope="module")
def mitsuba() -> Any:
    pytest.importorskip("mitsuba")
    return load_mitsuba("scalar_rgb")


def cards(mitsuba: Any, *places: tuple[float, float, float]) -> dict[str, Any]:
    """Bright upright cards on black, each (x, z, half width), x to the right as seen."""
    bright = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.8}}
    shapes: dict[str, Any] = {
        "sun": {"type": "directional", "direction": [0, 0, 1], "irradiance": 1.0}
    }
    for number, (x, z, half) in enumerate(places):
        placed = mitsuba.ScalarTransform4f().translate([-x, 0, z]).rotate([0, 1, 0], 180)
        shape = {"type": "rectangle", "to_world": placed.scale([half, 10, 1]), "material": bright}
        shapes[f"card{number}"] = shape
    return shapes


def centroid(picture: np.ndarray, columns: slice = slice(None)) -> float:
    """Of the light in some columns, in px."""
    light = picture[..., 1].sum(0)[columns]
    return float((light * np.arange(light.size)).sum() / light.sum())


@pytest.mark.slow
def test_a_card_is_shifted_and_blurred_as_the_lens_says(mitsuba: Any) -> None:
    for depth_m, name in ((2.0, "in focus"), (1.3, "near"), (5.0, "far")):
        found = render_scene(mitsuba, cards(mitsuba, (0, depth_m, 0.05 * depth_m)), LENS, 64)
        # x_left - x_right, near positive, of the size that radius and ramp give.
        expected = (
            float(LENS.coc_px(np.array([depth_m], np.float32))[0]) * LENS.disparity_per_radius
        )
        disparity = centroid(found.left) - centroid(found.right)
        assert disparity == pytest.approx(expected, abs=0.12), name
        # Blur moves light about, and each view has all of it.
        sums = [float(x.sum()) for x in (found.left, found.right, found.sharp)]
        np.testing.assert_allclose(sums, sums[2], rtol=0.02)
        np.testing.assert_allclose(found.depth_m[found.depth_m > 0], depth_m, rtol=1e-4)
        if name == "in focus":
            inside = np.abs(found.left - found.right)[:, 20:44]
            assert inside.mean() < 0.02 * found.sharp.max()
            assert centroid(found.sharp) == pytest.approx(31.5, abs=0.1)
        else:
            edge = np.abs(np.diff((found.left + found.right)[24, :, 1])).max() / 2
            assert edge < 0.7 * np.abs(np.diff(found.sharp[24, :, 1])).max()


@pytest.mark.slow
def test_the_left_view_sees_more_past_the_left_edge_of_what_is_near(mitsuba: Any) -> None:
    lens = replace(LENS, aperture_m=0.2, ramp_slope=np.inf)
    # In focus a bright card from -0.2 to 0.2 m; halfway to it, black, all that is right of 0. From
    # the aperture's position u the bright one is seen up to x = -u.
    shapes = cards(mitsuba, (0.0, 2.0, 0.2))
    shapes["sun"]["irradiance"] = 1e-6  # or the near card's shadow counts too
    shapes["near"] = {**cards(mitsuba, (0.6, 1.0, 0.6))["card0"], "material": BLACK}
    found: Rendered = render_scene(mitsuba, shapes, lens, 128)
    mean_u = lens.aperture_m * 4 / (3 * np.pi)
    left, right = (float(view.sum()) for view in (found.left, found.right))
    assert left / right == pytest.approx((0.2 + mean_u) / (0.2 - mean_u), rel=0.05)


@pytest.mark.slow
def test_a_set_is_written_as_the_scorer_reads_it(mitsuba: Any, tmp_path: Path) -> None:
    layouts: dict[str, Layout] = sample_layouts(1, 48)
    make_set(mitsuba, tmp_path, layouts, 8)
    ((name, *paths),) = real_scenes(tmp_path)
    assert name == "01"
    left, right, true = (read_rgb(path) for path in paths)
    assert left.shape == right.shape == true.shape == (32, 48, 3)
    assert left.dtype == np.uint16
    assert 20000 < cv2.mean(true)[1] < 65535
    depth_m = tifffile.imread(tmp_path / "01_depth.tif")
    assert depth_m.shape == (32, 48)
    assert 0.3 < depth_m.min() < depth_m.max() < 40
    # A scene that is there is not made again.
    (tmp_path / "01_L.png").unlink()
    make_set(mitsuba, tmp_path, layouts, 8)
    assert not (tmp_path / "01_L.png").exists()
