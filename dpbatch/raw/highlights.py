"""Rebuild the second view where the composite is clipped, from the first and the views around."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dpbatch.raw.frames import RawPair

FloatPlane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

# The four samples of a 2x2 CFA cell: (row, column) at the mosaic's origin.
CFA_POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))

_BLOCK_CELLS = 8  # ratios are measured on blocks of 8x8 CFA cells, 16x16 photosites
_RATIO_SCALES_BLOCKS = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5)
_SIGNAL_HALF_TRUSTED_DN = 50.0  # a block of this mean signal counts half of a bright one
_SURELY_WHITE = 0.6  # of the composite's white: a view is developed with twice the gain
_TILE_CELLS, _MARGIN_CELLS = 64, 4
_CELL_SIGMA = 0.5
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_HARD_EDGE = 4.0  # ratio of the ratios of neighbouring cells
_CELL_HALF_TRUSTED_DN = 500.0


class _Ratios(NamedTuple):
    """second / first as the product of two planes of blocks, refined in places.

    wide: one a CFA position, smooth over the frame. local: of all colours.
    near, signal: (H / 2, W / 2) the local ratio of the reliable colours at each CFA cell, and the
        first view's mean there; 0 away from unreliable cells.
    """

    wide: list[FloatPlane]
    local: FloatPlane
    near: FloatPlane
    signal: FloatPlane

    def at(self, position: int, rows: Indices, columns: Indices) -> FloatPlane:
        """Return the ratio at CFA cells."""
        local = _sample(self.local, rows, columns)
        signal = self.signal[rows, columns]
        trust = signal / (signal + np.float32(_CELL_HALF_TRUSTED_DN))
        here = self.near[rows, columns]
        return np.asarray(
            _sample(self.wide[position], rows, columns) * (local + trust * (here - local)),
            np.float32,
        )


def rebuild_highlights(
    pair: RawPair, first: FloatPlane, second: FloatPlane, unreliable: Mask
) -> None:
    """Rebuild the unreliable samples of `second`, in place; those of `first` where it clips too."""
    ratios = _second_to_first(first, second, unreliable)
    changed = []
    for position, (row, column) in enumerate(CFA_POSITIONS):
        cell = (slice(row, None, 2), slice(column, None, 2))
        color = pair.cfa[row, column]
        rows, columns = np.nonzero(unreliable[cell])
        signal, difference = first[cell][rows, columns], second[cell][rows, columns]
        ratio = ratios.at(position, rows, columns)
        clipped = pair.composite_clip.weight(pair.composite[cell][rows, columns], color)
        rebuilt = difference + clipped * (np.maximum(signal * ratio, difference) - difference)
        # From here on the photodiode's frame is clipped too.
        clipped = pair.photodiode_clip.weight(pair.photodiode[cell][rows, columns], color)
        second[cell][rows, columns] = rebuilt
        lost = clipped > 0
        rows, columns, clipped, signal = rows[lost], columns[lost], clipped[lost], signal[lost]
        white_dn = np.float32(pair.white_level - pair.composite_black[color])
        light = np.maximum(signal, _neutral_light(pair, first, color, rows, columns))
        white = ratio[lost] * light
        white = np.where(white < _SURELY_WHITE * white_dn, white, white_dn)
        second[cell][rows, columns] += clipped * (white - rebuilt[lost])
        changed.append((cell, rows, columns, signal + clipped * (white_dn - signal)))
    for cell, rows, columns, values in changed:
        first[cell][rows, columns] = values


def _neutral_light(
    pair: RawPair, first: FloatPlane, color: int, rows: Indices, columns: Indices
) -> FloatPlane:
    """Return a colour's samples as they would be if the brightest of their cells were white light.

    It is the best guess of a clipped colour: light so bright is mostly white.
    """
    light = np.zeros(rows.shape, np.float32)
    for row, column in CFA_POSITIONS:
        gain = np.float32(pair.camera_wb[pair.cfa[row, column]])
        np.maximum(light, first[row::2, column::2][rows, columns] * gain, out=light)
    return np.asarray(light / np.float32(pair.camera_wb[color]), np.float32)


def _second_to_first(first: FloatPlane, second: FloatPlane, unreliable: Mask) -> _Ratios:
    """Measure the ratio of the views around every block, and next to every unreliable cell.

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
    half_trusted = np.float32(4 * _BLOCK_CELLS**2 * _SIGNAL_HALF_TRUSTED_DN)
    wide = []
    for a, b in sums:
        # Where all but the masked borders is clipped, only their noise is left.
        trust = np.clip(_blur(b * common, wide_sigma) / (half_trusted / 4), 0, 1)
        wide.append(1 + trust * (_blurred_ratio(a * common, b * common, wide_sigma) - 1))
    above = np.sum([a / w for (a, _), w in zip(sums, wide, strict=True)], axis=0)
    below = np.sum([b for _, b in sums], axis=0)
    local = np.ones_like(below)
    for sigma in _RATIO_SCALES_BLOCKS:
        signal = np.maximum(_blur(below, sigma), 0)
        trust = signal / (signal + half_trusted)
        local += trust * (_blurred_ratio(above, below, sigma) - local)
    return _Ratios(wide, local, *_near_ratio(first, second, unreliable, wide, common == 0))


