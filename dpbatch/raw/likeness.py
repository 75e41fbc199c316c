"""Tell whether two pictures can be the views of one photo."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import Picture

Plane = npt.NDArray[np.float32]

MIN_LIKENESS = 0.4
"""Below, two pictures are not of one scene. Real pairs reach 0.8 and more."""

_LONG_SIDE = 160
_SHIFT_SHARE = 0.04  # of the width: the largest disparity looked for
_BAND_SIGMAS = (1.0, 8.0)
_MIN_SIGNAL_SHARE = 0.5  # of the variance
_NOISE_IN_BAND = 0.5  # 0.16 for white noise, independent in three colours; real noise is coarser
_MAX_ROWS = 1200
_MIN_SIGMA = 0.002


def scene_likeness(left: Picture, right: Picture) -> float | None:
    """Return the correlation of two pictures' structure at the best shift along the rows.

    left, right: (H, W, 3) of one size, integers, or floats with white at 1. The pictures are
    reduced to about 160 px, where noise, blur and parallax matter little, and freed from smooth
    differences of brightness; what noise is left lowers the correlation, which is allowed for. None
    where one of them shows no structure above its noise: nothing can be said about a picture of
    darkness or of an empty sky.
    """
    planes, signal = [], 1.0
    for picture in (left, right):
        small, noise = _reduced(picture)
        band = _band(small)
        sigma = float(band.std())
        share = 1 - (noise / max(sigma, _MIN_SIGMA)) ** 2
        if sigma < _MIN_SIGMA or share < _MIN_SIGNAL_SHARE:
            return None
        planes.append(band)
        signal *= share
    return float(min(1.0, _best_correlation(*planes) / signal**0.5))


def _reduced(picture: Picture) -> tuple[Plane, float]:
    """Return the small grey picture and the standard deviation of the noise in its band."""
    height, width = picture.shape[:2]
    factor = max(1.0, max(height, width) / _LONG_SIDE)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    step = max(1, height // _MAX_ROWS)
    white = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(picture.dtype, 1)
    scale = np.float32(1 / white)
    small = cv2.resize(picture[::step], size, interpolation=cv2.INTER_AREA).astype(np.float32)
    # Robust noise of the green samples, from second differences, in which slopes cancel out;
    # fewer than three columns have none.
    green = picture[:: max(1, height // 400), :, 1].astype(np.float32) * scale
    second = green[:, :-2] - 2 * green[:, 1:-1] + green[:, 2:]
    noise = 1.4826 * float(np.median(np.abs(second))) / 6**0.5 if second.size else 0.0
    averaged = max(1.0, factor * factor / step)
    return np.asarray(
        small.mean(axis=2) * scale, np.float32
    ), _NOISE_IN_BAND * noise / averaged**0.5


def _band(grey: Plane) -> Plane:
    """Return the middle frequencies, with strong edges held down so that none decides alone."""
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in _BAND_SIGMAS)
    band = fine - coarse
    limit = 3 * float(np.median(np.abs(band))) + 1e-6
    return np.asarray(np.clip(band, -limit, limit), np.float32)


def _best_correlation(left: Plane, right: Plane) -> float:
    reach = min(max(1, round(_SHIFT_SHARE * left.shape[1])), left.shape[1] - 1)
    best = -1.0
    for shift in range(-reach, reach + 1):
        a = left[:, max(shift, 0) : left.shape[1] + min(shift, 0)]
        b = right[:, max(-shift, 0) : right.shape[1] + min(-shift, 0)]
        a, b = a - a.mean(), b - b.mean()
        norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
        best = max(best, float((a * b).sum()) / norm if norm > 0 else -1.0)
    return best
