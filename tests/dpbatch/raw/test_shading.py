from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dpbatch.raw.cells import CFA_POSITIONS, to_cells, to_mosaic
from dpbatch.raw.shading import Shading, matched, measure_shading
from dpbatch.raw.splitter import SplitCells
from tests.dpbatch.raw.test_splitter import blotches

SHAPE = (416, 640)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class SplitMosaics:
    """A source of cells that are arrays already."""

    left: np.ndarray
    right: np.ndarray
    unreliable: np.ndarray

    @property
    def device(self):
        return CPU

    @property
    def size_cells(self):
        return SHAPE[0] // 2, SHAPE[1] // 2

    def subtracted(self, rows, columns):
        planes = (to_cells(torch.from_numpy(x)) for x in (self.left, self.right, self.unreliable))
        return SplitCells(*(plane[:, rows, columns] for plane in planes))


def match_views(mosaics, shading):
    """Both views without the shading."""
    rows, columns = (slice(0, side) for side in mosaics.size_cells)
    cells = mosaics.subtracted(rows, columns)
    views = matched(cells.left, cells.right, shading, rows, columns)
    left, right = (to_mosaic(view).numpy() for view in views)
    return SplitMosaics(left, right, mosaics.unreliable)


def true_share(position: int, strength_stops: float = 0.25) -> np.ndarray:
    """The left photodiode's share of the light: +-strength stops about one half along x, a little
    different in every colour, a little curved and tilted."""
    y, x = (np.linspace(-1, 1, n) for n in SHAPE)
    stops = 1 + strength_stops * (x + 0.2 * x**3) * (1 + 0.1 * (position - 1.5))
    stops = stops[None, :] + 0.02 * (position - 1.5) + 0.03 * y[:, None]
    return 2.0**-stops


def views(scene_left, scene_right, strength_stops=0.25, noise_dn=0.0, seed=0):
    left, right = np.empty(SHAPE, np.float32), np.empty(SHAPE, np.float32)
    rng = np.random.default_rng(seed)
    for position, (row, column) in enumerate(CFA_POSITIONS):
        share = true_share(position, strength_stops) if strength_stops else np.full(SHAPE, 0.5)
        cell = (slice(row, None, 2), slice(column, None, 2))
        gain = (0.5, 1.0, 1.0, 0.6)[position]  # colour filters
        left[cell] = (gain * scene_left * share)[cell]
        right[cell] = (gain * scene_right * (1 - share))[cell]
    left += noise_dn * rng.standard_normal(SHAPE, np.float32)
    right += noise_dn * rng.standard_normal(SHAPE, np.float32)
    return SplitMosaics(left, right, np.zeros(SHAPE, bool))


def shifted(scene, pixels):
    return np.roll(scene, pixels, axis=1)


def test_grey_becomes_equal_and_stays_the_composite():
    mosaics = views(np.full(SHAPE, 3000.0), np.full(SHAPE, 3000.0), noise_dn=20)
    composite = mosaics.left + mosaics.right
    mosaics = match_views(mosaics, measure_shading(mosaics))
    for row, column in CFA_POSITIONS:
        left, right, both = (m[row::2, column::2] for m in (mosaics.left, mosaics.right, composite))
        for part in np.s_[:50, :50], np.s_[-50:, -50:], np.s_[80:120, 120:180]:
            assert left[part].mean() == pytest.approx(right[part].mean(), rel=0.005)
            assert left[part].mean() == pytest.approx(both[part].mean() / 2, rel=0.005)


def test_out_of_focus_texture_with_highlights_is_matched_within_one_per_cent():
    texture = 2000 * np.exp(0.35 * blotches(SHAPE, 3, 1) + 0.35 * blotches(SHAPE, 25, 2))
    mosaics = views(shifted(texture, 2), shifted(texture, -1), noise_dn=20)
    bright = texture > np.percentile(texture, 95)
    mosaics.unreliable[:] = bright
    mosaics.right[bright] *= 0.3  # what subtraction makes of clipped samples
    ratios = measure_shading(mosaics).right_to_left(slice(0, 208), slice(0, 320), CPU).numpy()
    for position, (row, column) in enumerate(CFA_POSITIONS):
        share = true_share(position)[row::2, column::2]
        error = ratios[position] / ((1 - share) / share) - 1
        # A ratio off by 2 % makes each view 1 % wrong.
        assert np.sqrt(np.mean(error**2)) < 0.008
        assert np.abs(error).max() < 0.03


def test_without_shading_out_of_focus_structure_is_left_alone():
    texture = 2000 * np.exp(0.4 * blotches(SHAPE, 4, 3) + 0.3 * blotches(SHAPE, 40, 4))
    mosaics = views(shifted(texture, 2), shifted(texture, -2), strength_stops=0)
    before = mosaics.left.copy(), mosaics.right.copy()
    mosaics = match_views(mosaics, measure_shading(mosaics))
    for changed, original in zip((mosaics.left, mosaics.right), before, strict=True):
        gain = changed / original
        assert np.abs(gain - 1).max() < 0.02
        # What gain there is is smooth: no edge of the scene is in it.
        assert np.abs(np.diff(gain[::2, ::2], axis=1)).max() < 5e-4


def test_one_sided_object_is_no_shading():
    """A large, strongly defocused bright object, on one side only."""
    scene = np.full(SHAPE, 1500.0)
    scene[100:300, 420:560] = 9000
    mosaics = views(shifted(scene, 8), shifted(scene, -8), strength_stops=0)
    ratio = measure_shading(mosaics).right_to_left(slice(0, 208), slice(0, 320), CPU)
    assert (ratio - 1).abs().max() < 0.02


def test_darkness_gives_no_shading():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (2, *SHAPE)).astype(np.float32)
    mosaics = SplitMosaics(noise[0].copy(), noise[1].copy(), np.zeros(SHAPE, bool))
    mosaics = match_views(mosaics, measure_shading(mosaics))
    np.testing.assert_array_equal(mosaics.left, noise[0])


def test_gains_stay_bounded_beyond_the_fit():
    wild = Shading(np.full((4, 3, 4), 5.0), (64, 64))
    assert wild.right_to_left(slice(0, 32), slice(0, 32), CPU).max() <= 2.5 + 1e-4
