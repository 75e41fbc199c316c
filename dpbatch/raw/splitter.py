"""Split two raw frames into two views by subtraction and rebuild clipped highlights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dpbatch.raw.reader import RawPair

FloatPlane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# The four samples of a 2x2 CFA cell: (row, column) at the mosaic's origin.
CFA_POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))

_BLOCK_CELLS = 8  # ratios are measured on blocks of 8x8 CFA cells, 16x16 photosites
_RATIO_SCALES_BLOCKS = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5)
_SIGNAL_HALF_TRUSTED_DN = 50.0  # a block of this mean signal counts half of a bright one


@dataclass(frozen=True)
class SplitMosaics:
    """The two views as raw mosaics, masked borders included.

    left, right: (H, W) float32, linear, DN above black, signed, not clipped. They sum to the
        composite above black wherever that is not clipped.
    unreliable: (H, W) bool, True where the composite or the photodiode's frame is clipped; there
        the second view is rebuilt rather than subtracted.
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
    frame clips too, both views get the white level.
    """
    first: FloatPlane = np.empty(pair.photodiode.shape, np.float32)
    second = np.empty_like(first)
    unreliable = pair.composite >= pair.white_level
    unreliable |= pair.photodiode >= pair.white_level
    width = first.shape[1]
    for row in (0, 1):  # whole rows: several times faster than every other sample
        rows = slice(row, None, 2)
        black = np.tile(pair.photodiode_black[pair.cfa[row]].astype(np.float32), -(-width // 2))
        np.subtract(pair.photodiode[rows], black[:width], out=first[rows])
        black = np.tile(pair.composite_black[pair.cfa[row]].astype(np.float32), -(-width // 2))
        np.subtract(pair.composite[rows], black[:width], out=second[rows])
        second[rows] -= first[rows]
    if unreliable.any():
        _rebuild(pair, first, second, unreliable)
    return SplitMosaics(*((second, first) if swap else (first, second)), unreliable)


def _rebuild(pair: RawPair, first: FloatPlane, second: FloatPlane, unreliable: Mask) -> None:
    """Replace the unreliable samples of `second`, in place; those of `first` where it clips too."""
    ratios = _second_to_first(first, second, unreliable)
    for ratio, (row, column) in zip(ratios, CFA_POSITIONS, strict=True):
        cell = (slice(row, None, 2), slice(column, None, 2))
        color = pair.cfa[row, column]
        rows, columns = np.nonzero(unreliable[cell])
        signal = first[cell][rows, columns]
        rebuilt = np.maximum(signal * _sample(ratio, rows, columns), second[cell][rows, columns])
        clipped_too = pair.photodiode[cell][rows, columns] >= pair.white_level
        white_dn = np.float32(pair.white_level - pair.composite_black[color])
        first[cell][rows, columns] = np.where(clipped_too, white_dn, signal)
        second[cell][rows, columns] = np.where(clipped_too, white_dn, rebuilt)


def _second_to_first(first: FloatPlane, second: FloatPlane, unreliable: Mask) -> list[FloatPlane]:
    """Return the ratio second / first around every block, one plane a CFA position.

    Red and blue often have signal where green is clipped. So the local part of the ratio (a
    defocused edge moves light from one view to the other) is measured on all colours together, and
    only the part that is smooth over the frame (colour shading) on each colour by itself.
    """
    sums = []
    common = np.float32(1)  # 1 on blocks where no colour is clipped: only these are comparable
    for row, column in CFA_POSITIONS:
        cell = (slice(row, None, 2), slice(column, None, 2))
        reliable = ~unreliable[cell]
        sums.append(
            (
                block_sums(second[cell] * reliable, _BLOCK_CELLS),
                block_sums(first[cell] * reliable, _BLOCK_CELLS),
            )
        )
        common = common * (block_sums(unreliable[cell].astype(np.float32), _BLOCK_CELLS) == 0)
    wide_sigma = max(sums[0][0].shape) / 6
    wide = [_blurred_ratio(a * common, b * common, wide_sigma) for a, b in sums]
    above = np.sum([a / w for (a, _), w in zip(sums, wide, strict=True)], axis=0)
    below = np.sum([b for _, b in sums], axis=0)
    local = np.ones_like(below)
    half_trusted = np.float32(4 * _BLOCK_CELLS**2 * _SIGNAL_HALF_TRUSTED_DN)
    for sigma in _RATIO_SCALES_BLOCKS:
        signal = np.maximum(_blur(below, sigma), 0)
        trust = signal / (signal + half_trusted)
        local += trust * (_blurred_ratio(above, below, sigma) - local)
    return [w * local for w in wide]


def block_sums(plane: FloatPlane, side: int) -> FloatPlane:
    """Sum squares of side x side samples; incomplete squares at the far edges are dropped."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    whole = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.asarray(whole.sum(axis=(1, 3)), np.float32)


def _blur(plane: FloatPlane, sigma: float) -> FloatPlane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _blurred_ratio(above: FloatPlane, below: FloatPlane, sigma: float) -> FloatPlane:
    """Return above / below of the Gaussian neighbourhood, within 1/4 to 4; 1 without signal."""
    numerator, denominator = _blur(above, sigma), _blur(below, sigma)
    has_signal = (denominator > 1) & (numerator > 0)
    ratio = np.divide(numerator, denominator, out=np.ones_like(numerator), where=has_signal)
    return np.clip(ratio, np.float32(0.25), np.float32(4))


def _sample(
    block_plane: FloatPlane, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> FloatPlane:
    """Interpolate a plane of block values bilinearly at CFA cells."""

    def neighbours(index: npt.NDArray[np.intp], count: int) -> tuple[npt.NDArray[np.intp], ...]:
        low = np.clip((index - (_BLOCK_CELLS - 1) / 2) // _BLOCK_CELLS, 0, count - 1)
        return low.astype(np.intp), np.minimum(low + 1, count - 1).astype(np.intp)

    def fraction(index: npt.NDArray[np.intp]) -> FloatPlane:
        position = (index.astype(np.float32) - np.float32((_BLOCK_CELLS - 1) / 2)) / _BLOCK_CELLS
        return np.asarray(np.where(position < 0, 0, position - np.floor(position)), np.float32)

    top, bottom = neighbours(rows, block_plane.shape[0])
    left, right = neighbours(columns, block_plane.shape[1])
    down, along = fraction(rows), fraction(columns)
    upper = block_plane[top, left] * (1 - along) + block_plane[top, right] * along
    lower = block_plane[bottom, left] * (1 - along) + block_plane[bottom, right] * along
    return np.asarray(upper * (1 - down) + lower * down, np.float32)
