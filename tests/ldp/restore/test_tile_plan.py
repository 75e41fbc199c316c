"""Tiles cover what is wanted of a picture, blend to one, and cover little else."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from ldp.restore.tile_plan import Band, TileSizes, plan_tiles
from ldp.restore.tiling import Span, blend_weights

SIZES = TileSizes(largest=96, overlap=8, align=16, gap=32)
LONG_OVERLAP = TileSizes(largest=96, overlap=40, align=8, gap=32)


class Mask:
    """What is wanted of a picture, pixel by pixel."""

    def __init__(self, wanted: npt.NDArray[np.bool_]) -> None:
        self.wanted = wanted

    def wants(self, rows: Span, columns: Span) -> bool:
        return bool(self.wanted[rows.as_slice, columns.as_slice].any())


def disk(height: int, width: int) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:height, :width]
    return (y - 0.7 * height) ** 2 + (x - 0.4 * width) ** 2 < (0.2 * height) ** 2


def scattered(height: int, width: int) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(0).random((height, width)) < 3e-4


def planned(wanted: npt.NDArray[np.bool_], sizes: TileSizes = SIZES) -> list[Band]:
    return plan_tiles(Mask(wanted), (wanted.shape[0], wanted.shape[1]), sizes)


@pytest.mark.parametrize("make", [disk, scattered, np.ones, np.zeros])
@pytest.mark.parametrize("size", [(1, 1), (40, 500), (300, 333), (97, 96)])
@pytest.mark.parametrize("sizes", [SIZES, LONG_OVERLAP])
def test_weights_sum_to_one_wherever_something_is_wanted(make, size, sizes):
    wanted = make(*size).astype(bool) if make in (disk, scattered) else make(size, bool)
    total = np.zeros(size)
    for band in planned(wanted, sizes):
        for tile in band.tiles:
            down, across = blend_weights(tile.rows), blend_weights(tile.columns)
            total[tile.rows.as_slice, tile.columns.as_slice] += down[:, None] * across
            assert max(tile.rows.length, tile.columns.length) <= sizes.largest
            assert tile.rows.start % sizes.align == tile.columns.start % sizes.align == 0
            assert band.rows.start <= tile.rows.start
            assert tile.rows.stop <= band.rows.stop
    np.testing.assert_allclose(total[wanted], 1, atol=1e-6)
    assert total.max(initial=0) < 1 + 1e-6


@pytest.mark.parametrize("make", [disk, scattered])
def test_bands_cover_the_picture_in_order(make):
    bands = planned(make(400, 300))
    assert (bands[0].rows.start, bands[-1].rows.stop) == (0, 400)
    for upper, lower in itertools.pairwise(bands):
        assert upper.rows.stop - upper.rows.after == lower.rows.start
        assert upper.rows.after == lower.rows.before


def computed_px(wanted: npt.NDArray[np.bool_]) -> int:
    return sum(t.rows.length * t.columns.length for band in planned(wanted) for t in band.tiles)


def test_little_is_computed_beside_what_is_wanted():
    half = np.zeros((400, 600), bool)
    half[:, 290:] = True
    assert computed_px(half) < 0.6 * computed_px(np.ones_like(half))
    assert computed_px(half.T) == computed_px(half)
    slope = np.add.outer(np.arange(400), np.arange(400)) > 400
    boxes = computed_px(np.ones_like(slope))
    assert computed_px(slope) < 0.75 * boxes
    assert computed_px(np.zeros_like(half)) == 0


def test_tiles_of_a_picture_are_of_about_the_same_size():
    for side in (100, 200, 333, 1000):
        (band, *_) = planned(np.ones((50, side), bool))
        lengths = [tile.columns.length for tile in band.tiles]
        assert max(lengths) - min(lengths) <= SIZES.align * len(lengths)
        assert min(lengths) > SIZES.largest / 3
