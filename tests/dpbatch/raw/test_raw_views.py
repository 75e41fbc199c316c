"""Colour, tone and noise of a developed photo, whole and in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from dpbatch.raw import develop
from dpbatch.raw.camera_space import camera_to_srgb
from dpbatch.raw.clipping import ClipLevels
from dpbatch.raw.develop import RawViews
from dpbatch.raw.frames import RawPair
from dpbatch.raw.reader import composite_in_libraw, read_dual
from dpbatch.settings import RawSettings
from ldp.srgb import decode_srgb
from tests.helpers.scenes import BLACK, WB_RGGB, WHITE, write_test_dpraw
from training.simulator.cr2.writer import write_dpraw_cr2

HEIGHT, WIDTH = 96, 128
CFA = np.array([[0, 1], [3, 2]], np.int8)
GAINS = np.array([2.0, 1.0, 1.5, 1.0])
XYZ_TO_CAMERA = np.array(
    [[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]]
)
"""LibRaw's for the EOS 5D Mark IV."""
PLAIN = RawSettings(shading=False)
Signal = npt.NDArray[np.float64]
Picture = npt.NDArray[np.float32]


def grey(level: float) -> Signal:
    """The composite's signal of an even grey: `level` times white in every colour."""
    cells = level * (WHITE - BLACK) / GAINS[CFA]
    return np.tile(cells, (HEIGHT // 2, WIDTH // 2))


def pair_of(signal: Signal) -> RawPair:
    """A photo in focus of this signal; black is high, so that noise below it is stored."""
    black, white = 20_000, 20_000 + WHITE - BLACK
    levels = np.full(4, float(black))
    return RawPair(
        composite=np.rint(signal + black).astype(np.uint16),
        photodiode=np.rint(signal / 2 + black).astype(np.uint16),
        cfa=CFA,
        composite_black=levels,
        photodiode_black=levels,
        composite_clip=ClipLevels.at(white),
        photodiode_clip=ClipLevels.at(white),
        white_level=white,
        active=(0, 0, *signal.shape),
        frame_size=(signal.shape[0], signal.shape[1]),
        camera_wb=GAINS,
        daylight_wb=GAINS,
        camera_to_srgb=camera_to_srgb(XYZ_TO_CAMERA),
        orientation=1,
        make="Canon",
        model="",
    )


def opened(pair: RawPair, settings: RawSettings = PLAIN) -> RawViews:
    return RawViews(pair, settings, torch.device("cpu"))


def all_of(views: RawViews) -> tuple[slice, slice]:
    return slice(0, views.size[0]), slice(0, views.size[1])


def linear(views: RawViews) -> Picture:
    """Left, right and composite in linear light, (3, H, W, 3)."""
    area = all_of(views)
    left_and_right, composite = views.pair(*area), views.untouched(*area)
    pictures = torch.stack([left_and_right[:3], left_and_right[3:], composite])
    return decode_srgb(np.ascontiguousarray(pictures.permute(0, 2, 3, 1)))


@pytest.mark.parametrize("level", [-0.1, -0.003, 0.0, 0.004, 0.18, 0.7, 0.99])
def test_an_even_grey_comes_out_as_itself(level: float) -> None:
    """Neutral, linear, negative values too; the views are as bright as the composite."""
    found = linear(opened(pair_of(grey(level))))
    assert np.abs(found - level).max() < 3e-4  # half a DN, of half the light, with gain 2


def test_noise_below_black_keeps_its_mean() -> None:
    noise = np.random.default_rng(0).normal(0, 20, (HEIGHT, WIDTH))
    for found in linear(opened(pair_of(noise))):
        assert (found < 0).mean() > 0.4
        assert abs(found.mean()) < 3e-4


@pytest.mark.parametrize("excess", [1.0, 1.5, 1.9])
def test_clipped_highlights_are_white(excess: float) -> None:
    """All samples at one DN, as where they clip: the gains would make that magenta."""
    signal = np.full((HEIGHT, WIDTH), excess * (WHITE - BLACK))
    np.testing.assert_allclose(linear(opened(pair_of(signal))), 1.0, atol=1e-4)


def test_a_saturated_colour_passes_the_cameras_matrix() -> None:
    """Green photosites alone lie outside sRGB: red and blue come out negative and stay so."""
    signal = grey(0.3)
    signal[0::2, 0::2] = 0
    signal[1::2, 1::2] = 0
    for found in linear(opened(pair_of(signal))):
        assert (found[8:-8, 8:-8, 1] > 0.3).all()
        assert (found[8:-8, 8:-8, [0, 2]] < -0.01).all()


def smooth_scene(height: int, width: int) -> Picture:
    """(H, W, 3) camera colours in linear light, white at 1, without detail."""
    rng = np.random.default_rng(0)

    def blotches(sigma_px: float) -> Signal:
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma_px)
        return np.asarray(noise / noise.std(), np.float64)

    tint = np.stack([1 + 0.2 * np.clip(blotches(100), -2, 2) for _ in range(3)], axis=2)
    light = 0.3 * np.exp(0.3 * blotches(20))
    return np.clip(light[..., None] * tint, 0.01, 0.9).astype(np.float32)


def test_colours_of_a_smooth_scene_are_libraws(tmp_path: Path) -> None:
    scene, mosaic = smooth_scene(256, 384), np.empty((256, 384), np.float32)
    for (row, column), channel, gain in zip(
        ((0, 0), (0, 1), (1, 0), (1, 1)), (0, 1, 1, 2), WB_RGGB, strict=True
    ):
        part = scene[row::2, column::2, channel]
        mosaic[row::2, column::2] = part / gain * (WHITE - BLACK)
    path = tmp_path / "a.cr2"
    write_dpraw_cr2(path, mosaic / 2, mosaic / 2, wb_rggb=WB_RGGB, black_level=BLACK)
    found = linear(opened(read_dual(path)))
    with composite_in_libraw(path) as develop_composite:
        libraw = develop_composite()
    assert libraw.shape == found.shape[1:]
    for picture in found:
        # LibRaw gives colours outside sRGB as 0.
        difference = np.abs(picture.clip(0) - libraw)[8:-8, 8:-8]
        assert difference.mean() < 0.0003
        assert np.percentile(difference, 99.9) < 0.002


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> RawPair:
    path = tmp_path_factory.mktemp("raw") / "a.cr2"
    write_test_dpraw(path, 320, 448, noise_dn=10, highlight=True, disparity_px=3)
    return read_dual(path)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 320), slice(100, 301)),
        (slice(101, 202), slice(0, 448)),
        (slice(311, 320), slice(440, 448)),
    ],
)
def test_a_part_is_developed_as_it_is_in_the_whole(
    photo: RawPair, rows: slice, columns: slice
) -> None:
    views = opened(photo, RawSettings())
    area = all_of(views)
    for whole, part in (
        (views.pair(*area), views.pair(rows, columns)),
        (views.untouched(*area), views.untouched(rows, columns)),
    ):
        np.testing.assert_allclose(part, whole[:, rows, columns], atol=2e-5)


