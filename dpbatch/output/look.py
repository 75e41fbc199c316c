"""Give a result the brightness and contrast that the camera gave to its own picture.

The network restores a neutral rendering: linear light under the sRGB curve. A camera applies a tone
curve of its own. That curve is estimated here, as raw converters do, from the preview that the
camera stored in the raw file, and applied to the restored picture.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from typing import TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import Picture, ViewPair, as_float

Rgb8 = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
P = TypeVar("P", bound=Picture)

_LONG_SIDE_PX = 512
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_LEVELS = (0.5, 0.25, 0.75, 0.03, 0.97)
"""The quantiles that the curve passes through, the most important one first."""
_CLOSEST = 0.03
"""Quantiles that are nearer to each other, or to black or white, say nothing about a slope."""
_SLOPES = (0.2, 4.0)
_ITERATIONS = 8
_LARGEST_SHIFT_EV = 3.0
_BLACK_BORDER = 12  # of 255
_ROWS_AT_ONCE = 32


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
        return np.asarray(y[part] + t * cubic, np.float64)


def fit_preview(views: ViewPair, jpeg: bytes) -> ToneCurve | None:
    """Return `fit_curve` of a preview that is a JPEG file; None if it does not decode."""
    encoded = np.frombuffer(jpeg, np.uint8)
    # An eighth of a camera's full-size JPEG decodes fast and is enough.
    for mode in (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_COLOR):
        try:
            bgr = cv2.imdecode(encoded, mode | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # it claims more pixels than OpenCV allows
            return None
        if bgr is not None and max(bgr.shape) >= _LONG_SIDE_PX:
            break
    return None if bgr is None else fit_curve(views, np.ascontiguousarray(bgr[..., ::-1], np.uint8))


def fit_curve(views: ViewPair, preview: Rgb8) -> ToneCurve | None:
    """Return the curve that makes the photo as bright and contrasty as its preview.

    views: neutral, sRGB-encoded. preview: (h, w, 3) sRGB of the same frame, in the orientation of
        the views, smaller or larger, cropped to another aspect ratio or with black bars.

    The luminance of the result has the median and the quartiles of the preview's. Pixels need not
    coincide: a camera corrects lenses. Returns None if the two differ by more than a tone curve
    explains.
    """
    camera = _reduced(as_float(_without_bars(preview)))
    neutral = _cropped(_mean_of(views), camera.shape[1] / camera.shape[0])
    # Of one size: detail that a smaller picture averages away makes the histogram narrower.
    neutral = _resized(neutral, camera.shape[1], camera.shape[0])
    given, wanted = _quantiles(neutral), _quantiles(camera)
    shift_ev = 2.2 * np.log2(max(wanted[0], 1e-3) / max(given[0], 1e-3))
    if abs(shift_ev) > _LARGEST_SHIFT_EV:
        return None
    target = wanted
    curve = _curve_through(given, target)
    for _ in range(_ITERATIONS):
        # Bright colours lose saturation, which changes luminance by a little.
        toned = _toned(neutral, _luminance(neutral), _gains(curve))
        target = target + 0.7 * (wanted - _quantiles(toned))
        curve = _curve_through(given, target)
    return curve


def apply_look(
    rgb: npt.NDArray[np.uint16], curve: ToneCurve | None, exposure_ev: float = 0.0
) -> npt.NDArray[np.uint16]:
    """Return the picture with another exposure and then the curve; itself if there is neither.

    rgb: (H, W, 3) uint16, sRGB-encoded, 65535 is white. exposure_ev: light is multiplied by two to
    the power of it; what exceeds white is clipped.
    """
    if curve is None and exposure_ev == 0:
        return rgb
    encoded = np.arange(65536, dtype=np.float32) / np.float32(65535)
    light = decode_srgb(encoded.copy())
    if exposure_ev:
        light = np.minimum(light * np.float32(2.0**exposure_ev), np.float32(1))
        encoded = encode_srgb(light.copy())
    gains = None if curve is None else _gains(curve)
    result = np.empty_like(rgb)
    for start in range(0, len(rgb), _ROWS_AT_ONCE):
        rows = rgb[start : start + _ROWS_AT_ONCE]
        values = encoded[rows] if exposure_ev else as_float(rows)
        if gains is not None:
            values = _toned(values, encode_srgb(light[rows] @ _LUMINANCE), gains)
        values *= np.float32(65535)
        np.rint(values, out=result[start : start + _ROWS_AT_ONCE], casting="unsafe")
    return result


def _gains(curve: ToneCurve) -> FloatArray:
    """Return curve(x) / x for 65536 values over [0, 1]."""
    x = np.linspace(0, 1, 65536)
    x[0] = x[1]
    return (curve(x) / x).astype(np.float32)


def _toned(encoded: FloatArray, luminance: FloatArray, gains: FloatArray) -> FloatArray:
    """Return a picture whose luminance follows a curve, in [0, 1].

    encoded, luminance: (h, w, 3) and (h, w), sRGB-encoded, in [0, 1]. Hue and saturation stay;
    where a channel would exceed white, the colour is mixed with grey of its luminance until it
    does not.
    """
    gain = gains[(luminance * np.float32(65535) + np.float32(0.5)).astype(np.uint16)]
    toned = encoded * gain[..., None]
    # Over an axis of three, max() takes eight times as long.
    peak = np.maximum(np.maximum(toned[..., 0], toned[..., 1]), toned[..., 2])
    over = peak > 1
    grey = np.minimum((luminance * gain)[over], np.float32(1))[:, None]
    share = (1 - grey) / np.maximum(peak[over][:, None] - grey, np.float32(1e-6))
    toned[over] = np.clip(grey + (toned[over] - grey) * share, 0, 1)
    return np.asarray(toned, np.float32)


def _curve_through(given: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> ToneCurve:
    """Return a curve through pairs of quantiles, without those that would bend it sharply."""
    points = [(0.0, 0.0), (1.0, 1.0)]
    for x, y in zip(given.tolist(), target.tolist(), strict=True):
        place = bisect(points, (x, y))
        if not 0 < place < len(points):
            continue
        (x_before, y_before), (x_after, y_after) = points[place - 1], points[place]
        if min(x - x_before, x_after - x) < _CLOSEST:
            continue
        least, most = _SLOPES
        low = max(y_before + least * (x - x_before), y_after - most * (x_after - x))
        high = min(y_before + most * (x - x_before), y_after - least * (x_after - x))
        points.insert(place, (x, min(max(y, low), high)))
    return ToneCurve(*zip(*points, strict=True))


def _quantiles(picture: FloatArray) -> npt.NDArray[np.float64]:
    return np.quantile(_luminance(picture).astype(np.float64), _LEVELS)


def _mean_of(views: ViewPair) -> FloatArray:
    """Return the mean of the two views in [0, 1], at least _LONG_SIDE_PX if they are."""
    step = max(1, max(views.size) // (2 * _LONG_SIDE_PX))
    width, height = max(1, views.size[1] // step), max(1, views.size[0] // step)
    left, right = (as_float(_resized(view, width, height)) for view in (views.left, views.right))
    return np.clip((left + right) / 2, 0, 1)


def _reduced(picture: FloatArray) -> FloatArray:
    """Return a picture of _LONG_SIDE_PX at most, which averages noise away."""
    scale = min(1.0, _LONG_SIDE_PX / max(picture.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return _resized(picture, width, height)


def _resized(picture: P, width: int, height: int) -> P:
    return cast(P, cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


def _cropped(picture: FloatArray, aspect: float) -> FloatArray:
    """Return the middle of a picture with another ratio of width to height."""
    height, width = picture.shape[:2]
    new_height, new_width = min(height, round(width / aspect)), min(width, round(height * aspect))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return picture[top : top + max(1, new_height), left : left + max(1, new_width)]


def _without_bars(preview: Rgb8) -> Rgb8:
    """Return a preview without black rows at top and bottom and black columns at the sides."""
    lit = preview.max(axis=2) > _BLACK_BORDER
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not rows.size:
        return preview
    return preview[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _luminance(encoded: FloatArray) -> FloatArray:
    """Return the sRGB-encoded luminance of an sRGB-encoded picture."""
    light = decode_srgb(np.array(encoded, np.float32, order="C")) @ _LUMINANCE
    return encode_srgb(np.ascontiguousarray(light))
