"""The colours that a Bayer mosaic lacks, from differences of colours along edges.

The method is gradient based threshold free interpolation: I. Pekkucuksen and Y. Altunbasak,
"Gradient based threshold free color filter array interpolation", ICIP 2010. Green minus the other
colour is estimated along rows and along columns (J. Hamilton and J. Adams, US patent 5,629,734,
1997) and averaged on the four sides of each red and blue pixel; a side weighs the more, the less
the estimates vary there. Unlike the paper, variations are summed over 3x3 pixels instead of 5x5,
and the differences are carried to the other pixels by bilinear interpolation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

REACH = 10
"""Pixels on each side that a value may depend on: 9, and one more that is read and thrown away."""
_FLAT = 0.016
"""Added to the squared variations: where all are much smaller, all sides weigh the same."""
_DIFFERENCE_SCALE = -1 / 20
"""From the sum of five second differences to the mean of green minus the other colour: the minus
sign and the quarter of Hamilton and Adams, and a fifth."""


class Mosaic(NamedTuple):
    """The planes of a mosaic; each has one pixel of every 2x2."""

    red: Tensor
    green_beside_red: Tensor
    green_below_red: Tensor
    blue: Tensor


class Filled(NamedTuple):
    """A plane of an interpolated colour, with its place in the pattern: row, column and channel."""

    row: int
    column: int
    channel: int
    plane: Tensor


class Quads:
    """A grid of 2x2 pixels, which begins at a red one, and arithmetic on its planes.

    A plane is a flat vector in which the next quad's pixel is `across` = 1 and the next row's
    `down` elements away, so that a sum of neighbours is one operation on contiguous memory: three
    times as fast on a CPU as over the rows of a picture. The first and last row are only read, and
    a shift beyond the end of a row reads the next one: those values stay within REACH of the
    border. No product by anything but a power of two is fused with a sum, so that a result does
    not depend on which instruction of the processor it falls to.
    """

    across = 1

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.down = columns
        self._rows = rows
        self._device = device
        self._spare: list[Tensor] = []

    def split(self, mosaic: Tensor) -> Mosaic:
        """Return the planes of a mosaic, (2 x rows, 2 x columns)."""
        planes = Mosaic(*(self.new() for _ in range(4)))
        for index, plane in enumerate(planes):
            self.picture(plane).copy_(mosaic[index // 2 :: 2, index % 2 :: 2])
        return planes

    def picture(self, plane: Tensor) -> Tensor:
        """Return a plane as (rows, columns)."""
        return plane.view(self._rows, self.down)

    def new(self) -> Tensor:
        """Return a plane of arbitrary values."""
        if self._spare:
            return self._spare.pop()
        return torch.zeros(self._rows * self.down, dtype=torch.float32, device=self._device)

    def free(self, *planes: Tensor) -> None:
        """Keep planes for the next call of `new`; they must not be used any more."""
        self._spare.extend(planes)

    def inner(self, plane: Tensor, shift: int = 0) -> Tensor:
        """Return a plane without its first and last row, as a view, `shift` elements further."""
        return plane[self.down + shift : (self._rows - 1) * self.down + shift]

    def pair(self, first: Tensor, second: Tensor, shift: int = 0) -> Tensor:
        """Return the sum of one plane and another one that lies `shift` further, as a new plane."""
        result = self.new()
        torch.add(self.inner(first), self.inner(second, shift), out=self.inner(result))
        return result

    def around(self, plane: Tensor, shift: int) -> Tensor:
        """Return the sum of a plane's values `shift` before and after each, as a new plane."""
        result = self.new()
        torch.add(self.inner(plane, -shift), self.inner(plane, shift), out=self.inner(result))
        return result

    def change(self, plane: Tensor, shift: int) -> Tensor:
        """Return by how much a plane changes over `shift`, without sign, as a new plane."""
        result = self.new()
        inner = self.inner(result)
        torch.sub(self.inner(plane, shift), self.inner(plane), out=inner)
        inner.abs_()
        return result

    def accumulate(self, plane: Tensor, *terms: tuple[Tensor, int]) -> Tensor:
        """Add planes, each shifted, to a plane in place; return it."""
        total = self.inner(plane)
        for term, shift in terms:
            total += self.inner(term, shift)
        return plane


class _Estimates(NamedTuple):
    """Green minus another colour, estimated along one direction.

    total: at the red (or blue) pixels, the sum over this pixel and two on each side, in units of
        _DIFFERENCE_SCALE.
    change_at_site, change_at_green: how much single estimates change about each red (or blue) pixel
        and about each green one between them.
    """

    total: Tensor
    change_at_site: Tensor
    change_at_green: Tensor


class _Side(NamedTuple):
    """The weight of an estimate, and the estimate times this weight."""

    weight: Tensor
    weighted: Tensor