@pytest.fixture
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_three_threads")
def test_pieces_beside_each_other_are_developed_as_one(
    photo: RawPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = slice(11, 307), slice(21, 446)
    found = []
    for pieces in ((1000, 1000), (100, 1000), (20, 60)):
        monkeypatch.setitem(develop.PIECE_PX, "cpu", pieces)
        views = opened(photo, RawSettings())
        found.append((views.pair(*part), views.untouched(*part)))
    for pair, untouched in found[1:]:
        np.testing.assert_allclose(pair, found[0][0], atol=2e-5)
        np.testing.assert_allclose(untouched, found[0][1], atol=2e-5)


def test_few_pixels_come_without_demosaicing_and_look_alike(photo: RawPair) -> None:
    views = opened(photo, RawSettings())
    small = views.reduced(320 * 448 // 9)
    both = views.pair(*all_of(views)).permute(1, 2, 0).numpy()
    assert small.size == (107, 149)
    for number, view in enumerate((small.left, small.right)):
        expected = cv2.resize(
            both[..., 3 * number : 3 * number + 3], (149, 107), interpolation=cv2.INTER_AREA
        )
        assert np.abs(view - expected)[4:-4, 4:-4].mean() < 0.01


def test_swap_exchanges_the_views_and_not_the_composite(photo: RawPair) -> None:
    plain, swapped = (opened(photo, replace(PLAIN, swap=swap)) for swap in (False, True))
    area = all_of(plain)
    assert torch.equal(plain.untouched(*area), swapped.untouched(*area))
    assert torch.equal(plain.pair(*area)[:3], swapped.pair(*area)[3:])


def test_the_composite_has_less_noise_than_the_mean_of_the_views(tmp_path: Path) -> None:
    """Where one photodiode is darkened by the lens, evening that out brings up its noise."""
    rng = np.random.default_rng(0)
    share = np.linspace(0.62, 0.38, WIDTH)
    total = np.full((HEIGHT, WIDTH), 3000.0)
    noise = rng.normal(0, 40, (2, HEIGHT, WIDTH))
    write_dpraw_cr2(tmp_path / "a.cr2", total * share + noise[0], total * (1 - share) + noise[1])
    left, right, composite = linear(opened(read_dual(tmp_path / "a.cr2"), RawSettings()))
    mean = (left + right) / 2
    noise_of_composite, noise_of_mean = (
        picture[:, -24:].std(axis=(0, 1)).mean() for picture in (composite, mean)
    )
    assert noise_of_composite < 0.95 * noise_of_mean
    assert composite.mean() == pytest.approx(mean.mean(), rel=0.01)
