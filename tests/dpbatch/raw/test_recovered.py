"""Light above the composite's clipping, on scenes whose light is known."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dpbatch.raw.frames import RawPair
from dpbatch.raw.reader import read_dual
from dpbatch.raw.recovered import HEADROOM_EV, Recovered, clipping_dn
from dpbatch.raw.splitter import Splitter
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


def write(
    path: Path,
    light: np.ndarray,
    apart_px: float = 0.0,
    *,
    wb_rggb: tuple[float, float, float, float] = WB_RGGB,
    black: int = BLACK,
    white: int = WHITE,
) -> np.ndarray:
    """Write a scene as a raw file and return the composite's true DN above black, not clipped.

    apart_px: how far the two views lie apart. white: where the composite clips.
    """
    share = 0.5 + 0.06 * (np.arange(WIDTH) / WIDTH - 0.5)
    noise = np.random.default_rng(0).normal(0, 3, (2, HEIGHT, WIDTH))
    views = []
    for sign, part in ((1, share), (-1, 1 - share)):
        matrix = np.array([[1, 0, sign * apart_px / 2], [0, 1, 0]])
        moved = cv2.warpAffine(
            light, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        signal = np.empty((HEIGHT, WIDTH))
        for (row, column), channel, gain in zip(
            np.ndindex(2, 2), (0, 1, 1, 2), wb_rggb, strict=True
        ):
            signal[row::2, column::2] = moved[row::2, column::2, channel] * (white - black) / gain
        views.append(signal * part)
    left, right = (view + grain for view, grain in zip(views, noise, strict=True))
    write_dpraw_cr2(path, left, right, wb_rggb=wb_rggb, black_level=black, white_level=white)
    return views[0] + views[1]


def recovered(path: Path, wanted: bool = True) -> tuple[RawPair, Recovered, np.ndarray]:
    """A file, how it is recovered, and the whole mosaic, in whole numbers."""
    pair = read_dual(path)
    result = Recovered.of(pair, Splitter(pair, False, torch.device("cpu")), wanted)
    mosaic = result.samples(slice(0, HEIGHT), slice(0, WIDTH)).numpy()
    assert (mosaic == np.rint(mosaic)).all()
    return pair, result, mosaic


@pytest.mark.parametrize("ev", [0.3, 0.6, 0.9])
def test_light_up_to_nine_tenths_of_a_stop_above_clipping_is_within_five_percent(
    tmp_path: Path, ev: float
) -> None:
    truth = write(tmp_path / "a.CR2", bright_window(ev))
    pair, result, found = recovered(tmp_path / "a.CR2")
    was_clipped = pair.composite >= WHITE - 5
    assert was_clipped.sum() > 1000
    wrong = found[was_clipped] - BLACK - truth[was_clipped]
    assert np.abs(wrong / truth[was_clipped]).max() < 0.05
    assert result.headroom_ev == HEADROOM_EV
    assert result.ceiling_dn > found[was_clipped].max()


@pytest.mark.parametrize(
    ("wb_rggb", "black", "white", "colour"),
    [
        ((1.3, 1.0, 1.0, 2.6), BLACK, WHITE, (1.0, 0.8, 0.5)),
        ((2.6, 1.0, 1.0, 1.3), BLACK, WHITE, (0.6, 0.8, 1.0)),
        (WB_RGGB, 2048, WHITE, (1.0, 1.0, 1.0)),
        (WB_RGGB, BLACK, 13105, (1.0, 1.0, 1.0)),
    ],
    ids=["lamplight", "blue", "high black", "clips early"],
)
def test_other_light_and_other_levels_are_recovered_alike(
    tmp_path: Path,
    wb_rggb: tuple[float, float, float, float],
    black: int,
    white: int,
    colour: tuple[float, float, float],
) -> None:
    light = bright_window(0.9) * np.array(colour)
    truth = write(tmp_path / "a.CR2", light, wb_rggb=wb_rggb, black=black, white=white)
    pair, result, found = recovered(tmp_path / "a.CR2")
    was_clipped = pair.composite >= white - 5
    assert was_clipped.sum() > 1000
    wrong = found[was_clipped] - black - truth[was_clipped]
    assert np.abs(wrong / truth[was_clipped]).max() < 0.05
    assert result.ceiling_dn > found[was_clipped].max()


def test_a_blurred_lamp_whose_views_lie_apart_is_recovered_without_a_pattern(
    tmp_path: Path,
) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    lamp = 1.8 * np.exp(-((y - 96) ** 2 + (x - 190) ** 2) / (2 * 7.0**2))
    light = 0.1 + lamp[..., None] * np.array([1.0, 0.9, 0.7])
    truth = write(tmp_path / "a.CR2", light, apart_px=3.0)
    pair, _, found = recovered(tmp_path / "a.CR2")
    was_clipped = pair.composite >= WHITE - 5
    assert was_clipped.sum() > 50
    wrong = (found[was_clipped] - BLACK) / truth[was_clipped] - 1
    assert np.abs(wrong).max() < 0.05
    first, second = (np.zeros_like(was_clipped) for _ in range(2))
    first[0::2, 1::2], second[1::2, 0::2] = True, True  # the two greens
    greens = [wrong[green[was_clipped]].mean() for green in (first, second)]
    assert abs(greens[0] - greens[1]) < 0.01


def test_samples_that_are_not_clipped_are_the_composites_own(tmp_path: Path) -> None:
    write(tmp_path / "a.CR2", bright_window(0.8))
    pair, _, found = recovered(tmp_path / "a.CR2")
    reliable = pair.composite < pair.composite_clip.start.min()
    np.testing.assert_array_equal(found[reliable], pair.composite[reliable])
    assert (found >= pair.composite).all()


def test_parts_of_any_place_are_parts_of_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.CR2", bright_window(0.8))
    _, result, found = recovered(tmp_path / "a.CR2")
    for rows, columns in ((slice(61, 118), slice(150, 233)), (slice(0, 7), slice(1, 320))):
        part = result.samples(rows, columns).numpy()
        assert np.abs(part - found[rows, columns]).max() <= 1


def test_light_that_neither_frame_holds_lies_at_the_ceiling(tmp_path: Path) -> None:
    truth = write(tmp_path / "a.CR2", bright_window(2.5))
    _, result, found = recovered(tmp_path / "a.CR2")
    blown = truth > 2.4 * RANGE_DN
    assert blown.sum() > 1000
    assert (found[blown] == result.ceiling_dn).all()


@pytest.mark.parametrize(("ev", "wanted"), [(-1, True), (-0.036, True), (0.8, False)])
def test_without_clipping_or_wish_the_composite_keeps_its_scale(
    tmp_path: Path, ev: float, wanted: bool
) -> None:
    write(tmp_path / "a.CR2", bright_window(ev))
    pair, result, found = recovered(tmp_path / "a.CR2", wanted)
    np.testing.assert_array_equal(found, pair.composite)
    assert result.headroom_ev == 0
    assert result.ceiling_dn <= WHITE


def test_the_level_of_clipping_is_the_lowest_measured_one(tmp_path: Path) -> None:
    write(tmp_path / "a.CR2", bright_window(-1))
    pair = read_dual(tmp_path / "a.CR2")
    assert clipping_dn(pair) == pair.white_level
    levels = pair.composite_clip
    full, pile = levels.full.copy(), levels.pile.copy()
    full[1], pile[1] = 13100, 13110
    measured = replace(pair, composite_clip=replace(levels, full=full, pile=pile))
    assert clipping_dn(measured) == 13100
