"""Measure and remove the smooth difference of gain and colour between the two views.

Towards the frame's sides each photodiode sees another part of the lens, so the views darken in
opposite directions along x, by up to a quarter stop and differently in each colour. Out-of-focus
detail differs between the views too and must stay, so shading is modelled as a polynomial of low
order over the whole frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpbatch.raw.cells import CFA_POSITIONS, block_sums
from dpbatch.raw.splitter import BAND_CELLS, SplitCells
from ldp.threads import side_by_side

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

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
_OWN = [_SHARED_TERMS.index(term) for term in _COLOR_TERMS]
_POWERS = (3, 4)  # how many powers of y and of x there are
# Prior standard deviations of the coefficients around 0; they matter where there is little light.
_EXPECTED_SHARED_TERM, _EXPECTED_COLOR_TERM = 0.5, 0.05
_ROBUST_ROUNDS = 12
_NOISE_FLOOR = 0.002  # residuals of ln ratio below this are never outliers


@dataclass(frozen=True)
class Shading:
    """The natural logarithm of right / left for an object in focus, as polynomials.

    log_ratio: (4, 3, 4), one polynomial a CFA position, in CFA_POSITIONS' order; [p, i, j] is the
        coefficient of y^i x^j, where x and y run from -1 to 1 over the photo.
    size: (height, width) of the photo in photosites.
    """

    log_ratio: FloatArray
    size: tuple[int, int]

    def right_to_left(self, rows: slice, columns: slice, device: torch.device) -> Tensor:
        """Return right / left of a part of the photo, in cells, (4, h, w)."""
        powers = []
        for axis, (part, count) in enumerate(zip((rows, columns), _POWERS, strict=True)):
            first = np.array([position[axis] for position in CFA_POSITIONS])[:, None]
            place = 2 * np.arange(part.start, part.stop) + first + 0.5
            powers.append(np.vander((2 * place / self.size[axis] - 1).ravel(), count, True))
        y_powers, x_powers = (power.reshape(4, -1, power.shape[1]) for power in powers)
        row_terms, x_terms = (
            torch.from_numpy(terms.astype(np.float32)).to(device)
            for terms in (y_powers @ self.log_ratio, x_powers.transpose(0, 2, 1))
        )
        log_ratio = row_terms @ x_terms
        return log_ratio.clamp_(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp_()


class CellSource(Protocol):
    """dpbatch.raw.splitter.Splitter."""

    @property
    def device(self) -> torch.device:
        """Where the cells are."""

    @property
    def size_cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""

    def subtracted(self, rows: slice, columns: slice) -> SplitCells:
        """Return a part of both views without rebuilding; rows and columns of cells."""


def measure_shading(photo: CellSource) -> Shading:
    """Fit the shading of a photo to the means of its cells.

    Out of focus, a cell differs between the views by disparity times the slope of the picture:
    ln right - ln left = shading + disparity * d(ln light)/dx, as long as a cell is wider than the
    disparity. So the disparity of each patch of cells and the shading are fitted in turns, with
    Tukey's biweight against cells that fit neither (edges, several depths in a cell). Unreliable
    samples are left out. A photo without light gives zero shading.
    """
    height, width = (2 * side for side in photo.size_cells)
    side = max(_SMALLEST_CELL, -(-width // (2 * _CELLS_ALONG_X)))
    sums = _sums(photo, side)
    by_position = [_measure_cells(sums[:, position], side, position) for position in range(4)]
    cells = _Cells(*(np.concatenate(columns) for columns in zip(*by_position, strict=True)))
    scale = np.array([2 / height, 2 / width])
    cells = cells._replace(y=cells.y * scale[0] - 1, x=cells.x * scale[1] - 1)
    solution = _robust_fit(cells)
    coefficients = np.zeros((4, *_POWERS))
    for position in range(4):
        for index, (i, j) in enumerate(_SHARED_TERMS):
            coefficients[position, i, j] += solution[index]
        for index, (i, j) in enumerate(_COLOR_TERMS):
            coefficients[position, i, j] += solution[_own_term(position, index)]
    return Shading(coefficients, (height, width))


def matched(
    left: Tensor, right: Tensor, shading: Shading, rows: slice, columns: slice
) -> tuple[Tensor, Tensor]:
    """Return a part of both views without the shading, (4, h, w) each.

    With r = right / left, left is multiplied by (1 + r) / 2 and right by (1 + 1 / r) / 2: objects
    in focus become half the composite in either view, in the composite's colour.
    """
    ratio = shading.right_to_left(rows, columns, left.device)
    return left * (0.5 + 0.5 * ratio), right * (0.5 + 0.5 / ratio)


class _Cells(NamedTuple):
    """The usable cells of the photo, each array (n,).

    position: CFA position. patch: number of the patch. y, x: from -1 to 1 over the photo.
    log_ratio: ln(right / left). slope: d(ln light)/dx a cell. trust: weight in [0, 1].
    """

    position: IntArray
    patch: IntArray
    y: FloatArray
    x: FloatArray
    log_ratio: FloatArray
    slope: FloatArray
    trust: FloatArray


def _sums(photo: CellSource, side: int) -> FloatArray:
    """Return count, left and right of the reliable samples of squares, (3, 4, rows, columns)."""
    height, width = photo.size_cells
    step = side * max(1, BAND_CELLS[photo.device.type] // side)

    def summed(top: int) -> Tensor:
        cells = photo.subtracted(slice(top, min(top + step, height)), slice(0, width))
        reliable = ~cells.unreliable
        planes = reliable.float(), cells.left * reliable, cells.right * reliable
        return torch.stack([block_sums(plane, side) for plane in planes])

    found = side_by_side(summed, range(0, height, step), photo.device)
    return np.asarray(torch.cat(found, 2).double().cpu().numpy(), np.float64)


def _measure_cells(sums: FloatArray, side: int, position: int) -> _Cells:
    """Return the cells of one position; their places in photosites."""
    row, column = CFA_POSITIONS[position]
    count, left_sum, right_sum = sums
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
        y=np.asarray(row + 2 * side * (y_index + 0.5), np.float64),
        x=np.asarray(column + 2 * side * (x_index + 0.5), np.float64),
        log_ratio=(log_right - log_left)[usable],
        slope=slope[usable],
        trust=mean_dn / (mean_dn + _SIGNAL_HALF_TRUSTED_DN),
    )


def _own_term(position: int, index: int) -> int:
    return len(_SHARED_TERMS) + position * len(_COLOR_TERMS) + index


def _own_slice(position: int) -> slice:
    return slice(_own_term(position, 0), _own_term(position + 1, 0))


class _Design:
    """The terms of each cell: the shared ones, and again those that each colour has of its own."""

    def __init__(self, cells: _Cells) -> None:
        self._shared = np.stack([cells.y**i * cells.x**j for i, j in _SHARED_TERMS], axis=1)
        ends = [0, *np.cumsum(np.bincount(cells.position, minlength=4)).tolist()]
        self._of_position = [slice(*bounds) for bounds in pairwise(ends)]
        self.terms = _own_term(4, 0)

    def __matmul__(self, solution: FloatArray) -> FloatArray:
        """Return the value of each cell."""
        values = np.empty(len(self._shared))
        for position, cells in enumerate(self._of_position):
            shared = solution[: len(_SHARED_TERMS)].copy()
            shared[_OWN] += solution[_own_slice(position)]
            values[cells] = self._shared[cells] @ shared
        return values

    def normal_equations(
        self, weight: FloatArray, target: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return matrix and right-hand side of the weighted least squares, (n, n) and (n,)."""
        matrix, right = np.zeros((self.terms, self.terms)), np.zeros(self.terms)
        shared = slice(0, len(_SHARED_TERMS))
        for position, cells in enumerate(self._of_position):
            weighted = self._shared[cells] * weight[cells, None]
            products, sums = weighted.T @ self._shared[cells], weighted.T @ target[cells]
            own = _own_slice(position)
            matrix[shared, shared] += products
            matrix[own, shared], matrix[shared, own] = products[_OWN], products[:, _OWN]
            matrix[own, own] = products[np.ix_(_OWN, _OWN)]
            right[shared] += sums
            right[own] = sums[_OWN]
        return matrix, right


def _robust_fit(cells: _Cells) -> FloatArray:
    """Fit by reweighted ridge least squares: some rounds of L1 weights, then Tukey's biweight."""
    design = _Design(cells)
    solution = np.zeros(design.terms)
    if cells.trust.size < design.terms:
        return solution
    expected = np.full(solution.size, _EXPECTED_COLOR_TERM)
    expected[: len(_SHARED_TERMS)] = _EXPECTED_SHARED_TERM
    weight: FloatArray = cells.trust
    scale = 0.1  # a first guess of the residuals' standard deviation
    disparity_cells = np.zeros(int(cells.patch.max()) + 1)
    for round_number in range(_ROBUST_ROUNDS):
        target = cells.log_ratio - disparity_cells[cells.patch] * cells.slope
        matrix, right = design.normal_equations(weight, target)
        ridge = np.diag((scale / expected) ** 2)
        solution[:] = np.linalg.solve(matrix + ridge, right)
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
