"""Is what LibRaw decoded a dual-pixel pair? Black levels and plausibility, on plain arrays.

A damaged second frame can decode to wrong pixels without any error. What no damage keeps up: one
photodiode never sees more light than both together, and about half of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpbatch.errors import DamagedError

Mosaic = npt.NDArray[np.uint16]
Cfa = npt.NDArray[np.int8]
Blacks = npt.NDArray[np.float64]
Area = tuple[int, int, int, int]

_EDGE_PX = 8
_FEWEST_SAMPLES = 500
_LOUDEST_MASKED_DN = 256.0
_DARK_DN = 200.0
_MAX_OUTSIDE_SHARE = 0.03
_MEDIAN_SHARE_RANGE = (0.25, 0.75)
_SAMPLE_CELLS = 500
_MEDIAN_OF_CHI_SQUARED = 0.4549


@dataclass(frozen=True)
class MaskedLevel:
    """Black of each colour index and its noise, in DN, on the masked columns of one frame."""

    black: Blacks
    noise_dn: float


def measure_masked_level(mosaic: Mosaic, cfa: Cfa, visible: Area) -> MaskedLevel | None:
    """The level of the optically black columns on the left of the visible area.

    visible: (top, left, height, width). The columns next to either edge are left out. None when
    there are too few columns, when they all hold one value (never stored) or are as loud as a
    picture: then they tell nothing about the black.
    """
    top, left, height, _ = visible
    first, last = _EDGE_PX, (left - _EDGE_PX) // 2 * 2
    black, noise = np.zeros(4), []
    for row, column in np.ndindex(2, 2):
        rows = slice(top + (top + row) % 2, top + height, 2)
        masked = mosaic[rows, first + column : max(last, first) : 2].astype(np.float64).ravel()
        if masked.size < _FEWEST_SAMPLES:
            return None
        middle = np.median(masked)
        spread = 1.4826 * float(np.median(np.abs(masked - middle)))
        # Whole numbers: a spread below 1 DN is measured as 0 or 1.
        kept = masked[np.abs(masked - middle) <= 4 * max(spread, 1.0)]
        black[cfa[row, column]] = kept.mean()
        noise.append(float(kept.std()))
    loudest = max(noise)
    return MaskedLevel(black, loudest) if 0 < loudest < _LOUDEST_MASKED_DN else None


def check_pair(
    composite: Mosaic,
    photodiode: Mosaic,
    *,
    cfa: Cfa,
    composite_black: Blacks,
    photodiode_black: Blacks,
    white_level: int,
    noise_dn: float,
    active: Area,
    name: str,
) -> None:
    """Raise DamagedError when the frames cannot be a composite and one of its photodiodes.

    On a regular sample of unclipped photosites of the active area, with C and A the signals above
    black: the frames differ; at most 3 % of A lie outside -0.1 C to 1.1 C (C at least 200 DN), give
    or take three times the noise that the composite itself shows; the median of A / C is within
    0.25 to 0.75. noise_dn is both frames' noise in the dark.
    """
    if np.array_equal(composite, photodiode):
        raise DamagedError(
            f"{name}: both raw frames are the same picture, expected composite and view"
        )
    both, one, step = [], [], []
    top, left, height, width = active
    stride_y, stride_x = (2 * max(1, side // 2 // _SAMPLE_CELLS) for side in (height, width))
    for row, column in np.ndindex(2, 2):
        color = cfa[(top + row) % 2, (left + column) % 2]
        rows = slice(top + row, top + height - 1, stride_y)
        columns = slice(left + column, left + width - 3, stride_x)
        next_columns = slice(left + column + 2, left + width - 1, stride_x)
        c, a, neighbour = (
            composite[rows, columns],
            photodiode[rows, columns],
            composite[rows, next_columns],
        )
        unclipped = np.maximum(np.maximum(c, a), neighbour) < white_level
        signal = c[unclipped] - composite_black[color]
        both.append(signal)
        one.append(a[unclipped] - photodiode_black[color])
        step.append(neighbour[unclipped] - composite_black[color] - signal)
    _check_signals(np.concatenate(both), np.concatenate(one), np.concatenate(step), noise_dn, name)


def _check_signals(
    both: npt.NDArray[np.float64],
    one: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    noise_dn: float,
    name: str,
) -> None:
    lit = both > _DARK_DN
    if not both.size:
        return  # all clipped: nothing can be told
    # Shot noise: DN of variance per DN of signal, from the difference of next neighbours.
    shot_dn = 0.0
    if lit.any():
        shot_dn = float(np.median(step[lit] ** 2 / both[lit])) / (2 * _MEDIAN_OF_CHI_SQUARED)
    tolerance = 3 * np.sqrt(noise_dn**2 + shot_dn * np.maximum(both, 0))
    floor = np.maximum(both, _DARK_DN)
    outside = float(np.mean((one < -0.1 * floor - tolerance) | (one > 1.1 * floor + tolerance)))
    if outside > _MAX_OUTSIDE_SHARE:
        raise DamagedError(
            f"{name}: {outside:.0%} of the second frame cannot be a part of the first, expected "
            "almost none; the second frame is damaged, copy the file from the card again"
        )
    if lit.sum() < _FEWEST_SAMPLES:
        return
    share = float(np.median(one[lit] / both[lit]))
    lowest, highest = _MEDIAN_SHARE_RANGE
    if not lowest <= share <= highest:
        raise DamagedError(
            f"{name}: the second frame holds {share:.2f} of the first one's light, expected about "
            "0.5; it is no photodiode's view of this photo"
        )
