"""Estimate the noise level of a single picture, which a network of one view is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray, Picture, as_float

_GREEN = 1
SAMPLE_PX = 128
_SAMPLES = 10
_BLOCK_PX = 16
_QUIET_SHARE = 0.02
"""A block in so many has little else than noise."""
_DARKEST, _BRIGHTEST, _MOST_OUTSIDE = 0.02, 0.98, 0.1
"""Blocks with a larger share of samples near black and white are left out: noise is clipped."""
_MOST = 0.06


def noise_level(picture: Picture) -> float:
    """Return the standard deviation of white noise in the green channel, at most 0.06; white is 1.

    By the median of a second derivative along both axes (Immerkaer 1996) in blocks on a grid of
    windows, of which the quiet ones count; 0 where no block is between black and white.

    picture: (H, W, 3) RGB, sRGB-encoded.
    """
    found = [_block_levels(sample) for sample in _samples(picture)]
    levels = np.concatenate(found) if found else np.zeros(0)
    return min(_MOST, float(np.quantile(levels, _QUIET_SHARE))) if levels.size else 0.0


def _block_levels(plane: FloatArray) -> npt.NDArray[np.float64]:
    """Return the level of each block of a plane that is neither near black nor near white."""
    height, width = (side - 2 - (side - 2) % _BLOCK_PX for side in plane.shape)
    if min(height, width) < _BLOCK_PX:
        return np.zeros(0)
    along_x = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
    both = np.abs(along_x[:-2] - 2 * along_x[1:-1] + along_x[2:])
    medians = np.median(_blocks(both[:height, :width]), axis=1)
    values = _blocks(plane[1 : height + 1, 1 : width + 1])
    inside = ((values < _DARKEST) | (values > _BRIGHTEST)).mean(1) < _MOST_OUTSIDE
    return np.asarray(medians[inside] / (0.6745 * 6), np.float64)


def _blocks(plane: FloatArray) -> FloatArray:
    """(H, W), multiples of the block's side -> (blocks, pixels)."""
    rows, columns = (side // _BLOCK_PX for side in plane.shape)
    cut = plane.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).swapaxes(1, 2)
    return cut.reshape(rows * columns, -1)


def _samples(picture: Picture) -> list[FloatArray]:
    """Return green planes of windows that are spread evenly over the picture."""
    tops, lefts = (sample_starts(side, _SAMPLES) for side in picture.shape[:2])
    return [
        as_float(picture[top : top + SAMPLE_PX, left : left + SAMPLE_PX, _GREEN])
        for top in tops
        for left in lefts
    ]


def sample_starts(side: int, most: int) -> list[int]:
    """Return where samples of SAMPLE_PX begin along a side, evenly spread, at most so many.

    All of a small picture is taken.
    """
    last = max(0, side - SAMPLE_PX)
    count = min(most, -(-side // SAMPLE_PX))
    return sorted({round(last * index / max(1, count - 1)) for index in range(count)})
