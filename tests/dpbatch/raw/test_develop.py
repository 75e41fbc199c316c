from dataclasses import replace

import numpy as np
import pytest

from dpbatch.raw.develop import develop
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from ldp.srgb import decode_srgb
from tests.helpers.scenes import BLACK, WB_RGGB, WHITE, write_test_dpraw
from training.simulator.cr2.layout import CameraTags
from training.simulator.cr2.writer import write_dpraw_cr2

HEIGHT, WIDTH = 256, 384


def developed(path, settings=None):
    return develop(read_dual(path), settings or RawSettings())


def shaded_views(scene, noise_dn=0.0):
    """A grey picture (H, W), green DN of the composite, in focus, behind a lens whose views darken
    to opposite sides by a quarter stop, differently in each colour."""
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, scene.shape[1])
    left, right = np.empty(scene.shape), np.empty(scene.shape)
    for (row, column), gain, strength in zip(
        ((0, 0), (0, 1), (1, 0), (1, 1)), WB_RGGB, (0.21, 0.25, 0.25, 0.28), strict=True
    ):
        cell = (slice(row, None, 2), slice(column, None, 2))
        share = 2.0 ** -(1 + strength * x + 0.03)[None, :]
        left[cell] = (scene / gain * share)[cell]
        right[cell] = (scene / gain * (1 - share))[cell]
    noise = noise_dn * rng.standard_normal((2, *scene.shape))
    return left + noise[0], right + noise[1]


def linear(view, part):
    return decode_srgb(np.ascontiguousarray(view[part])).mean(axis=(0, 1))


PATCHES = [np.s_[20:60, 20:60], np.s_[20:60, -60:-20], np.s_[-60:-20, -60:-20]]


def test_grey_has_the_composites_brightness_and_one_colour_in_both_views(tmp_path):
    level_dn = 0.25 * (WHITE - BLACK)
    left, right = shaded_views(np.full((HEIGHT, WIDTH), level_dn), noise_dn=15)
    write_dpraw_cr2(tmp_path / "grey.cr2", left, right, wb_rggb=WB_RGGB, black_level=BLACK)
    views = developed(tmp_path / "grey.cr2")
    for part in PATCHES:
        of_left, of_right = linear(views.left, part), linear(views.right, part)
        np.testing.assert_allclose(of_left, of_right, rtol=0.01)
        np.testing.assert_allclose(of_left, of_left[1], rtol=0.01)  # grey: R = G = B
        np.testing.assert_allclose(of_left, 0.25, rtol=0.01)
    unmatched = developed(tmp_path / "grey.cr2", RawSettings(shading=False))
    corner = PATCHES[1]
    assert linear(unmatched.right, corner)[1] > 1.2 * linear(unmatched.left, corner)[1]


@pytest.mark.parametrize("overexposure", [1.02, 1.4, 1.9, 3.0])
@pytest.mark.parametrize("shading", [True, False])
def test_clipped_highlight_is_neutral_white(tmp_path, overexposure, shading):
    scene = np.full((HEIGHT, WIDTH), 0.2 * (WHITE - BLACK))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (y - 128) ** 2 + (x - 192) ** 2 < 30**2
    scene[(y - 128) ** 2 + (x - 192) ** 2 < 40**2] = overexposure * (WHITE - BLACK)
    left, right = shaded_views(scene)
    write_dpraw_cr2(tmp_path / "light.cr2", left, right, wb_rggb=WB_RGGB, black_level=BLACK)
    views = developed(tmp_path / "light.cr2", RawSettings(shading=shading))
    for view in (views.left, views.right):
        assert view[inside].min() > 0.98
        assert np.ptp(view[inside], axis=1).max() < 0.01


def test_out_of_focus_highlight_is_never_magenta(tmp_path):
    write_test_dpraw(tmp_path / "a.cr2", HEIGHT, WIDTH, disparity_px=5, highlight=True)
    views = developed(tmp_path / "a.cr2")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    from_edge = np.hypot(y - HEIGHT / 2, x - WIDTH / 2) - HEIGHT / 8
    for view in (views.left, views.right):
        magenta = 0.5 * (view[..., 0] + view[..., 2]) - view[..., 1]
        assert view[from_edge < -8].min() > 0.99
        assert magenta[np.abs(from_edge) < 8].mean() < 0.01
        # The scene's own colours reach this far.
        assert magenta[from_edge < 8].max() < magenta[from_edge > 20].max() + 0.05


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_stay_as_the_sensor_lies_and_the_orientation_is_handed_on(tmp_path, orientation):
    plain, turned = tmp_path / "plain.cr2", tmp_path / "turned.cr2"
    write_test_dpraw(plain, HEIGHT, WIDTH)
    write_test_dpraw(turned, HEIGHT, WIDTH, tags=CameraTags(orientation=orientation))
    expected, views = developed(plain), developed(turned)
    assert views.orientation == orientation
    assert views.size == expected.size
    np.testing.assert_array_equal(views.left, expected.left)
    np.testing.assert_array_equal(views.right, expected.right)


def test_swap_exchanges_the_views(tmp_path):
    write_test_dpraw(tmp_path / "a.cr2", HEIGHT, WIDTH, disparity_px=3, noise_dn=5)
    views = developed(tmp_path / "a.cr2")
    swapped = developed(tmp_path / "a.cr2", replace(RawSettings(), swap=True))
    assert np.abs(views.left - views.right).mean() > 0.01
    np.testing.assert_allclose(swapped.left, views.right, atol=0.02)
    np.testing.assert_allclose(swapped.right, views.left, atol=0.02)


def test_noise_below_black_survives(tmp_path):
    write_test_dpraw(tmp_path / "dark.cr2", HEIGHT, WIDTH, level_dn=0, noise_dn=3)
    views = developed(tmp_path / "dark.cr2")
    for view in (views.left, views.right):
        assert view.dtype == np.float32
        assert (view < -0.001).mean() > 0.2
        assert abs(linear(view, np.s_[:])[1]) < 1e-4
