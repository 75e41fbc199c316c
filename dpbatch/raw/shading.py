"""Measure and remove the smooth difference of gain and colour between the two views.

Towards the frame's sides each photodiode sees another part of the lens, so the views darken in
opposite directions along x, by up to a quarter stop and differently in each colour. Out-of-focus
detail differs between the views too and must stay, so shading is modelled as a polynomial of low
order over the whole frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dpbatch.raw.highlights import CFA_POSITIONS, FloatPlane, block_sums
from dpbatch.raw.splitter import SplitMosaics

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ActiveArea = tuple[int, int, int, int]

_CELLS_ALONG_X = 96  # 85 px at 45 MP, twice the disparity found there
_SMALLEST_CELL = 4  # samples of one colour
_PATCH_CELLS = 8
_SLOPE_NOISE = 0.01
_FAINTEST_DN = 8.0  # below this mean a cell shows the black level's error, not shading
_SIGNAL_HALF_TRUSTED_DN = 200.0
_LARGEST_LOG_RATIO = float(np.log(2.5))

# Powers (of y, of x): terms shared by all colours, and each colour's own deviation.
_SHARED_TERMS = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1))
_COLOR_TERMS = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0))
_POWERS = (3, 4)  # how many powers of y and of x there are
# Prior standard deviations of the coefficients around 0; they matter where there is little light.
_EXPECTED_SHARED_TERM, _EXPECTED_COLOR_TERM = 0.5, 0.05
_ROBUST_ROUNDS = 12
_NOISE_FLOOR = 0.002  # residuals of ln ratio below this are never outliers


@dataclass(frozen=True)
class Shading:
    """The natural logarithm of right / left for an object in focus, as polynomials.

    log_ratio: (4, 3, 4), one polynomial a CFA position, in CFA_POSITIONS' order; [p, i, j] is the
        coefficient of y^i x^j, where x and y run from -1 to 1 over the active area.
    active: (top, left, height, width) of that area in the mosaic, in photosites.
    """

    log_ratio: FloatArray
    active: ActiveArea

    def right_to_left(
        self, position: int, rows: npt.ArrayLike, columns: npt.ArrayLike
    ) -> FloatPlane:
        """Return right / left on the grid rows x columns of one CFA position, in photosites."""
        top, left, height, width = self.active
        y = 2 * (np.asarray(rows, np.float64) + 0.5 - top) / height - 1
        x = 2 * (np.asarray(columns, np.float64) + 0.5 - left) / width - 1
        y_powers = np.vander(y, _POWERS[0], increasing=True)
        x_powers = np.vander(x, _POWERS[1], increasing=True)
        row_terms = (y_powers @ self.log_ratio[position]).astype(np.float32)
        log_ratio = row_terms @ x_powers.T.astype(np.float32)
        np.clip(log_ratio, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO, out=log_ratio)
        return np.asarray(np.exp(log_ratio, out=log_ratio), np.float32)


def measure_shading(mosaics: SplitMosaics, active: ActiveArea) -> Shading:
    """Fit the shading of a photo to the means of its cells.

    Out of focus, a cell differs between the views by disparity times the slope of the picture:
    ln right - ln left = shading + disparity * d(ln light)/dx, as long as a cell is wider than the
    disparity. So the disparity of each patch of cells and the shading are fitted in turns, with
    Tukey's biweight against cells that fit neither (edges, several depths in a cell). Unreliable
    samples are left out. A photo without light gives zero shading.
    """
    by_position = [_measure_cells(mosaics, active, position) for position in range(4)]
    cells = _Cells(*(np.concatenate(columns) for columns in zip(*by_position, strict=True)))
    solution = _robust_fit(cells)
    coefficients = np.zeros((4, *_POWERS))
    for position in range(4):
        for index, (i, j) in enumerate(_SHARED_TERMS):
            coefficients[position, i, j] += solution[index]
        for index, (i, j) in enumerate(_COLOR_TERMS):
            coefficients[position, i, j] += solution[_own_term(position, index)]
    return Shading(coefficients, active)


def match_views(mosaics: SplitMosaics, shading: Shading) -> None:
    """Remove the shading from both views, in place.

    With r = right / left, left is multiplied by (1 + r) / 2 and right by (1 + 1 / r) / 2: objects
    in focus become half the composite in either view, in the composite's colour.
    """
    height, width = mosaics.left.shape
    for position, (row, column) in enumerate(CFA_POSITIONS):
        columns = np.arange(column, width, 2)
        for start in range(row, height, 256):
            rows = np.arange(start, min(start + 256, height), 2)
            ratio = shading.right_to_left(position, rows, columns)
            cell = (slice(start, rows[-1] + 1, 2), slice(column, None, 2))
            mosaics.left[cell] *= 0.5 + 0.5 * ratio
            mosaics.right[cell] *= 0.5 + 0.5 / ratio


class _Cells(NamedTuple):
    """The usable cells of the photo, each array (n,).

    position: CFA position. patch: number of the patch. y, x: from -1 to 1 over the active area.
    log_ratio: ln(right / left). slope: d(ln light)/dx a cell. trust: weight in [0, 1].
    """

    position: IntArray
    patch: IntArray
    y: FloatArray
    x: FloatArray
    log_ratio: FloatArray
    slope: FloatArray
    trust: FloatArray


def _measure_cells(mosaics: SplitMosaics, active: ActiveArea, position: int) -> _Cells:
    top, left, height, width = active
    row, column = CFA_POSITIONS[position]
    # The first photosites of this position inside the active area.
    first_row, first_column = top + (row - top) % 2, left + (column - left) % 2
    plane = (slice(first_row, top + height, 2), slice(first_column, left + width, 2))
    side = max(_SMALLEST_CELL, -(-width // (2 * _CELLS_ALONG_X)))
    reliable = ~mosaics.unreliable[plane]
    count = block_sums(reliable.astype(np.float32), side)
    left_sum = block_sums(mosaics.left[plane] * reliable, side)
    right_sum = block_sums(mosaics.right[plane] * reliable, side)
    mean_dn = (left_sum + right_sum) / np.maximum(count, 1)
    usable = (count > 0.5 * side * side) & (mean_dn > _FAINTEST_DN)
    # Less than a twelfth of the light in one view is the edge of a black object, not shading.
    usable &= np.minimum(left_sum, right_sum) * 12 > left_sum + right_sum
    log_left = np.log(np.where(usable, left_sum / np.maximum(count, 1), 1))
    log_right = np.log(np.where(usable, right_sum / np.maximum(count, 1), 1))
    usable[:, 1:-1] &= usable[:, :-2] & usable[:, 2:]  # the slope needs both neighbours
    usable[:, [0, -1]] = False
    slope = np.gradient(0.5 * (log_left + log_right), axis=1)
    y_index, x_index = np.nonzero(usable)
    patch = (
        y_index // _PATCH_CELLS * (usable.shape[1] // _PATCH_CELLS + 1) + x_index // _PATCH_CELLS
    )
    mean_dn = mean_dn[usable]
    return _Cells(
        position=np.full(patch.size, position),
        patch=patch,
        y=2 * (first_row - top + (y_index + 0.5) * 2 * side) / height - 1,
        x=2 * (first_column - left + (x_index + 0.5) * 2 * side) / width - 1,
        log_ratio=(log_right - log_left)[usable],
        slope=slope[usable],
        trust=mean_dn / (mean_dn + _SIGNAL_HALF_TRUSTED_DN),
    )


def _own_term(position: int, index: int) -> int:
    return len(_SHARED_TERMS) + position * len(_COLOR_TERMS) + index


def _design(cells: _Cells) -> FloatArray:
    design = np.zeros((cells.y.size, _own_term(4, 0)))
    for index, (i, j) in enumerate(_SHARED_TERMS):
        design[:, index] = cells.y**i * cells.x**j
    for index, (i, j) in enumerate(_COLOR_TERMS):
        term = cells.y**i * cells.x**j
        for position in range(4):
            own = cells.position == position
            design[own, _own_term(position, index)] = term[own]
    return design


def _robust_fit(cells: _Cells) -> FloatArray:
    """Fit by reweighted ridge least squares: some rounds of L1 weights, then Tukey's biweight."""
    design = _design(cells)
    solution = np.zeros(design.shape[1])
    if cells.trust.size < design.shape[1]:
        return solution
    expected = np.full(solution.size, _EXPECTED_COLOR_TERM)
    expected[: len(_SHARED_TERMS)] = _EXPECTED_SHARED_TERM
    weight: FloatArray = cells.trust
    scale = 0.1  # a first guess of the residuals' standard deviation
    disparity_cells = np.zeros(int(cells.patch.max()) + 1)
    for round_number in range(_ROBUST_ROUNDS):
        target = cells.log_ratio - disparity_cells[cells.patch] * cells.slope
        weighted = design * weight[:, None]
        ridge = np.diag((scale / expected) ** 2)
        solution[:] = np.linalg.solve(weighted.T @ design + ridge, weighted.T @ target)
        unshaded = cells.log_ratio - design @ solution
        disparity_cells = _patch_disparities(cells, unshaded)
        residual = np.abs(unshaded - disparity_cells[cells.patch] * cells.slope)
        scale = max(1.4826 * float(np.median(residual)), _NOISE_FLOOR)
        if round_number < _ROBUST_ROUNDS // 2:
            weight = cells.trust * scale / np.maximum(residual, scale)
        else:
            weight = cells.trust * np.clip(1 - (residual / (4.685 * scale)) ** 2, 0, None) ** 2
    return solution


def _patch_disparities(cells: _Cells, unshaded: FloatArray) -> FloatArray:
    """Return each patch's disparity in cells: the regression of `unshaded` on the slope."""

    def sums(values: FloatArray) -> FloatArray:
        return np.bincount(cells.patch, cells.trust * values).astype(np.float64)

    total = np.maximum(sums(np.ones_like(unshaded)), 1e-9)
    slope_mean, unshaded_mean = sums(cells.slope) / total, sums(unshaded) / total
    covariance = sums(cells.slope * unshaded) / total - slope_mean * unshaded_mean
    variance = sums(cells.slope**2) / total - slope_mean**2
    return np.clip(covariance / (variance + _SLOPE_NOISE**2), -2, 2)
