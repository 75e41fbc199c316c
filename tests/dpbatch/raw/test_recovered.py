"""Light above the composite's clipping, on scenes whose light is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpbatch.raw.reader import read_dual
from dpbatch.raw.recovered import HEADROOM_EV, clipping_dn, recover_highlights
from dpbatch.raw.splitter import split
from training.simulator.cr2.writer import write_dpraw_cr2

HEIGHT, WIDTH = 192, 320
WB_RGGB = (2.0, 1.0, 1.0, 1.5)
BLACK, WHITE = 512, 16383
RANGE_DN = WHITE - BLACK


def bright_window(overexposure_ev: float) -> np.ndarray:
    """A grey wall with a bright window that is as bright as its overexposure says, in light of the
    composite's clipping; one wall of a warm colour."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.repeat((0.3 + 0.1 * np.sin(x / 17) * np.cos(y / 23))[..., None], 3, axis=2)
    light[:, :80] *= (1.0, 0.7, 0.4)
    near = np.clip((50 - np.hypot(y - 96, x - 190)) / 12, 0, 1)[..., None]
    window = 2.0**overexposure_ev * (1 + 0.02 * np.sin(x / 5 + y / 7))[..., None]
    return light + near * (window - light)


def write(path: Path, light: np.ndarray) -> np.ndarray:
    """Write a scene as a raw file and return the composite's true DN above black, not clipped."""
    signal = np.empty((HEIGHT, WIDTH), np.float32)
    for (row, column), channel, gain in zip(np.ndindex(2, 2), (0, 1, 1, 2), WB_RGGB, strict=True):
        signal[row::2, column::2] = light[row::2, column::2, channel] * RANGE_DN / gain
    share = (0.5 + 0.06 * (np.arange(WIDTH) / WIDTH - 0.5)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 3, (2, HEIGHT, WIDTH)).astype(np.float32)
    left, right = signal * share + noise[0], signal * (1 - share) + noise[1]
    write_dpraw_cr2(path, left, right, wb_rggb=WB_RGGB, black_level=BLACK, white_level=WHITE)
    return signal


def recovered(path: Path):
    pair = read_dual(path)
    return pair, recover_highlights(pair, split(pair))


@pytest.mark.parametrize("ev", [0.3, 0.6, 0.9])
def test_light_up_to_nine_tenths_of_a_stop_above_clipping_is_within_five_percent(tmp_path, ev):
    light = bright_window(ev)
    truth = write(tmp_path / "a.CR2", light)
    pair, result = recovered(tmp_path / "a.CR2")
    composite, found = pair.composite, result.mosaic
    was_clipped = composite >= WHITE - 5
    assert was_clipped.sum() > 1000
    wrong = found[was_clipped] - BLACK - truth[was_clipped]
    assert np.abs(wrong / truth[was_clipped]).max() < 0.05
    assert result.headroom_ev == HEADROOM_EV
    assert result.ceiling_dn > found[was_clipped].max()


def test_samples_that_are_not_clipped_are_the_composites_own(tmp_path):
    write(tmp_path / "a.CR2", bright_window(0.8))
    pair, result = recovered(tmp_path / "a.CR2")
    reliable = pair.composite < pair.composite_clip.start.min()
    np.testing.assert_array_equal(result.mosaic[reliable], pair.composite[reliable])
    assert (result.mosaic >= pair.composite).all()


def test_light_that_neither_frame_holds_lies_at_the_ceiling(tmp_path):
    truth = write(tmp_path / "a.CR2", bright_window(2.5))
    _, result = recovered(tmp_path / "a.CR2")
    found = result.mosaic
    blown = truth > 2.4 * RANGE_DN
    assert blown.sum() > 1000
    assert (found[blown] == result.ceiling_dn).all()


def test_a_photo_without_clipping_keeps_its_scale(tmp_path):
    write(tmp_path / "a.CR2", bright_window(-1))
    pair, result = recovered(tmp_path / "a.CR2")
    assert result.mosaic is pair.composite
    assert (result.headroom_ev, result.ceiling_dn) == (0, WHITE)


def test_the_level_of_clipping_is_the_lowest_measured_one(tmp_path):
    write(tmp_path / "a.CR2", bright_window(-1))
    pair = read_dual(tmp_path / "a.CR2")
    nothing_seen = pair.composite_clip
    assert clipping_dn(pair) == pair.white_level
    full, pile = nothing_seen.full.copy(), nothing_seen.pile.copy()
    full[1], pile[1] = 13100, 13110
    assert (
        clipping_dn(replace(pair, composite_clip=replace(nothing_seen, full=full, pile=pile)))
        == 13100
    )
