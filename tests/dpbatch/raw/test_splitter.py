from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from dpbatch.raw.cells import to_mosaic
from dpbatch.raw.clipping import ClipLevels
from dpbatch.raw.frames import RawPair
from dpbatch.raw.splitter import Splitter

CFA = np.array([[0, 1], [3, 2]], np.int8)
BLACK = np.array([511, 512, 513, 512], np.float64)
PHOTODIODE_BLACK = np.array([300, 301, 302, 303], np.float64)
WHITE = 16383
WB = np.array([2.0, 1.0, 1.5, 1.0], np.float64)
SIGNAL_RANGE = WHITE - 512
BAND_CELLS = 64


@dataclass(frozen=True)
class SplitMosaics:
    """The two views as whole mosaics, (H, W) each."""

    left: np.ndarray
    right: np.ndarray
    unreliable: np.ndarray


def split(pair: RawPair, swap: bool = False) -> SplitMosaics:
    """Split a whole photo on the CPU, band by band."""
    splitter = Splitter(pair, swap, torch.device("cpu"))
    height, width = splitter.size_cells
    parts = []
    for top in range(0, height, BAND_CELLS):
        area = slice(top, min(top + BAND_CELLS, height)), slice(0, width)
        cells, unreliable = splitter.split(*area), splitter.subtracted(*area).unreliable
        parts.append([to_mosaic(planes) for planes in (cells.left, cells.right, unreliable)])
    return SplitMosaics(*(torch.cat(list(part)).numpy() for part in zip(*parts, strict=True)))


def cfa_plane(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A value of each colour index laid out as a mosaic."""
    return np.tile(values[CFA], (shape[0] // 2, shape[1] // 2))


def record(left_dn: np.ndarray, right_dn: np.ndarray) -> RawPair:
    """Two photodiodes' signals, in DN above black, as a camera stores them."""
    shape = left_dn.shape
    composite = np.rint(left_dn + right_dn + cfa_plane(BLACK, shape))
    photodiode = np.rint(left_dn + cfa_plane(PHOTODIODE_BLACK, shape))
    return RawPair(
        composite=np.clip(composite, 0, WHITE).astype(np.uint16),
        photodiode=np.clip(photodiode, 0, WHITE).astype(np.uint16),
        cfa=CFA,
        composite_black=BLACK,
        photodiode_black=PHOTODIODE_BLACK,
        composite_clip=ClipLevels.at(WHITE),
        photodiode_clip=ClipLevels.at(WHITE),
        white_level=WHITE,
        active=(0, 0, *shape),
        frame_size=shape,
        camera_wb=WB,
        daylight_wb=WB,
        camera_to_srgb=np.eye(3),
        orientation=1,
        make="Canon",
        model="",
    )


def grey_scene(level: np.ndarray) -> np.ndarray:
    """A grey scene (green level in DN of the composite) through the colour filters."""
    return level / cfa_plane(WB, level.shape)


def blotches(shape: tuple[int, int], sigma_px: float, seed: int) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape), (0, 0), sigma_px)
    return noise / noise.std()


@pytest.mark.parametrize("swap", [False, True])
def test_views_sum_to_the_composite_and_keep_negative_noise(swap):
    rng = np.random.default_rng(0)
    left_dn, right_dn = rng.normal(40, 60, (2, 64, 96))
    pair = record(left_dn, right_dn)
    mosaics = split(pair, swap)
    composite_dn = pair.composite - cfa_plane(BLACK, (64, 96))
    assert np.abs(mosaics.left + mosaics.right - composite_dn).max() < 1e-3
    assert not mosaics.unreliable.any()
    first, second = (mosaics.right, mosaics.left) if swap else (mosaics.left, mosaics.right)
    assert np.abs(first - left_dn).max() <= 0.5 + 1e-3
    assert np.abs(second - right_dn).max() <= 1 + 1e-3
    assert (mosaics.left < 0).any()
    assert (mosaics.right < 0).any()


