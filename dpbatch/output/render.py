"""Render a wide picture into a color space, with the camera's tone curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpbatch.output.color_spaces import SPACES, from_linear_srgb
from dpbatch.output.light import LARGEST_LIGHT, Wide, decode_wide, luminance_weights
from dpbatch.output.tone import ToneCurve
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray

_ROLL_OFF_FROM = 0.9
"""sRGB-encoded luminance from which highlights are compressed."""
_ENTRIES = 65536
_ROWS_AT_ONCE = 32


def render_wide(
    wide: Wide, space: str, curve: ToneCurve | None = None, exposure_ev: float = 0.0
) -> npt.NDArray[np.uint16]:
    """Return a picture in a color space, (H, W, 3) uint16, encoded as that has it.

    space: a key of SPACES. curve: the camera's; then light above white is rolled off. Without one
    it is clipped. exposure_ev: light is multiplied by two to the power of it.
    """
    transfer, weights = SPACES[space].curve, luminance_weights(space)
    is_srgb_curve = transfer == SPACES["srgb"].curve
    gains = None if curve is None else rolled_off_gains(curve, LARGEST_LIGHT * 2.0**exposure_ev)
    largest = np.float32(1 if gains is None else LARGEST_LIGHT * 2.0**exposure_ev)
    peak = encode_srgb(np.array([largest]))[0]
    result = np.empty(wide.shape, np.uint16)
    for start in range(0, len(wide), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        light = decode_wide(wide[rows], space)
        if exposure_ev:
            light *= np.float32(2.0**exposure_ev)
        np.clip(light, 0, largest, out=light)
        if gains is not None:
            luminance = encode_srgb(light @ weights)
            shown = _toned(encode_srgb(light), luminance, gains, peak)
            encoded = shown if is_srgb_curve else transfer.encode(decode_srgb(shown))
        else:
            encoded = encode_srgb(light) if is_srgb_curve else transfer.encode(light)
        encoded *= np.float32(65535)
        np.rint(encoded, out=result[rows], casting="unsafe")
    return result


def render_srgb(rgb: npt.NDArray[np.uint16], space: str) -> npt.NDArray[np.uint16]:
    """Return a finished sRGB picture, (H, W, 3) uint16, in another color space."""
    light_of = decode_srgb(np.arange(65536, dtype=np.float32) / np.float32(65535))
    matrix = np.ascontiguousarray(from_linear_srgb(space).T, np.float32)
    result = np.empty(rgb.shape, np.uint16)
    for start in range(0, len(rgb), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        encoded = SPACES[space].curve.encode(np.clip(light_of[rgb[rows]] @ matrix, 0, 1))
        np.rint(encoded * np.float32(65535), out=result[rows], casting="unsafe")
    return result


def rolled_off_gains(curve: ToneCurve, largest_light: float) -> FloatArray:
    """Return tone(x) / x for values x evenly from 0 to the encoded value of the largest light.

    tone: the curve up to white and its last slope beyond, with the highlights compressed so that
    the largest light becomes white (the extended curve of E. Reinhard et al., SIGGRAPH 2002).
    """
    peak = float(encode_srgb(np.array([largest_light], np.float32))[0])
    x = np.linspace(0, peak, _ENTRIES)
    x[0] = x[1]
    last_slope = (1 - float(curve(np.array(1 - 1e-4)))) / 1e-4
    tone = np.where(x <= 1, curve(np.minimum(x, 1)), 1 + last_slope * (x - 1))
    room = 1 - _ROLL_OFF_FROM
    over = np.maximum(tone - _ROLL_OFF_FROM, 0) / room
    most = max(float(over[-1]), 1.0)
    rolled = _ROLL_OFF_FROM + room * over * (1 + over / most**2) / (1 + over)
    tone = np.where(over > 0, rolled, tone)
    return np.asarray(tone / x, np.float32)


def _toned(
    encoded: FloatArray, luminance: FloatArray, gains: FloatArray, peak: np.float32
) -> FloatArray:
    """Return a picture whose luminance follows a curve, in [0, 1].

    encoded, luminance: (h, w, 3) and (h, w), sRGB-encoded, in [0, peak]. gains: factors for
    luminances evenly over that range. As `tone.apply_look` has it, hue and saturation stay; where a
    channel would exceed white, the colour is mixed with grey of its luminance until it does not.
    """
    place = (luminance * (np.float32(len(gains) - 1) / peak) + np.float32(0.5)).astype(np.int32)
    gain = np.take(gains, place, mode="clip")
    result = encoded * gain[..., None]
    # Over an axis of three, max() takes eight times as long.
    highest = np.maximum(np.maximum(result[..., 0], result[..., 1]), result[..., 2])
    over = highest > 1
    grey = np.minimum((luminance * gain)[over], np.float32(1))[:, None]
    share = (1 - grey) / np.maximum(highest[over][:, None] - grey, np.float32(1e-6))
    result[over] = np.clip(grey + (result[over] - grey) * share, 0, 1)
    return np.asarray(result, np.float32)
