"""Levels, geometry and colour of an opened Dual Pixel RAW file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpbatch.errors import NotDualPixelError, UnreadableError
from dpbatch.raw.frames import RawPair
from dpbatch.raw.reader import DualRaw, open_dual
from dpbatch.settings import DEMOSAICS
from tests.helpers.scenes import BLACK, PHOTODIODE_BLACK, WB_RGGB, WHITE, write_test_dpraw
from training.simulator.cr2.layout import CameraTags
from training.simulator.cr2.writer import (
    BORDER_LEFT,
    BORDER_TOP,
    write_dpraw_cr2,
    write_single_cr2,
)

HEIGHT, WIDTH = 96, 128
ACTIVE = (BORDER_TOP, BORDER_LEFT, HEIGHT, WIDTH)
HALF_WHITE_DN = (WHITE - BLACK) / 2
"""A view's white: half of the composite's signal at saturation."""


@pytest.fixture(scope="module")
def dpraw_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "IMG_1.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, tags=CameraTags(orientation=6))
    return path


def grey(pair: RawPair, level: float) -> np.ndarray:
    """The signal of an even grey: `level` times a view's white in every colour."""
    gains = pair.camera_wb / pair.camera_wb.min()
    rows, columns = np.indices(pair.composite.shape) % 2
    return (level * HALF_WHITE_DN / gains[pair.cfa[rows, columns]]).astype(np.float32)


def test_levels_geometry_and_names(dpraw_path: Path) -> None:
    with open_dual(dpraw_path) as dual:
        pair = dual.pair
    assert pair.composite.shape == pair.photodiode.shape == (HEIGHT + 64, WIDTH + 160)
    assert pair.composite.dtype == pair.photodiode.dtype == np.uint16
    assert pair.active == ACTIVE
    assert pair.cfa.tolist() == [[0, 1], [3, 2]]
    assert pair.composite_black == pytest.approx([BLACK] * 4, abs=0.5)
    assert pair.photodiode_black == pytest.approx([PHOTODIODE_BLACK] * 4, abs=0.5)
    assert pair.white_level == WHITE
    red, green, _, blue = WB_RGGB
    assert pair.camera_wb / pair.camera_wb[1] == pytest.approx([red, green, blue, green])
    assert pair.orientation == 6
    assert (pair.make, pair.model) == ("Canon", "Canon EOS 5D Mark IV")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_read_and_no_pixel_turned(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, tags=CameraTags(orientation=orientation))
    with open_dual(path) as dual:
        assert dual.pair.orientation == orientation
        assert dual.render(grey(dual.pair, 0.5)).shape == (HEIGHT, WIDTH, 3)


def test_the_arrays_outlive_the_file(dpraw_path: Path) -> None:
    with open_dual(dpraw_path) as dual:
        before = dual.pair.composite.copy()
        dual.render(np.zeros_like(before, np.float32))
    np.testing.assert_array_equal(dual.pair.composite, before)


def test_black_is_measured_and_libraws_other_figure_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, photodiode_black=BLACK)
    with open_dual(path) as dual:
        assert dual.pair.notes == ()
    write_test_dpraw(path, HEIGHT, WIDTH, photodiode_black=700)
    with open_dual(path) as dual:
        assert dual.pair.photodiode_black == pytest.approx([700] * 4, abs=0.5)
        assert dual.pair.notes == (
            "photodiode black: 700/700/700/700 measured on the masked columns and used, "
            "LibRaw says 512/512/512/512",
        )


@pytest.mark.parametrize("level", [-0.1, -0.003, 0.0, 0.004, 0.18, 0.7, 1.0])
@pytest.mark.parametrize("demosaic", DEMOSAICS)
def test_an_even_grey_comes_out_as_itself(dpraw_path: Path, demosaic: str, level: float) -> None:
    """The pedestal leaves no trace: neutral, linear, negative values too."""
    with open_dual(dpraw_path) as dual:
        view = dual.render(grey(dual.pair, level), demosaic=demosaic)
    assert view.dtype == np.float32
    assert np.abs(view - level).max() < 1e-4


def test_noise_below_black_keeps_its_mean(dpraw_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 20, (HEIGHT + 64, WIDTH + 160)).astype(np.float32)
    with open_dual(dpraw_path) as dual:
        view = dual.render(noise, demosaic="linear")
        expected = dual.render(noise + grey(dual.pair, 0.3), demosaic="linear") - np.float32(0.3)
    assert (view < 0).mean() > 0.4
    np.testing.assert_allclose(view, expected, atol=2e-4)


