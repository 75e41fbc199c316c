"""Restored light back on the colour filter array."""

from dataclasses import replace

import numpy as np
import pytest

from dpbatch.raw.camera_space import CameraSpace
from dpbatch.raw.remosaic import CHANGE_OF_WHITE, restored_mosaic

XYZ_TO_CAMERA = np.array(
    [[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]]
)
WHITE_DN = 15871.0
CAMERA = CameraSpace(
    xyz_to_camera=XYZ_TO_CAMERA,
    gains=np.array([2.0, 1.0, 1.5, 1.0]),
    cfa=np.array([[0, 1], [3, 2]], np.int8),
    black=np.array([511.0, 512.0, 513.0, 512.0]),
    white_dn=WHITE_DN,
    active=(2, 4, 40, 60),
)
CEILING = 16383


def mosaic(seed: int = 0, shape: tuple[int, int] = (44, 70)) -> np.ndarray:
    return np.random.default_rng(seed).integers(600, 6000, shape).astype(np.uint16)


def change_of(light: np.ndarray) -> np.ndarray:
    return np.rint(light * CHANGE_OF_WHITE).astype(np.int16)


def test_white_is_white_in_the_cameras_colours():
    np.testing.assert_allclose(CAMERA.balanced_from_srgb @ np.ones(3), 1)
    np.testing.assert_allclose(CAMERA.neutral, (0.5, 1, 1 / 1.5))
    # What white light gives, times the gains, is white in every colour.
    np.testing.assert_allclose(CAMERA.full_dn * CAMERA.gains, WHITE_DN)


def test_nothing_changed_is_bit_equal():
    base = mosaic()
    base[10:20, 10:20] = 30000  # recovered highlights too
    result = restored_mosaic(base, np.zeros((40, 60, 3), np.int16), CAMERA, 32254)
    np.testing.assert_array_equal(result, base)


def test_only_changed_photosites_of_the_active_area_get_other_numbers():
    base = mosaic()
    light = np.zeros((40, 60, 3))
    light[8:16, 20:30] = (0.1, 0.05, -0.02)
    result = restored_mosaic(base, change_of(light), CAMERA, CEILING)
    touched = np.zeros(base.shape, bool)
    touched[10:18, 24:34] = True
    np.testing.assert_array_equal(result[~touched], base[~touched])
    assert (result[touched] != base[touched]).all()


@pytest.mark.parametrize("origin", [(2, 4), (3, 4), (2, 5), (3, 5)])
def test_a_change_of_light_arrives_within_two_dn_at_every_colour(origin):
    camera = replace(CAMERA, active=(*origin, 40, 60))
    rng = np.random.default_rng(1)
    light = rng.uniform(-0.02, 0.6, (40, 60, 3))
    base = mosaic()
    result = restored_mosaic(base, change_of(light), camera, 65535)
    # A converter's way back: above black, white balance, white at 1, then the inverse matrix.
    back = np.linalg.inv(camera.balanced_from_srgb)
    top, left = origin
    for row, column in np.ndindex(40, 60):
        y, x = top + row, left + column
        color = int(camera.cfa[y % 2, x % 2])
        wanted = np.linalg.solve(back, light[row, column])[color if color < 3 else 1]
        wanted_dn = float(base[y, x]) + wanted * WHITE_DN / camera.gains[color]
        assert abs(float(result[y, x]) - max(wanted_dn, 0)) <= 2


def test_the_result_is_clipped_at_the_ceiling_and_at_zero():
    base = mosaic()
    brighter = restored_mosaic(base, np.full((40, 60, 3), CHANGE_OF_WHITE, np.int16), CAMERA, 9000)
    inside = (slice(2, 42), slice(4, 64))
    green = brighter[inside][0::2, 1::2]
    assert (green == 9000).all()
    darker = restored_mosaic(base, np.full((40, 60, 3), -CHANGE_OF_WHITE, np.int16), CAMERA, 9000)
    assert (darker[inside] == 0).all()


def test_light_above_white_stays_where_the_network_leaves_white_and_goes_where_it_darkens():
    base = np.full((44, 70), 512 + 22000, np.uint16)  # green 1.39 of white
    light = np.zeros((40, 60, 3))
    light[:, :20] = 1e-4  # next to nothing
    light[:, 20:40] = -0.5  # the disk of a lamp, taken away
    result = restored_mosaic(base, change_of(light), CAMERA, 32254)
    green = result[2:42, 4:64][0::2, 1::2].astype(float)
    assert np.abs(green[:, :10] - 22512).max() < 10
    np.testing.assert_allclose(green[:, 11:19], 512 + 0.5 * WHITE_DN, atol=2)
    assert (green[:, 20:] == 22512).all()


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="active area"):
        restored_mosaic(mosaic(), np.zeros((4, 4, 3), np.int16), CAMERA, CEILING)
