"""Tone curves, and their use on finished pictures: with OpenCV on the CPU, with torch anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)
_WHITE = np.float32(65535)
_STEPS = 1 << 18
_LEAST_DISTANCE = np.float32(0.07)
"""From grey to the brightest channel, of 65535: instead of a division by zero."""
_PIXELS_AT_ONCE = 1 << 15
"""Temporaries of so many pixels stay in the processor's cache."""


@dataclass(frozen=True)
class ToneCurve:
    """A smooth increasing curve on sRGB-encoded values.

    x, y: the points that it passes through, both increasing from 0 to 1.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, encoded: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the curve at values of any shape, which are clipped to [0, 1].

        Between two points it is a cubic; its slopes at the points keep it monotone (F. N. Fritsch
        and J. Butland, SIAM J. Sci. Stat. Comput. 5, 1984).
        """
        x, y = np.array(self.x), np.array(self.y)
        widths = np.diff(x)
        secants = np.diff(y) / widths
        before, after = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
        inner = (before + after) / (before / secants[:-1] + after / secants[1:])
        slopes = np.concatenate([secants[:1], inner, secants[-1:]])
        at = np.clip(np.asarray(encoded, np.float64), 0, 1)
        part = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(widths) - 1)
        t, width, rise = (at - x[part]) / widths[part], widths[part], np.diff(y)[part]
        first, second = slopes[part] * width, slopes[part + 1] * width
        cubic = first + t * (3 * rise - 2 * first - second + t * (first + second - 2 * rise))
        return np.asarray(np.clip(y[part] + t * cubic, 0, 1), np.float64)


@dataclass(frozen=True)
class ToneTables:
    """What an exposure and a tone curve do to a 16-bit value, for lookup.

    light: (65536,) linear light in [0, 1] of a value after the change of exposure.
    exposed: (65536,) the value after the change of exposure, in [0, 65535].
    gains, greys: by the square root of luminance in linear light, in equal steps over [0, 1]: the
        factor that the curve applies to encoded values, and grey of the new luminance in
        [0, 65535]. Small steps of the root are small steps of encoded values, also near black.
    """

    light: FloatArray
    exposed: FloatArray
    gains: FloatArray
    greys: FloatArray

    @classmethod
    def of(cls, curve: ToneCurve | None, exposure_ev: float, steps: int = _STEPS) -> ToneTables:
        """Compute the tables. With fewer steps they are faster to make and less exact."""
        levels = np.arange(65536, dtype=np.float32)
        light = decode_srgb(levels / _WHITE)
        exposed = levels
        if exposure_ev:
            light = np.minimum(light * np.float32(2.0**exposure_ev), np.float32(1))
            exposed = encode_srgb(light.copy()) * _WHITE
        if curve is None:
            return cls(light, exposed, np.ones(1, np.float32), np.zeros(1, np.float32))
        roots = np.linspace(0, 1, steps, dtype=np.float32)
        roots[0] = roots[1]  # the limit of curve(x) / x
        luminance = encode_srgb(roots * roots).astype(np.float64)
        toned = curve(luminance)
        gains, greys = toned / luminance, toned * 65535
        return cls(light, exposed, gains.astype(np.float32), greys.astype(np.float32))


def apply_look(
    rgb: npt.NDArray[np.uint16], curve: ToneCurve | None, exposure_ev: float = 0.0
) -> npt.NDArray[np.uint16]:
    """Return the picture with another exposure and then the curve; itself if there is neither.

    rgb: (H, W, 3) uint16, sRGB-encoded, 65535 is white. exposure_ev: light is multiplied by two to
    the power of it; what exceeds white is clipped.

    The curve sets luminance. Hue and saturation stay; where a channel would exceed white, the
    colour is mixed with grey of the new luminance until it does not.
    """
    if (curve is None and exposure_ev == 0) or not rgb.size:
        return rgb
    tables = ToneTables.of(curve, exposure_ev)
    if curve is None:
        levels = np.rint(tables.exposed).astype(np.uint16)
        return np.asarray(np.take(levels, rgb, mode="clip"), np.uint16)
    return apply_tables(rgb, tables)


