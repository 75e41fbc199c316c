"""Check that two decoded raw frames are a composite and one of its photodiodes.

A damaged second frame can decode to wrong pixels without an error. In a true pair one photodiode
receives about half of the composite's light and never more than all of it; damaged data does not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpbatch.errors import DamagedError
from dpbatch.raw.clipping import ClipLevels

Mosaic = npt.NDArray[np.uint16]
Cfa = npt.NDArray[np.int8]
Blacks = npt.NDArray[np.float64]
Area = tuple[int, int, int, int]

_MIN_SAMPLES = 500
_MIN_SIGNAL_DN = 200.0
_MAX_OUTSIDE_SHARE = 0.03
_MEDIAN_SHARE_RANGE = (0.25, 0.75)
_SAMPLE_CELLS = 300
_MEDIAN_OF_CHI_SQUARED = 0.4549
_NOISE_CLASSES = 16


def check_pair(
    composite: Mosaic,
    photodiode: Mosaic,
    *,
    cfa: Cfa,
    composite_black: Blacks,
    photodiode_black: Blacks,
    clipping: tuple[ClipLevels, ClipLevels],
    noise_dn: float,
    name: str,
) -> None:
    """Raise DamagedError where the frames cannot be a composite and one of its photodiodes.

    Tested on a regular grid of unclipped photosites of the pictures, with C and A the signals
    above black: at most 3 % of A lie outside -0.1 C to 1.1 C (C at least
    200 DN) by more than three times the composite's noise; the median of A / C is within 0.25 to
    0.75. clipping: of the composite and of the photodiode's frame. noise_dn: noise of both frames
    in the dark, added in quadrature.
    """
    composite_dn, photodiode_dn, step_dn = [], [], []
    height, width = composite.shape
    stride_y, stride_x = (2 * max(1, side // 2 // _SAMPLE_CELLS) for side in (height, width))
    for row, column in np.ndindex(2, 2):
        color = cfa[row, column]
        rows = slice(row, height - 1, stride_y)
        columns = slice(column, width - 3, stride_x)
        next_columns = slice(column + 2, width - 1, stride_x)
        c, a, neighbour = (
            composite[rows, columns],
            photodiode[rows, columns],
            composite[rows, next_columns],
        )
        unclipped = np.maximum(c, neighbour) < clipping[0].start[color]
        unclipped &= a < clipping[1].start[color]
        signal = c[unclipped] - composite_black[color]
        composite_dn.append(signal)
        photodiode_dn.append(a[unclipped] - photodiode_black[color])
        step_dn.append(neighbour[unclipped] - composite_black[color] - signal)
    signals = (np.concatenate(parts) for parts in (composite_dn, photodiode_dn, step_dn))
    _check_signals(*signals, noise_dn=noise_dn, name=name)


def _variance_by_signal(
    signal_dn: npt.NDArray[np.float64], step_dn: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the variance of the noise of every sample, from the differences of adjacent ones.

    Of classes of samples with about the same signal, the median of the squared difference: noise
    is everywhere, detail is not. The masked columns do not tell it: a photo in little light, at a
    high ISO, has more noise than they.
    """
    order = np.argsort(signal_dn)
    variance = np.empty_like(signal_dn)
    for members in np.array_split(order, min(_NOISE_CLASSES, signal_dn.size)):
        squared = np.median(step_dn[members] ** 2)
        variance[members] = squared / (2 * _MEDIAN_OF_CHI_SQUARED)
    return variance


def _check_signals(
    composite_dn: npt.NDArray[np.float64],
    photodiode_dn: npt.NDArray[np.float64],
    step_dn: npt.NDArray[np.float64],
    *,
    noise_dn: float,
    name: str,
) -> None:
    if not composite_dn.size:
        return  # every sample is clipped: nothing to compare
    lit = composite_dn > _MIN_SIGNAL_DN
    variance = np.maximum(noise_dn**2, _variance_by_signal(composite_dn, step_dn))
    tolerance = 3 * np.sqrt(variance)
    floor = np.maximum(composite_dn, _MIN_SIGNAL_DN)
    too_dark = photodiode_dn < -0.1 * floor - tolerance
    too_bright = photodiode_dn > 1.1 * floor + tolerance
    outside = float(np.mean(too_dark | too_bright))
    if outside > _MAX_OUTSIDE_SHARE:
        raise DamagedError(
            f"{name}: {outside:.0%} of the second frame is darker or brighter than a part of the "
            f"first can be, expected at most {_MAX_OUTSIDE_SHARE:.0%}; the second frame is "
            "damaged, copy the file from the card again"
        )
    if lit.sum() < _MIN_SAMPLES:
        return
    share = float(np.median(photodiode_dn[lit] / composite_dn[lit]))
    lowest, highest = _MEDIAN_SHARE_RANGE
    if not lowest <= share <= highest:
        raise DamagedError(
            f"{name}: the second frame has {share:.2f} times the first frame's light, expected "
            "about 0.5; it does not belong to this photo"
        )
