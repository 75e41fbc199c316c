"""Tone curves and exposure on finished pictures: the exact formula, on the CPU and with torch."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from dpbatch.output.tone import ToneCurve, apply_look, apply_look_tensor
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray

Picture16 = npt.NDArray[np.uint16]
CONTRAST = ToneCurve((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.18, 0.58, 0.85, 1.0))
STEEP = ToneCurve((0.0, 0.03, 0.1, 0.5, 1.0), (0.0, 0.12, 0.35, 0.9, 1.0))
DARK = ToneCurve((0.0, 0.03, 0.1, 0.5, 1.0), (0.0, 0.006, 0.02, 0.1, 1.0))


def as_16_bit(encoded: npt.NDArray[np.floating]) -> Picture16:
    return np.rint(np.clip(encoded, 0, 1) * 65535).astype(np.uint16)


def scene(height: int = 300, width: int = 420) -> FloatArray:
    """Coloured patches of all brightnesses with texture, sRGB-encoded."""
    rng = np.random.default_rng(0)
    patches = rng.beta(1.5, 2.5, (10, 14, 3)) * 0.7 + rng.beta(1.5, 2.5, (10, 14, 1)) * 0.3
    picture = np.asarray(cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.clip(picture + rng.normal(0, 0.01, picture.shape), 0, 1).astype(np.float32)


def all_colours() -> Picture16:
    """Every mixture of random levels, most of them saturated, and the darkest and lightest ones."""
    rng = np.random.default_rng(1)
    parts = [rng.random((50, 300, 3)), rng.random((50, 300, 3)) ** 6, rng.random((20, 300, 1))]
    parts[2] = parts[2] ** [1, 4, 0.3]
    picture = as_16_bit(np.concatenate(parts))
    picture[0, :8] = np.array(np.meshgrid(*[[0, 65535]] * 3)).reshape(3, 8).T
    return picture


def exact(rgb: Picture16, curve: ToneCurve, exposure_ev: float = 0.0) -> npt.NDArray[np.float64]:
    """The same in floats of 64 bits, not rounded, of 65535."""
    encoded = rgb / 65535
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    light = np.minimum(light * 2**exposure_ev, 1)

    def encode(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)

    luminance = encode(light @ [0.2126, 0.7152, 0.0722])
    grey = curve(luminance)
    gain = grey / np.maximum(luminance, 1e-9)
    toned = encode(light) * gain[..., None]
    peak, grey = toned.max(axis=2, keepdims=True), grey[..., None]
    over = (peak > 1) & (peak > grey)
    share = np.divide(1 - grey, peak - grey, out=np.ones_like(grey), where=over)
    return np.asarray(np.clip(grey + (toned - grey) * share, 0, 1) * 65535)


@pytest.mark.parametrize("exposure_ev", [0.0, 1.5])
@pytest.mark.parametrize("curve", [CONTRAST, STEEP, DARK])
def test_the_result_is_the_exact_one_within_four_steps(
    curve: ToneCurve, exposure_ev: float
) -> None:
    picture = all_colours()
    expected = exact(picture, curve, exposure_ev)
    result = apply_look(picture, curve, exposure_ev)
    assert result.dtype == np.uint16
    assert result.shape == picture.shape
    assert np.abs(result - expected).max() <= 4
    assert np.abs(apply_look(picture[:, ::-2], curve, exposure_ev) - expected[:, ::-2]).max() <= 4


@pytest.mark.parametrize("exposure_ev", [0.0, -1.0, 0.7])
@pytest.mark.parametrize("curve", [None, CONTRAST, STEEP])
@pytest.mark.parametrize("channels", [0, -1])
def test_torch_gives_the_same_picture(
    curve: ToneCurve | None, exposure_ev: float, channels: int
) -> None:
    picture = all_colours()
    laid_out = np.ascontiguousarray(np.moveaxis(picture, -1, channels))
    for dtype in (torch.uint16, torch.int32):
        given = torch.from_numpy(laid_out).to(dtype)
        result = apply_look_tensor(given, curve, exposure_ev, channels=channels)
        assert (result.dtype, result.shape) == (dtype, given.shape)
        found = np.moveaxis(result.to(torch.int32).numpy(), channels, -1)
        expected = apply_look(picture, curve, exposure_ev).astype(int)
        assert np.abs(found - expected).max() <= (4 if curve is STEEP else 1)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (1, 1, 3)])
def test_pictures_without_pixels_and_of_one(shape: tuple[int, int, int]) -> None:
    assert apply_look(np.zeros(shape, np.uint16), CONTRAST, 1.0).shape == shape


def test_a_curve_passes_through_its_points_and_stays_between_them() -> None:
    curve = ToneCurve((0.0, 0.2, 0.25, 0.7, 1.0), (0.0, 0.05, 0.3, 0.75, 1.0))
    np.testing.assert_allclose(curve(np.array(curve.x)), curve.y, atol=1e-12)
    assert np.diff(curve(np.linspace(0, 1, 5000))).min() >= 0
    np.testing.assert_allclose(curve(np.array([-0.5, 1.5])), [0, 1])
    straight = ToneCurve((0.0, 0.4, 1.0), (0.0, 0.4, 1.0))
    x = np.linspace(0, 1, 500)
    np.testing.assert_allclose(straight(x), x, atol=1e-12)


def test_grey_stays_grey_and_follows_the_curve() -> None:
    levels = np.arange(0, 65536, 97, dtype=np.uint16)
    grey = np.repeat(levels[:, None, None], 3, 2)
    result = apply_look(grey, CONTRAST)
    assert np.ptp(result.astype(int), axis=2).max() <= 1
    np.testing.assert_allclose(result[:, 0, 0] / 65535, CONTRAST(levels / 65535), atol=2e-4)
    assert (result[0, 0, 0], apply_look(grey[-1:] * 0 + 65535, CONTRAST).min()) == (0, 65535)


def test_colours_keep_their_hue() -> None:
    picture = scene()
    result = apply_look(as_16_bit(picture), CONTRAST) / 65535
    before, after = (
        cv2.cvtColor(np.asarray(x, np.float32), cv2.COLOR_RGB2HSV) for x in (picture, result)
    )
    colourful = (before[..., 1] > 0.1) & (before[..., 2] > 0.1)
    turned = np.abs((after[..., 0] - before[..., 0] + 180) % 360 - 180)[colourful]
    assert turned.max() < 1  # degrees
    assert (after[..., 1] <= before[..., 1] + 0.01)[colourful].all()


def test_a_straight_curve_and_none_change_no_bit() -> None:
    picture = as_16_bit(scene())
    assert apply_look(picture, None) is picture
    straight = ToneCurve((0.0, 1.0), (0.0, 1.0))
    np.testing.assert_array_equal(apply_look(picture, straight), picture)
    picture.flags.writeable = False
    apply_look(picture, CONTRAST, 1.0)


@pytest.mark.parametrize("exposure_ev", [-2.0, -0.5, 1.0, 3.0])
def test_exposure_multiplies_light_and_clips_at_white(exposure_ev: float) -> None:
    encoded = np.linspace(0, 1, 3000, dtype=np.float32).reshape(100, 10, 3)
    result = apply_look(as_16_bit(encoded), None, exposure_ev)
    light = decode_srgb(encoded.copy()) * np.float32(2**exposure_ev)
    expected = encode_srgb(np.minimum(light, np.float32(1)))
    np.testing.assert_allclose(result / 65535, expected, atol=2e-4)
