"""Give a result the brightness and contrast that the camera gave to its own picture.

The network restores a neutral rendering: linear light under the sRGB curve. A camera applies a tone
curve of its own. That curve is estimated here, as raw converters do, from the preview that the
camera stored in the raw file, and applied to the restored picture.
"""

from __future__ import annotations

from bisect import bisect
from typing import TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.output.tone import LUMINANCE, ToneCurve, ToneTables, apply_tables
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray, Picture, ViewPair, as_float, to_uint16

Rgb8 = npt.NDArray[np.uint8]
P = TypeVar("P", bound=Picture)

_LONG_SIDE_PX = 512
READ_PIXELS = 4 * _LONG_SIDE_PX**2
"""Of the views, which fit_curve scales down further."""
_LEVELS = (0.5, 0.25, 0.75, 0.03, 0.97)
"""The quantiles that the curve passes through, the most important one first."""
_CLOSEST = 0.03
"""Quantiles that are nearer to each other, or to black or white, say nothing about a slope."""
_SLOPES = (0.2, 4.0)
_ITERATIONS = 8
_LARGEST_SHIFT_EV = 3.0
_BLACK_BORDER = 12  # of 255
_STEPS = 4096  # of the tables; enough for quantiles


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
    levels = to_uint16(neutral)
    given, wanted = _quantiles(neutral), _quantiles(camera)
    shift_ev = 2.2 * np.log2(max(wanted[0], 1e-3) / max(given[0], 1e-3))
    if abs(shift_ev) > _LARGEST_SHIFT_EV:
        return None
    target = wanted
    curve = _curve_through(given, target)
    for _ in range(_ITERATIONS):
        # Bright colours lose saturation, which changes luminance by a little.
        toned = apply_tables(levels, ToneTables.of(curve, 0, _STEPS))
        target = target + 0.7 * (wanted - _quantiles(as_float(toned)))
        curve = _curve_through(given, target)
    return curve


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


def mean_pair(views: ViewPair) -> ViewPair:
    """Return a pair that gives the same curve, with the mean of two views in place of both."""
    mean = _mean_of(views)
    return ViewPair(mean, mean)


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
    # The largest of three values a pixel; NumPy's own maximum along a short axis takes much longer.
    lit = np.maximum(np.maximum(preview[..., 0], preview[..., 1]), preview[..., 2]) > _BLACK_BORDER
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not rows.size:
        return preview
    return preview[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _luminance(encoded: FloatArray) -> FloatArray:
    """Return the sRGB-encoded luminance of an sRGB-encoded picture."""
    light = decode_srgb(np.array(encoded, np.float32, order="C")) @ np.array(LUMINANCE, np.float32)
    return encode_srgb(np.ascontiguousarray(light))