def interpolate(quads: Quads, mosaic: Mosaic) -> list[Filled]:
    """Return the eight planes that a mosaic lacks; the caller frees them.

    The mosaic's planes are freed here.
    """
    across, down = quads.across, quads.down
    along_rows = (
        _estimate(quads, mosaic.red, mosaic.green_beside_red, across),
        _estimate(quads, mosaic.blue, mosaic.green_below_red, -across),
    )
    sides_along_rows = _weigh_both(quads, *along_rows, across, down)
    along_columns = (
        _estimate(quads, mosaic.red, mosaic.green_below_red, down),
        _estimate(quads, mosaic.blue, mosaic.green_beside_red, -down),
    )
    sides_along_columns = _weigh_both(quads, *along_columns, down, across)
    red, blue = (
        _mean_of_sides(quads, by_row, by_column)
        for by_row, by_column in zip(sides_along_rows, sides_along_columns, strict=True)
    )
    green_at_red, green_at_blue = quads.pair(mosaic.red, red), quads.pair(mosaic.blue, blue)
    beside, below, at_blue = _spread(quads, red, across, down)
    below_blue, beside_blue, at_red = _spread(quads, blue, -across, -down)
    for difference, green in (
        (beside, mosaic.green_beside_red),
        (below, mosaic.green_below_red),
        (at_blue, green_at_blue),
        (beside_blue, mosaic.green_beside_red),
        (below_blue, mosaic.green_below_red),
        (at_red, green_at_red),
    ):
        inner = quads.inner(difference)
        torch.sub(quads.inner(green), inner, out=inner)
    quads.free(*mosaic)
    return [
        Filled(0, 0, 1, green_at_red),
        Filled(1, 1, 1, green_at_blue),
        Filled(0, 1, 0, beside),
        Filled(1, 0, 0, below),
        Filled(1, 1, 0, at_blue),
        Filled(0, 1, 2, beside_blue),
        Filled(1, 0, 2, below_blue),
        Filled(0, 0, 2, at_red),
    ]


# The functions below are written for red. The pattern turned by 180 degrees has blue where red was,
# so they do the same for blue with both steps negated.


def _estimate(quads: Quads, site: Tensor, green: Tensor, step: int) -> _Estimates:
    """Estimate green minus red along one direction.

    green: the green pixels after the red ones in this direction. step: to the next quad in it.
    """
    second_at_site = quads.pair(green, green, -step)
    quads.inner(second_at_site).sub_(quads.inner(site), alpha=2)
    second_at_green = quads.pair(site, site, step)
    quads.inner(second_at_green).sub_(quads.inner(green), alpha=2)
    # Hamilton and Adams: the mean of both neighbours, corrected by the second difference of this
    # pixel's own colour. Minus four times that, minus this pixel, is a sum of second differences.
    at_site = quads.pair(second_at_green, second_at_green, -step)
    at_green = quads.pair(second_at_site, second_at_site, step)
    change_at_site = quads.change(at_green, -step)
    change_at_green = quads.change(at_site, step)
    total = quads.pair(at_site, at_site, step)
    quads.accumulate(total, (at_site, -step))
    quads.inner(total).sub_(quads.inner(at_green)).sub_(quads.inner(at_green, -step))
    quads.free(second_at_site, second_at_green, at_site, at_green)
    return _Estimates(total, change_at_site, change_at_green)


def _weigh_both(
    quads: Quads, red: _Estimates, blue: _Estimates, step: int, cross: int
) -> tuple[_Side, _Side]:
    """Weigh the estimates along one direction, at red and at blue pixels; frees the estimates."""
    sides = _weigh(quads, red, blue, step, cross), _weigh(quads, blue, red, -step, -cross)
    for estimates in (red, blue):
        quads.free(estimates.change_at_site, estimates.change_at_green)
    return sides


def _weigh(quads: Quads, own: _Estimates, other: _Estimates, step: int, cross: int) -> _Side:
    """Weigh each estimate by the inverse square of the changes in its 3x3 pixels.

    step: along the direction of the estimates. cross: at right angles to it.
    """
    weight = quads.pair(own.change_at_site, other.change_at_green, -cross)
    beside = quads.pair(own.change_at_green, other.change_at_site, -cross)
    quads.accumulate(beside, (other.change_at_site, 0))
    quads.accumulate(weight, (other.change_at_green, 0), (beside, 0), (beside, -step))
    quads.free(beside)
    inner = quads.inner(weight)
    inner.mul_(inner).add_(_FLAT).reciprocal_()
    quads.inner(own.total).mul_(inner)
    return _Side(weight, own.total)


def _mean_of_sides(quads: Quads, by_row: _Side, by_column: _Side) -> Tensor:
    """Return green minus red at red pixels: the weighted mean of the estimates on the four sides.

    Those of a side are centred two pixels away, so they end at the pixel itself. Frees the sides.
    """
    across, down = quads.across, quads.down
    difference, weights = (
        quads.accumulate(quads.around(row, across), (column, down), (column, -down))
        for row, column in (
            (by_row.weighted, by_column.weighted),
            (by_row.weight, by_column.weight),
        )
    )
    quads.inner(difference).div_(quads.inner(weights)).mul_(_DIFFERENCE_SCALE)
    quads.free(weights, *by_row, *by_column)
    return difference


def _spread(
    quads: Quads, difference: Tensor, across: int, down: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Interpolate a difference at red pixels to the green ones beside and below and to blue ones.

    Blue pixels take the mean of the four red ones about them, then each green one the mean of its
    four neighbours. Frees the difference.
    """
    beside = quads.pair(difference, difference, across)
    diagonal = quads.pair(beside, beside, down)
    quads.inner(diagonal).mul_(0.25)
    below = quads.pair(difference, difference, down)
    quads.accumulate(beside, (diagonal, 0), (diagonal, -down))
    quads.accumulate(below, (diagonal, 0), (diagonal, -across))
    quads.inner(beside).mul_(0.25)
    quads.inner(below).mul_(0.25)
    quads.free(difference)
    return beside, below, diagonal
