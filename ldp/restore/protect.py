"""Keep what is in focus as it is, and hold the network back where noise is strong.

The result is mean + weight * (restored - mean of what the network saw): in focus the weight is 0
and the mean of the two views, which is the composite photo, stays untouched; strong noise makes the
weight smaller, and the network is given smoothed views, so that its change adds no grain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ldp.restore.tiling import read_map_window
from ldp.types import BlurMap, FloatArray, Plane, ViewPair, as_float

# All in units of the sRGB-encoded picture, white at 1; measured with the simulated sensor from
# ISO 100 (0.002) to 25,600 (0.06), with independent noise on the
# photodiodes or on the frames.
SMOOTHED_FROM = 0.025
"""Noise from which the network is given smoothed views; below, it is trained on the noise."""
WEAKER_FROM, NOTHING_AT = 0.025, 0.055
"""Noise from which less of the network's change is kept, and from which nothing is."""
_RANGE_OF_NOISE = 4.0
_SMOOTHING_PX = 1.5
_SMOOTHING_DIAMETER_PX = 5

IN_FOCUS_PX = 0.05
"""Disparity below which nothing is changed; in noise the map is less exact, so it is larger."""
IN_FOCUS_PX_OF_NOISE = 3.0
OUT_OF_FOCUS_PX = 0.2
"""So much above it, the network's change is kept whole."""

_SAMPLE_PX, _SAMPLES = 128, 8


@dataclass(frozen=True)
class Protection:
    """What is done to keep a photo from getting worse.

    views: the photo's own. shown: what the network is given, smoothed where noise is strong.
    noise: standard deviation of a view's noise in the green channel, white at 1.
    """

    views: ViewPair
    shown: ViewPair
    noise: float

    @classmethod
    def of(cls, views: ViewPair) -> Protection:
        """Measure the noise of two views, and smooth them if it is strong."""
        noise = noise_level(views)
        if noise < SMOOTHED_FROM:
            return cls(views, views, noise)
        left, right = (_smoothed(as_float(view), noise) for view in (views.left, views.right))
        return cls(views, ViewPair(left, right, views.orientation), noise)

    def finish(self, blur_map: BlurMap, first_row: int, band: FloatArray) -> FloatArray:
        """Return rows of the restored picture as they are kept.

        band: (rows, W, 3) as the network gives them, from `first_row` of the picture on.
        """
        rows = slice(first_row, first_row + len(band))
        mean = _mean(self.views, rows)
        seen = mean if self.shown is self.views else _mean(self.shown, rows)
        weight = np.float32(noise_weight(self.noise))
        kept = (band - seen) * weight
        if blur_map.disparity_px is not None:
            plane = focus_weight(blur_map.disparity_px, self.noise)
            window = (first_row, 0, len(band), band.shape[1])
            kept *= read_map_window(plane, self.views.size, *window)[..., None]
        return np.asarray(mean + kept, np.float32)


def noise_level(views: ViewPair) -> float:
    """Return the standard deviation of a view's noise in the green channel, white at 1.

    Measured on the difference of the views, of which the scene is no part but for its shift, by the
    median of a second derivative along both axes (Immerkaer 1996). Sampled on a grid of windows.
    """
    found = [_high_pass(left - right) for left, right in _green_samples(views)]
    deviation = float(np.median(np.concatenate(found))) / 0.6745 / 6
    return deviation / float(np.sqrt(2))


def noise_weight(noise: float) -> float:
    """Return the share of the network's change that is kept in noise of a standard deviation."""
    excess = (noise - WEAKER_FROM) / (NOTHING_AT - WEAKER_FROM)
    return (1 - min(1.0, max(0.0, excess))) ** 2


def focus_weight(disparity_px: Plane, noise: float) -> Plane:
    """Return the share of the network's change that is kept by disparity: 0 in focus, else 1."""
    start_px = IN_FOCUS_PX + IN_FOCUS_PX_OF_NOISE * noise
    share = np.clip((np.abs(disparity_px) - start_px) / OUT_OF_FOCUS_PX, 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _mean(views: ViewPair, rows: slice) -> FloatArray:
    return (as_float(views.left[rows]) + as_float(views.right[rows])) / np.float32(2)


def _smoothed(view: FloatArray, noise: float) -> FloatArray:
    strength = _RANGE_OF_NOISE * noise
    smooth = cv2.bilateralFilter(view, _SMOOTHING_DIAMETER_PX, strength, _SMOOTHING_PX)
    return np.asarray(smooth, np.float32)


def _green_samples(views: ViewPair) -> Sequence[tuple[FloatArray, FloatArray]]:
    tops, lefts = (_starts(side) for side in views.size)
    samples = []
    for top in tops:
        for left in lefts:
            at = (slice(top, top + _SAMPLE_PX), slice(left, left + _SAMPLE_PX), 1)
            samples.append((as_float(views.left[at]), as_float(views.right[at])))
    return samples


def _starts(side: int) -> list[int]:
    """Return where samples begin along an axis, evenly spread; all of a small picture is taken."""
    last = max(0, side - _SAMPLE_PX)
    count = min(_SAMPLES, -(-side // _SAMPLE_PX))
    return sorted({round(last * index / max(1, count - 1)) for index in range(count)})


def _high_pass(plane: FloatArray) -> FloatArray:
    """Return absolute values of a second derivative along x and y, (n,)."""
    if min(plane.shape) < 3:
        return np.zeros(1, np.float32)
    along_x = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
    both = along_x[:-2] - 2 * along_x[1:-1] + along_x[2:]
    return np.asarray(np.abs(both), np.float32).ravel()