@pytest.mark.parametrize("excess", [1.0, 1.5, 4.0])
def test_clipped_highlights_are_white(dpraw_path: Path, excess: float) -> None:
    """All photosites at one DN, as where they clip: the gains would make that magenta."""
    with open_dual(dpraw_path) as dual:
        shape = dual.pair.composite.shape
        view = dual.render(np.full(shape, excess * HALF_WHITE_DN, np.float32))
    np.testing.assert_allclose(view, 1.0, atol=1e-4)


def test_bright_scales_linearly(dpraw_path: Path) -> None:
    with open_dual(dpraw_path) as dual:
        composite = dual.render(grey(dual.pair, 0.4), bright=1.0)
    np.testing.assert_allclose(composite, 0.2, atol=1e-4)


def test_a_saturated_colour_passes_the_cameras_matrix(dpraw_path: Path) -> None:
    """Green photosites alone lie outside sRGB: red and blue come out negative and stay so."""
    with open_dual(dpraw_path) as dual:
        signal = grey(dual.pair, 0.3)
        signal[0::2, 0::2] = 0
        signal[1::2, 1::2] = 0
        view = dual.render(signal, demosaic="linear")[8:-8, 8:-8]
    assert (view[..., 1] > 0.3).all()
    assert (view[..., [0, 2]] < -0.01).all()


def test_the_views_of_an_even_scene_are_the_composite_at_half_light(tmp_path: Path) -> None:
    path = tmp_path / "a.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, disparity_px=0)

    def rendered(dual: DualRaw, mosaic: np.ndarray, black: float, bright: float) -> np.ndarray:
        return dual.render(mosaic.astype(np.int32) - black, demosaic="linear", bright=bright)

    with open_dual(path) as dual:
        view = rendered(dual, dual.pair.photodiode, PHOTODIODE_BLACK, 2)
        composite = rendered(dual, dual.pair.composite, BLACK, 1)
    assert view.mean() > 0.1
    # Rounding to whole DN is all that differs.
    np.testing.assert_allclose(view, composite, atol=3e-4)


def test_wrong_arguments_are_refused(dpraw_path: Path) -> None:
    with open_dual(dpraw_path) as dual:
        with pytest.raises(ValueError, match="ahd, ppg"):
            dual.render(np.zeros(dual.pair.composite.shape), demosaic="magic")
        with pytest.raises(ValueError, match="the mosaic"):
            dual.render(np.zeros((HEIGHT, WIDTH)))


def test_an_ordinary_raw_is_not_dual_pixel(tmp_path: Path) -> None:
    write_single_cr2(tmp_path / "IMG_2.cr2", np.zeros((HEIGHT, WIDTH)))
    message = "IMG_2.cr2: 1 raw frame, expected 2; switch on Dual Pixel RAW in the camera"
    with pytest.raises(NotDualPixelError, match=message), open_dual(tmp_path / "IMG_2.cr2"):
        pass


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no such file"), open_dual(tmp_path / "a.cr2"):
        pass


@pytest.mark.parametrize(("level_dn", "gain_dn"), [(150, 60), (400, 60), (6000, 60), (0, 0.2)])
def test_honest_noise_is_not_taken_for_damage(
    tmp_path: Path, level_dn: float, gain_dn: float
) -> None:
    """Shot noise of gain_dn DN per electron (60: about ISO 25600), a lens cap as well."""
    rng = np.random.default_rng(0)
    photons = np.full((256, 384), level_dn / 2 / gain_dn)
    left, right = (
        gain_dn * (rng.poisson(photons) + rng.normal(0, 0.5, photons.shape)) for _ in range(2)
    )
    write_dpraw_cr2(tmp_path / "a.cr2", left, right)
    with open_dual(tmp_path / "a.cr2") as dual:
        assert dual.pair.composite[60:-60, 160:-60].mean() == pytest.approx(512 + level_dn, abs=9)


def test_shading_and_unequal_gain_are_not_taken_for_damage(tmp_path: Path) -> None:
    """Real photodiodes differ by a quarter stop either way along x, with a cast."""
    ramp = np.linspace(0.59, 0.42, WIDTH)
    total = np.random.default_rng(0).uniform(500, 12000, (HEIGHT, WIDTH))
    write_dpraw_cr2(tmp_path / "a.cr2", total * ramp, total * (1 - ramp))
    with open_dual(tmp_path / "a.cr2") as dual:
        assert dual.pair.active == ACTIVE


def test_a_blown_out_photo_opens(tmp_path: Path) -> None:
    blown = np.full((HEIGHT, WIDTH), 30000)
    rng = np.random.default_rng(0)
    write_dpraw_cr2(tmp_path / "a.cr2", blown, blown + rng.integers(0, 9, blown.shape))
    with open_dual(tmp_path / "a.cr2") as dual:
        top, left, height, width = dual.pair.active
        inside = dual.pair.composite[top : top + height, left : left + width]
        assert (inside == WHITE).all()
