"""Laws of the demosaic: what it keeps, what it may not add; neither bands nor phases show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dpbatch.raw.demosaic import Pattern, demosaic

RGGB: Pattern = ((0, 1), (1, 2))
PATTERNS: tuple[Pattern, ...] = (RGGB, ((1, 0), (2, 1)), ((1, 2), (0, 1)), ((2, 1), (1, 0)))
ROUNDING = 1e-6


def sampled(picture: Tensor, pattern: Pattern = RGGB) -> Tensor:
    """The mosaic that a sensor with this pattern makes of a (3, H, W) picture."""
    mosaic = torch.empty_like(picture[0])
    for row in (0, 1):
        for column in (0, 1):
            channel = pattern[row][column]
            mosaic[row::2, column::2] = picture[channel, row::2, column::2]
    return mosaic


def scene(height: int = 48, width: int = 64) -> Tensor:
    """A (3, H, W) picture of coloured rings that become finer, with noise about zero."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rings = 0.5 + 0.5 * torch.cos((x**2 + y**2) / 60)
    colour = torch.tensor([0.9, 0.6, 0.3])[:, None, None]
    return rings * colour + 0.01 * torch.randn(3, height, width, generator=generator)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(2, 2), (2, 3), (3, 2), (5, 4), (21, 22), (48, 64), (33, 47)])
def test_every_sample_is_kept(pattern: Pattern, size: tuple[int, int]) -> None:
    mosaic = sampled(scene(*size), pattern)
    picture = demosaic(mosaic, pattern)
    assert picture.shape == (3, *size)
    assert torch.equal(sampled(picture, pattern), mosaic)


@pytest.mark.parametrize(
    "colour", [(0.0, 0.0, 0.0), (0.4, 0.4, 0.4), (0.9, 0.2, 0.05), (2.0, 3.0, 1.0)]
)
def test_an_even_colour_stays_even(colour: tuple[float, float, float]) -> None:
    picture = torch.tensor(colour)[:, None, None].expand(3, 18, 23)
    torch.testing.assert_close(demosaic(sampled(picture), RGGB), picture, rtol=ROUNDING, atol=1e-7)


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1), (1, -1)])
def test_a_grey_ramp_is_continued(direction: tuple[int, int]) -> None:
    y, x = torch.meshgrid(torch.arange(-32.0, 32), torch.arange(-32.0, 32), indexing="ij")
    grey = 0.5 + (direction[0] * y + direction[1] * x) / 200
    picture = demosaic(sampled(grey.expand(3, -1, -1)), RGGB)
    inside = (picture - grey)[:, 12:-12, 12:-12]
    assert inside.abs().max() < 1e-5  # one step of the ramp is 5e-3


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(48, 64), (33, 47), (3, 5)])
def test_bands_do_not_show(pattern: Pattern, size: tuple[int, int]) -> None:
    mosaic = sampled(scene(*size), pattern)
    whole = demosaic(mosaic, pattern, band_rows=64)
    for band_rows in (2, 6, 32):
        assert torch.equal(demosaic(mosaic, pattern, band_rows=band_rows), whole)


def test_the_same_light_gives_the_same_picture_in_all_four_phases() -> None:
    mosaic = sampled(scene())
    whole = demosaic(mosaic, RGGB)
    for row, column, pattern in zip((0, 0, 1, 1), (0, 1, 0, 1), PATTERNS, strict=True):
        part = demosaic(mosaic[row:, column:], pattern)
        inside = (slice(None), slice(12, -12), slice(12, -12))
        assert torch.equal(part[inside], whole[:, row:, column:][inside])


def test_a_turned_mosaic_gives_the_turned_picture() -> None:
    mosaic = sampled(scene(36, 44))
    whole = demosaic(mosaic, RGGB)
    for dims, pattern in (((1,), PATTERNS[1]), ((0,), PATTERNS[2]), ((0, 1), PATTERNS[3])):
        flipped = demosaic(mosaic.flip(dims), pattern)
        turned = whole.flip([dim + 1 for dim in dims])
        torch.testing.assert_close(flipped, turned, rtol=1e-5, atol=ROUNDING)
    transposed = demosaic(mosaic.T.contiguous(), RGGB)
    torch.testing.assert_close(transposed, whole.transpose(1, 2), rtol=1e-5, atol=ROUNDING)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("softness_px", [0.0, 1.0])
def test_a_grey_edge_gets_no_colour(across: bool, softness_px: float) -> None:
    position = torch.arange(-24.5, 24)
    edge = torch.sigmoid(position / softness_px) if softness_px else (position > 0).float()
    grey = (0.02 + 0.8 * edge).expand(64, -1)
    grey = grey if across else grey.T
    picture = demosaic(sampled(grey.expand(3, -1, -1).contiguous()), RGGB)
    colour = (picture - picture[1]).abs().max()
    assert colour < (5e-3 if softness_px else 2e-2)
    assert (picture - grey).abs().max() < (5e-3 if softness_px else 2e-2)


@pytest.mark.parametrize("level", [0.0, 0.01, 0.2])
def test_noise_is_neither_amplified_nor_shifted(level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mosaic = level + 0.005 * torch.randn(256, 256, generator=generator)
    picture = demosaic(mosaic, RGGB)
    assert picture.std(dim=(1, 2)).max() < 1.1 * 0.005
    assert (picture.mean(dim=(1, 2)) - mosaic.mean()).abs().max() < 0.02 * 0.005
    assert picture.min() > mosaic.min() - 0.01


@pytest.mark.parametrize(("level", "shift"), [(0.008, 0.06), (0.04, 0.015)])
def test_noise_that_is_stronger_in_red_hardly_shifts_the_colours(
    level: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    strength = torch.full((256, 256), 0.004)
    strength[::2, ::2] *= 2  # red's white balance gain
    mosaic = level + strength * torch.randn(256, 256, generator=generator)
    picture = demosaic(mosaic, RGGB)
    assert (picture.mean(dim=(1, 2)) / level - 1).abs().max() < shift


def test_a_repeated_call_gives_the_same_bits() -> None:
    mosaic = sampled(scene())
    before = mosaic.clone()
    assert torch.equal(demosaic(mosaic, RGGB), demosaic(mosaic, RGGB))
    assert torch.equal(mosaic, before)


def test_what_is_no_bayer_mosaic_is_refused() -> None:
    mosaic = torch.zeros(4, 4)
    with pytest.raises(ValueError, match="pattern is"):
        demosaic(mosaic, ((0, 1), (2, 1)))
    with pytest.raises(ValueError, match="expected"):
        demosaic(mosaic[:1], RGGB)
    with pytest.raises(ValueError, match="float64"):
        demosaic(mosaic.double(), RGGB)
    with pytest.raises(ValueError, match="band_rows is 3"):
        demosaic(mosaic, RGGB, band_rows=3)
