"""Levels, geometry and colour of an opened Dual Pixel RAW file."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dpbatch.errors import NotDualPixelError, UnreadableError
from dpbatch.raw.reader import read_dual
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


@pytest.fixture(scope="module")
def dpraw_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "IMG_1.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, tags=CameraTags(orientation=6))
    return path


def test_levels_geometry_and_names(dpraw_path: Path) -> None:
    pair = read_dual(dpraw_path)
    assert pair.composite.shape == pair.photodiode.shape == (HEIGHT, WIDTH)
    assert pair.frame_size == (HEIGHT + 64, WIDTH + 160)
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
    pair = read_dual(path)
    assert pair.orientation == orientation
    assert pair.composite.shape == (HEIGHT, WIDTH)


def test_black_is_measured_and_libraws_other_figure_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, photodiode_black=BLACK)
    assert read_dual(path).notes == ()
    write_test_dpraw(path, HEIGHT, WIDTH, photodiode_black=700)
    pair = read_dual(path)
    assert pair.photodiode_black == pytest.approx([700] * 4, abs=0.5)
    assert pair.notes == (
        "photodiode black: 700/700/700/700 measured on the masked columns and used, "
        "LibRaw says 512/512/512/512",
    )


def test_the_preview_is_read_where_it_is_wanted(dpraw_path: Path) -> None:
    assert read_dual(dpraw_path).preview == b""
    assert read_dual(dpraw_path, with_preview=True).preview.startswith(b"\xff\xd8")


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="the file system takes no such names"
)
def test_a_name_that_is_not_utf8_has_a_preview_too(dpraw_path: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"IMG_\xff\xfe.CR2")
    shutil.copy(dpraw_path, odd)
    wanted = read_dual(dpraw_path, with_preview=True).preview
    assert read_dual(odd, with_preview=True).preview == wanted


def test_an_ordinary_raw_is_not_dual_pixel(tmp_path: Path) -> None:
    write_single_cr2(tmp_path / "IMG_2.cr2", np.zeros((HEIGHT, WIDTH)))
    message = "IMG_2.cr2: 1 raw frame, expected 2; switch on Dual Pixel RAW in the camera"
    with pytest.raises(NotDualPixelError, match=message):
        read_dual(tmp_path / "IMG_2.cr2")


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no such file"):
        read_dual(tmp_path / "a.cr2")


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
    pair = read_dual(tmp_path / "a.cr2")
    assert pair.composite[6:-50, 12:-48].mean() == pytest.approx(512 + level_dn, abs=9)


def test_shading_and_unequal_gain_are_not_taken_for_damage(tmp_path: Path) -> None:
    """Real photodiodes differ by a quarter stop either way along x, with a cast."""
    ramp = np.linspace(0.59, 0.42, WIDTH)
    total = np.random.default_rng(0).uniform(500, 12000, (HEIGHT, WIDTH))
    write_dpraw_cr2(tmp_path / "a.cr2", total * ramp, total * (1 - ramp))
    assert read_dual(tmp_path / "a.cr2").active == ACTIVE


def test_a_blown_out_photo_opens(tmp_path: Path) -> None:
    blown = np.full((HEIGHT, WIDTH), 30000)
    rng = np.random.default_rng(0)
    write_dpraw_cr2(tmp_path / "a.cr2", blown, blown + rng.integers(0, 9, blown.shape))
    assert (read_dual(tmp_path / "a.cr2").composite == WHITE).all()
