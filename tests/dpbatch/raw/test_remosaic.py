"""Restored light back on the colour filter array."""

import numpy as np
import pytest
import torch

from dpbatch.raw.camera_space import XYZ_FROM_SRGB, CameraSpace
from dpbatch.raw.remosaic import Remosaic, with_change

XYZ_TO_CAMERA = np.array(
    [[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]]
)
BALANCED = XYZ_TO_CAMERA @ XYZ_FROM_SRGB
BALANCED /= BALANCED.sum(axis=1, keepdims=True)
WHITE_DN = 15871.0
CAMERA = CameraSpace(
    xyz_to_camera=XYZ_TO_CAMERA,
    balanced_from_srgb=BALANCED,
    gains=np.array([2.0, 1.0, 1.5, 1.0]),
    cfa=np.array([[0, 1], [3, 2]], np.int8),
    black=np.array([511.0, 512.0, 513.0, 512.0]),
    white_dn=WHITE_DN,
)
CPU = torch.device("cpu")
SIZE = (40, 60)


def mosaic(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(600, 6000, SIZE).astype(np.float32)


def restored(
    base: np.ndarray, change: np.ndarray, ceiling: int = 16383, origin: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """change: (H, W, 3) of light."""
    planes = torch.from_numpy(np.ascontiguousarray(change.transpose(2, 0, 1), np.float32))
    result = Remosaic(CAMERA, ceiling, CPU).samples(torch.from_numpy(base), planes, origin)
    assert result.dtype == torch.uint16
    return result.numpy().astype(np.int64)


def no_change() -> np.ndarray:
    return np.zeros((*SIZE, 3))


def test_white_is_white_in_the_cameras_colours() -> None:
    np.testing.assert_allclose(CAMERA.neutral, (0.5, 1, 1 / 1.5))
    # What white light gives, times the gains, is white in every colour.
    np.testing.assert_allclose(CAMERA.full_dn * CAMERA.gains, WHITE_DN)


def test_nothing_changed_is_bit_equal() -> None:
    base = mosaic()
    base[10:20, 10:20] = 30000  # recovered highlights too
    base[0] = 65535
    np.testing.assert_array_equal(restored(base, no_change(), 32254), base)


def test_only_changed_photosites_get_other_numbers() -> None:
    base, light = mosaic(), no_change()
    light[8:16, 20:30] = (0.1, 0.05, -0.02)
    result = restored(base, light)
    touched = light.any(axis=2)
    np.testing.assert_array_equal(result[~touched], base[~touched])
    assert (result[touched] != base[touched]).all()


@pytest.mark.parametrize("origin", [(0, 0), (1, 0), (0, 1), (7, 5)])
def test_a_change_of_light_arrives_at_every_colour(origin: tuple[int, int]) -> None:
    light = np.random.default_rng(1).uniform(-0.02, 0.6, (*SIZE, 3))
    base = mosaic()
    result = restored(base, light, 65535, origin)
    for row, column in np.ndindex(SIZE):
        color = int(CAMERA.cfa[(origin[0] + row) % 2, (origin[1] + column) % 2])
        wanted = (BALANCED @ light[row, column])[color if color < 3 else 1]
        wanted_dn = float(base[row, column]) + wanted * WHITE_DN / CAMERA.gains[color]
        assert abs(result[row, column] - max(wanted_dn, 0)) <= 0.6


def test_the_result_is_clipped_at_the_ceiling_and_at_zero() -> None:
    brighter = restored(mosaic(), no_change() + 1, 9000)
    assert (brighter[0::2, 1::2] == 9000).all()  # green
    assert (restored(mosaic(), no_change() - 1, 9000) == 0).all()


def test_light_above_white_stays_where_the_network_leaves_white_and_goes_where_it_darkens() -> None:
    base = np.full(SIZE, 512 + 22000, np.float32)  # green 1.39 of white
    light = no_change()
    light[:, :20] = 1e-4  # next to nothing
    light[:, 20:40] = -0.5  # the disk of a lamp, taken away
    green = restored(base, light, 32254)[0::2, 1::2]
    assert np.abs(green[:, :10] - 22512).max() < 10
    np.testing.assert_allclose(green[:, 10:20], 512 + 0.5 * WHITE_DN, atol=2)
    assert (green[:, 20:] == 22512).all()


def test_a_change_below_white_is_only_added() -> None:
    light = torch.tensor([0.2, 0.7, 1.0])
    change = torch.tensor([0.5, -0.6, -0.1])
    torch.testing.assert_close(with_change(light, change), light + change)
