"""White balances other than the camera's: what is grey comes out grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpbatch.errors import DamagedError
from dpbatch.raw.develop import develop
from dpbatch.raw.reader import read_dual
from dpbatch.raw.white_balance import with_white_balance
from dpbatch.settings import RawSettings
from ldp.types import Picture
from tests.helpers.scenes import WB_RGGB, write_test_dpraw
from training.simulator.cr2.writer import write_dpraw_cr2

HEIGHT, WIDTH = 128, 192


def developed(path: Path, white_balance: str) -> Picture:
    return develop(with_white_balance(read_dual(path), white_balance), RawSettings()).left


def write_grey(path: Path, level_dn: float, lamp: bool = False) -> None:
    """A grey wall under a light of which the file's white balance knows nothing."""
    mosaic = np.full((HEIGHT, WIDTH), level_dn, np.float32)
    mosaic[::2, ::2] /= 2.0
    mosaic[1::2, 1::2] /= 1.5
    if lamp:
        mosaic[:32, :64] = 16383
    write_dpraw_cr2(path, mosaic / 2, mosaic / 2, wb_rggb=(1.0, 1.0, 1.0, 1.0))


def colour_cast(view: Picture) -> float:
    """The largest difference of a channel's mean from the mean of all, relative to it."""
    means = view[40:-8, 72:-8].reshape(-1, 3).mean(axis=0)
    return float(np.abs(means / means.mean() - 1).max())


@pytest.mark.parametrize("lamp", [False, True])
def test_auto_makes_a_grey_wall_grey_and_looks_past_clipped_lamps(
    tmp_path: Path, lamp: bool
) -> None:
    path = tmp_path / "a.CR2"
    write_grey(path, 4000, lamp)
    assert colour_cast(developed(path, "camera")) > 0.1
    assert colour_cast(developed(path, "auto")) < 0.01


def test_gains_that_fit_the_light_make_a_grey_wall_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_grey(path, 4000)
    assert colour_cast(developed(path, "2,1,1.5")) < 0.01
    np.testing.assert_array_equal(developed(path, "2,1,1.5"), developed(path, "4, 2, 3"))


def test_the_cameras_own_gains_give_what_the_camera_setting_gives(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path)
    red, green, _, blue = WB_RGGB
    np.testing.assert_array_equal(
        developed(path, "camera"), developed(path, f"{red},{green},{blue}")
    )


def test_daylight_is_libraws_table(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path)
    red, green, blue, _ = read_dual(path).daylight_wb
    assert red > green > 0
    assert blue > green
    np.testing.assert_array_equal(
        developed(path, "daylight"), developed(path, f"{red},{green},{blue}")
    )
    assert np.abs(developed(path, "daylight") - developed(path, "camera")).max() > 0.01


def test_a_photo_without_light_has_no_auto_white_balance(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_grey(path, 0)
    with pytest.raises(DamagedError, match="no auto white balance known"):
        developed(path, "auto")