def apply_tables(rgb: npt.NDArray[np.uint16], tables: ToneTables) -> npt.NDArray[np.uint16]:
    """Return the picture after a change of exposure and a curve.

    rgb: as for `apply_look`, of one pixel at least.
    """
    result = np.empty(rgb.shape, np.uint16)
    is_exposed = bool(tables.exposed[1] != 1)
    weights = np.array(LUMINANCE, np.float32)
    last = np.float32(len(tables.gains) - 1)
    step = max(1, _PIXELS_AT_ONCE // rgb.shape[1])
    for start in range(0, len(rgb), step):
        rows = np.ascontiguousarray(rgb[start : start + step])
        root = np.sqrt(np.take(tables.light, rows, mode="clip") @ weights)
        place = (root * last + np.float32(0.5)).astype(np.int32)
        gain = np.take(tables.gains, place, mode="clip")
        values = np.take(tables.exposed, rows, mode="clip") if is_exposed else rows
        red, green, blue = cv2.split(values)
        peak = np.maximum(np.maximum(red, green), blue) * gain
        if peak.max() <= _WHITE:
            toned = cv2.multiply(values, cv2.merge([gain] * 3), dtype=cv2.CV_16U)
        else:
            grey = np.take(tables.greys, place, mode="clip")
            # 1 where no channel exceeds white, for the divisor is the dividend there.
            share = (_WHITE - grey) / np.maximum(np.maximum(peak, _WHITE) - grey, _LEAST_DISTANCE)
            factors = cv2.merge([gain * share] * 3)
            mixed = cv2.multiply(values, factors, dtype=cv2.CV_32F)
            toned = cv2.add(mixed, cv2.merge([grey * (1 - share)] * 3), dtype=cv2.CV_16U)
        result[start : start + step] = toned
    return result


def apply_look_tensor(
    rgb: Tensor, curve: ToneCurve | None, exposure_ev: float = 0.0, *, channels: int = 0
) -> Tensor:
    """Return what `apply_look` returns, within 4 of 65535, computed where the picture is.

    rgb: uint16, or int32 in [0, 65535], sRGB-encoded; (3, H, W), or with `channels` = -1 (H, W, 3).
        Returns the same shape and type, the picture itself for a neutral look. Temporaries take
        about 40 bytes a pixel: give a picture that is too large for that in bands of rows. The
        tables of the last curves stay on the device.
    """
    import torch

    if curve is None and exposure_ev == 0:
        return rgb
    light, exposed, gains, greys = _tables_on(rgb.device, curve, exposure_ev)
    shape = rgb.select(channels, 0).shape
    levels = [plane.to(torch.int32).reshape(-1) for plane in rgb.unbind(channels)]
    values = [exposed.index_select(0, plane) for plane in levels]
    if curve is not None:
        planes = zip(LUMINANCE, levels, strict=True)
        weighted = [light.index_select(0, plane) * weight for weight, plane in planes]
        root = (weighted[0] + weighted[1] + weighted[2]).sqrt()
        last = len(gains) - 1
        place = (root * last + 0.5).to(torch.int32).clamp_(max=last)
        gain, grey = gains.index_select(0, place), greys.index_select(0, place)
        peak = torch.maximum(torch.maximum(values[0], values[1]), values[2]) * gain
        share = (65535 - grey) / (peak.clamp(min=65535) - grey).clamp(min=float(_LEAST_DISTANCE))
        factor, rest = gain * share, grey * (1 - share)
        values = [value * factor + rest for value in values]
    toned = [(value + 0.5).clamp_(max=65535).to(rgb.dtype).reshape(shape) for value in values]
    return torch.stack(toned, channels)


@lru_cache(maxsize=2)
def _tables_on(
    device: torch.device, curve: ToneCurve | None, exposure_ev: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four tables on a device; a photo that comes in bands needs them many times."""
    import torch

    tables = ToneTables.of(curve, exposure_ev)
    return (
        torch.from_numpy(tables.light).to(device),
        torch.from_numpy(tables.exposed).to(device),
        torch.from_numpy(tables.gains).to(device),
        torch.from_numpy(tables.greys).to(device),
    )