def _near_ratio(
    first: FloatPlane,
    second: FloatPlane,
    unreliable: Mask,
    wide: list[FloatPlane],
    clipped_blocks: Mask,
) -> tuple[FloatPlane, FloatPlane]:
    """Return second / (wide * first) of the reliable colours at each cell, and the mean of first.

    Only tiles with clipped blocks are worked on; the rest is 0.
    """
    shape = unreliable[0::2, 0::2].shape
    near, signal = (np.zeros(shape, np.float32) for _ in range(2))
    blocks = _TILE_CELLS // _BLOCK_CELLS
    for top in range(0, shape[0], _TILE_CELLS):
        for left in range(0, shape[1], _TILE_CELLS):
            tile = (slice(top, top + _TILE_CELLS), slice(left, left + _TILE_CELLS))
            y, x = top // _BLOCK_CELLS, left // _BLOCK_CELLS
            if not clipped_blocks[y : y + blocks, x : x + blocks].any():
                continue
            rows, inner_rows = _padded(top)
            columns, inner_columns = _padded(left)
            sums = _tile_sums(first, second, unreliable, wide, (rows, columns))
            above, below = (_blur(plane, _CELL_SIGMA) for plane in sums)
            ratio = np.clip(above / np.maximum(below, 1), 0.05, 20)
            # An edge so hard that it falls between the colours of a cell: take the brighter side.
            brighter, darker = cv2.dilate(ratio, _NEIGHBOURS), cv2.erode(ratio, _NEIGHBOURS)
            ratio = np.where(brighter > _HARD_EDGE * darker, brighter, ratio)
            near[tile] = ratio[inner_rows, inner_columns]
            signal[tile] = below[inner_rows, inner_columns]
    return near, signal


def _padded(start: int) -> tuple[slice, slice]:
    """Return a tile's range with its margin, and where the tile lies in that."""
    first = max(0, start - _MARGIN_CELLS)
    inner = slice(start - first, start - first + _TILE_CELLS)
    return slice(first, start + _TILE_CELLS + _MARGIN_CELLS), inner


def _tile_sums(
    first: FloatPlane,
    second: FloatPlane,
    unreliable: Mask,
    wide: list[FloatPlane],
    cells: tuple[slice, ...],
) -> tuple[FloatPlane, FloatPlane]:
    shape = unreliable[0::2, 0::2][cells].shape
    above, below = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    blocks = [
        np.minimum(np.arange(part.start, part.start + length) // _BLOCK_CELLS, count - 1)
        for part, length, count in zip(cells, shape, wide[0].shape, strict=True)
    ]
    for plane, (row, column) in zip(wide, CFA_POSITIONS, strict=True):
        part = (slice(row, None, 2), slice(column, None, 2))
        reliable = ~unreliable[part][cells]
        above += second[part][cells] * reliable / plane[np.ix_(*blocks)]
        below += first[part][cells] * reliable
    return np.maximum(above, 0), np.maximum(below, 0)


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
