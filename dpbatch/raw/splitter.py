"""Split two raw frames into two views by subtraction and rebuild clipped highlights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dpbatch.raw.highlights import rebuild_highlights

if TYPE_CHECKING:
    from dpbatch.raw.frames import RawPair

FloatPlane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SplitMosaics:
    """The two views as raw mosaics, masked borders included.

    left, right: (H, W) float32, linear, DN above black, signed, not clipped. They sum to the
        composite above black wherever that is not clipped.
    unreliable: (H, W) bool, True where the composite or the photodiode's frame is clipped or
        nearly so; there the second view is rebuilt more and more, rather than subtracted.
    """

    left: FloatPlane
    right: FloatPlane
    unreliable: Mask


def split(pair: RawPair, swap: bool = False) -> SplitMosaics:
    """Return the photodiode's frame as one view and composite minus photodiode as the other.

    Frame 1 is the left view; swap makes it the right one. Where the composite clips, the difference
    is too small, in green more than in red and blue, and the picture turns magenta. There the
    second view is the first one times the ratio of the views in the neighbourhood, at least the
    difference (the clipped composite is a lower bound of the true one). Where the photodiode's
    frame clips too, nothing of the colour is left: the first view is white, the second as well, or
    a neutral tone where the other colours show that it is darker. Between the levels `start` and
    `full` of clipping, one goes over into the other.
    """
    first: FloatPlane = np.empty(pair.photodiode.shape, np.float32)
    second = np.empty_like(first)
    unreliable: Mask = np.empty(first.shape, np.bool_)
    width = first.shape[1]
    for row in (0, 1):  # whole rows: several times faster than every other sample
        rows = slice(row, None, 2)
        black = np.tile(pair.photodiode_black[pair.cfa[row]].astype(np.float32), -(-width // 2))
        np.subtract(pair.photodiode[rows], black[:width], out=first[rows])
        black = np.tile(pair.composite_black[pair.cfa[row]].astype(np.float32), -(-width // 2))
        np.subtract(pair.composite[rows], black[:width], out=second[rows])
        second[rows] -= first[rows]
        limits, second_limits = (
            np.tile(np.ceil(clip.start[pair.cfa[row]]).astype(np.uint16), -(-width // 2))[:width]
            for clip in (pair.composite_clip, pair.photodiode_clip)
        )
        np.greater_equal(pair.composite[rows], limits, out=unreliable[rows])
        unreliable[rows] |= pair.photodiode[rows] >= second_limits
    if unreliable.any():
        rebuild_highlights(pair, first, second, unreliable)
    return SplitMosaics(*((second, first) if swap else (first, second)), unreliable)
