"""The camera's look: brightness and contrast agree with the preview, colours keep their hue."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from dpbatch.output.look import fit_curve, fit_preview
from dpbatch.output.tone import apply_look
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import ViewPair

FloatArray = npt.NDArray[np.float32]
Camera = Callable[[FloatArray], FloatArray]


def scene(height: int = 300, width: int = 420, seed: int = 0) -> FloatArray:
    """A neutral rendering: coloured patches of all brightnesses with texture, sRGB-encoded."""
    rng = np.random.default_rng(seed)
    patches = rng.beta(1.5, 2.5, (10, 14, 3)) * 0.7 + rng.beta(1.5, 2.5, (10, 14, 1)) * 0.3
    picture = np.asarray(cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.clip(picture + rng.normal(0, 0.01, picture.shape), 0, 1).astype(np.float32)


def s_curve(encoded: FloatArray) -> FloatArray:
    """A third of a stop brighter, more contrast."""
    bright = encode_srgb(np.minimum(decode_srgb(encoded.copy()) * np.float32(1.26), np.float32(1)))
    return np.asarray(bright + 0.12 * np.sin(2 * np.pi * (bright - 0.5)) / 2, np.float32).clip(0, 1)


def brighter(encoded: FloatArray) -> FloatArray:
    return encode_srgb(np.minimum(decode_srgb(encoded.copy()) * np.float32(2), np.float32(1)))


def darker(encoded: FloatArray) -> FloatArray:
    return encode_srgb(decode_srgb(encoded.copy()) * np.float32(0.6))


def flatter(encoded: FloatArray) -> FloatArray:
    return np.asarray(0.08 + 0.8 * encoded, np.float32)


CAMERAS = [s_curve, brighter, darker, flatter, np.copy]


def as_8_bit(encoded: FloatArray) -> npt.NDArray[np.uint8]:
    return np.rint(encoded * 255).astype(np.uint8)


def views_of(neutral: FloatArray) -> ViewPair:
    """Two views whose mean is the picture; the noise is each one's own."""
    noise = np.random.default_rng(1).normal(0, 0.01, neutral.shape).astype(np.float32)
    return ViewPair(neutral + noise, neutral - noise)


def as_16_bit(encoded: FloatArray) -> npt.NDArray[np.uint16]:
    return np.rint(np.clip(encoded, 0, 1) * 65535).astype(np.uint16)


def quartiles_ev(encoded: FloatArray) -> npt.NDArray[np.float64]:
    """The quartiles and the median of the luminance, in EV."""
    light = decode_srgb(np.ascontiguousarray(encoded, np.float32).copy())
    luminance = light @ np.array([0.2126, 0.7152, 0.0722])
    return np.log2(np.quantile(luminance, [0.25, 0.5, 0.75]))


def looked(neutral: FloatArray, preview: npt.NDArray[np.uint8]) -> FloatArray:
    curve = fit_curve(views_of(neutral), preview)
    assert curve is not None
    return np.asarray(apply_look(as_16_bit(neutral), curve) / 65535, np.float32)


@pytest.mark.parametrize("camera", CAMERAS)
def test_median_and_quartiles_agree_with_the_cameras_within_a_tenth_of_a_stop(
    camera: Camera,
) -> None:
    neutral = scene()
    wanted = camera(neutral)
    result = looked(neutral, as_8_bit(wanted))
    assert np.abs(quartiles_ev(result) - quartiles_ev(wanted)).max() < 0.1
    if camera in (s_curve, brighter, darker):
        assert np.abs(quartiles_ev(neutral) - quartiles_ev(wanted)).max() > 0.3  # it does something


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_the_preview_may_have_another_size(scale: float) -> None:
    neutral = scene()
    preview = cv2.resize(
        as_8_bit(s_curve(neutral)), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
    )
    result = looked(neutral, np.asarray(preview, np.uint8))
    assert np.abs(quartiles_ev(result) - quartiles_ev(s_curve(neutral))).max() < 0.1


def test_black_bars_and_a_crop_to_another_shape_do_not_count() -> None:
    neutral = scene()
    preview = as_8_bit(s_curve(neutral))
    wanted = quartiles_ev(s_curve(neutral))
    barred = cv2.copyMakeBorder(preview, 40, 40, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    assert np.abs(quartiles_ev(looked(neutral, np.asarray(barred, np.uint8))) - wanted).max() < 0.1
    square = np.ascontiguousarray(preview[:, 60:-60])
    middle = np.ascontiguousarray(neutral[:, 60:-60])
    result = np.ascontiguousarray(looked(neutral, square)[:, 60:-60])
    assert np.abs(quartiles_ev(result) - quartiles_ev(s_curve(middle))).max() < 0.1


def test_a_camera_without_a_curve_changes_next_to_nothing() -> None:
    neutral = scene()
    assert np.abs(looked(neutral, as_8_bit(neutral)) - neutral).max() < 0.02


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_curve_is_smooth_and_increasing(camera: Camera) -> None:
    neutral = scene()
    curve = fit_curve(views_of(neutral), as_8_bit(camera(neutral)))
    assert curve is not None
    x = np.linspace(0, 1, 2001)
    y = curve(x)
    assert (y[0], y[-1]) == (0, 1)
    slopes = np.diff(y) / np.diff(x)
    assert slopes.min() > 0.05
    assert slopes.max() < 6
    assert np.abs(np.diff(slopes)).max() < 0.1  # no kinks: x advances by 1/2000


def jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("side", [160, 5000])
def test_previews_of_any_size_are_decoded(side: int) -> None:
    neutral = scene()
    preview = cv2.resize(as_8_bit(s_curve(neutral)), (side, side * 5 // 7))
    curve = fit_preview(views_of(neutral), jpeg(np.asarray(preview, np.uint8)))
    assert curve is not None
    result = np.asarray(apply_look(as_16_bit(neutral), curve) / 65535, np.float32)
    assert np.abs(quartiles_ev(result) - quartiles_ev(s_curve(neutral))).max() < 0.1


@pytest.mark.parametrize("content", [b"", b"no JPEG", b"\xff\xd8\xff\xe0" + bytes(50)])
def test_a_preview_that_does_not_decode_gives_no_curve(content: bytes) -> None:
    assert fit_preview(views_of(scene()), content) is None


def test_a_preview_of_something_else_gives_no_curve() -> None:
    night = scene() * np.float32(0.04)
    assert fit_curve(views_of(night), as_8_bit(np.full_like(night, 0.9))) is None


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_a_picture_of_one_level_is_no_trouble(level: float) -> None:
    flat = np.full((60, 90, 3), level, np.float32)
    curve = fit_curve(ViewPair(flat, flat), as_8_bit(flat))
    assert curve is not None
    assert np.abs(apply_look(as_16_bit(flat), curve) / 65535 - flat).max() < 0.01