def test_clipped_highlight_is_rebuilt_with_the_ratio_around_it():
    shape = (320, 480)
    y, x = np.mgrid[: shape[0], : shape[1]]
    level = np.full(shape, 5000.0)
    level[(y - 160) ** 2 + (x - 240) ** 2 < 60**2] = 1.4 * SIGNAL_RANGE
    scene = grey_scene(level)
    share = 0.5 + 0.08 * (x / shape[1] - 0.5) + 0.01 * (cfa_plane(np.arange(4.0), shape) - 1.5)
    left_dn, right_dn = scene * share, scene * (1 - share)
    pair = record(left_dn, right_dn)
    mosaics = split(pair)
    np.testing.assert_array_equal(mosaics.unreliable, pair.composite == WHITE)
    assert mosaics.unreliable.mean() > 0.02
    error = np.abs(mosaics.right / right_dn - 1)[mosaics.unreliable]
    naive = np.abs((pair.composite - 512.0 - left_dn) / right_dn - 1)[mosaics.unreliable]
    assert np.percentile(error, 99) < 0.015
    assert np.percentile(naive, 1) > 0.3


def test_out_of_focus_highlight_takes_its_ratio_from_the_colours_that_still_have_signal():
    shape = (256, 256)
    y, x = np.mgrid[: shape[0], : shape[1]]
    disk = (y - 128) ** 2 + (x - 128) ** 2 < 50**2
    # Green clips in the disk, red and blue do not, and most of its light is the right view's.
    scene = grey_scene(np.where(disk, 1.2 * SIGNAL_RANGE, 3000.0))
    share = np.where(disk, 0.35, 0.5)
    pair = record(scene * share, scene * (1 - share))
    mosaics = split(pair)
    inside = (y - 128) ** 2 + (x - 128) ** 2 < 34**2
    rebuilt = mosaics.unreliable & inside
    assert rebuilt.any()
    assert not mosaics.unreliable[0::2, 0::2].any()  # red
    error = np.abs(mosaics.right / (scene * (1 - share)) - 1)[rebuilt]
    assert error.max() < 0.05


def test_rebuilt_light_is_never_less_than_the_clipped_composite_leaves():
    shape = (128, 128)
    level = np.where(blotches(shape, 3, 1) > 1, 1.5 * SIGNAL_RANGE, 4000)
    share = np.clip(0.5 + 0.15 * blotches(shape, 6, 2), 0.2, 0.8)
    scene = grey_scene(level)
    pair = record(scene * share, scene * (1 - share))
    mosaics = split(pair)
    composite_dn = pair.composite - cfa_plane(BLACK, shape)
    assert (mosaics.left + mosaics.right - composite_dn).min() > -1e-3


def test_where_both_frames_clip_both_views_are_white():
    level = np.full((64, 96), 4000.0)
    level[16:48, 32:64] = 3 * SIGNAL_RANGE
    scene = level / 2  # no colour filters: every sample clips
    pair = record(scene, scene)
    mosaics = split(pair)
    both = pair.photodiode == WHITE
    assert both.any()
    white_dn = (WHITE - cfa_plane(BLACK, level.shape))[both]
    np.testing.assert_array_equal(mosaics.left[both], white_dn)
    np.testing.assert_array_equal(mosaics.right[both], white_dn)


def test_fully_clipped_frame_does_not_fail():
    scene = np.full((32, 32), 1.5 * SIGNAL_RANGE)
    mosaics = split(record(scene / 2, scene / 2))
    assert mosaics.unreliable.all()
    np.testing.assert_allclose(mosaics.right, mosaics.left, rtol=0.01)


def test_a_part_is_split_as_it_is_in_the_whole():
    shape = (192, 256)
    level = np.where(blotches(shape, 3, 1) > 1, 1.5 * SIGNAL_RANGE, 4000)
    scene = grey_scene(level) * np.clip(0.5 + 0.15 * blotches(shape, 6, 2), 0.2, 0.8)
    splitter = Splitter(record(scene, grey_scene(level) - scene), False, torch.device("cpu"))
    whole = splitter.split(slice(0, 96), slice(0, 128))
    part = splitter.split(slice(21, 60), slice(0, 77))
    assert splitter.subtracted(slice(21, 60), slice(0, 77)).unreliable.any()
    np.testing.assert_allclose(part.left, whole.left[:, 21:60, :77], rtol=1e-5)
    np.testing.assert_allclose(part.right, whole.right[:, 21:60, :77], rtol=1e-5)
