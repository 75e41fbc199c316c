"""Rebuild the second view where the composite is clipped, from the first and the views around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dpbatch.raw.cells import (
    CFA_POSITIONS,
    by_position,
    dilated,
    enlarged,
    gaussian_blur,
    small_blur,
)
from dpbatch.raw.clipping import ClipLevels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.raw.frames import RawPair

BLOCK_CELLS = 8
"""Ratios are measured on blocks of 8x8 CFA cells, 16x16 photosites."""
MARGIN_CELLS = 4
"""A rebuilt sample depends on cells up to this far away."""
_RATIO_SCALES_BLOCKS = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5)
_SIGNAL_HALF_TRUSTED_DN = 50.0  # a block of this mean signal counts half of a bright one
_SURELY_WHITE = 0.6  # of the composite's white: a view is developed with twice the gain
_CELL_SIGMA = 0.5
_HARD_EDGE = 4.0  # ratio of the ratios of neighbouring cells
_CELL_HALF_TRUSTED_DN = 500.0


class BlockSums(NamedTuple):
    """Sums of the reliable samples of each block, (4, rows, columns) each.

    unreliable: the number of the others.
    """

    first: Tensor
    second: Tensor
    unreliable: Tensor


@dataclass(frozen=True)
class ViewRatios:
    """second / first as the product of two planes of blocks.

    wide: (4, rows, columns), one a CFA position, smooth over the frame. local: (1, rows, columns),
        of all colours.
    """

    wide: Tensor
    local: Tensor


class ClipRamp:
    """How far samples are clipped, by CFA position: 0 below start, 1 from full on."""

    def __init__(self, levels: ClipLevels, cfa: npt.NDArray[np.int8], device: torch.device) -> None:
        self.start = by_position(levels.start, cfa).to(device)
        self._full = by_position(levels.full, cfa).to(device)

    def __call__(self, samples: Tensor) -> Tensor:
        """Return the weights of samples, (4, h, w) DN."""
        width = (self._full - self.start).clamp(min=1e-3)
        part = ((samples - self.start) / width).clamp(0, 1)
        return torch.where(
            self._full > self.start, part * part * (3 - 2 * part), (samples >= self.start).float()
        )


def measure_ratios(sums: BlockSums) -> ViewRatios:
    """Measure the ratio of the views around every block.

    Red and blue often have signal where green is clipped. So the local part of the ratio (a
    defocused edge moves light from one view to the other) is measured on all colours together, and
    only the part that is smooth over the frame (colour shading) on each colour by itself.
    """
    # 1 on blocks where no colour is clipped: only these are comparable
    common = (sums.unreliable.sum(0, keepdim=True) == 0).float()
    sigma = max(common.shape[1:]) / 6
    half_trusted = 4 * BLOCK_CELLS**2 * _SIGNAL_HALF_TRUSTED_DN
    # Where all is clipped, there is nothing to measure.
    trust = (gaussian_blur(sums.first * common, sigma) / (half_trusted / 4)).clamp(0, 1)
    wide = 1 + trust * (_blurred_ratio(sums.second * common, sums.first * common, sigma) - 1)
    above = (sums.second / wide).sum(0, keepdim=True)
    below = sums.first.sum(0, keepdim=True)
    local = torch.ones_like(below)
    for scale in _RATIO_SCALES_BLOCKS:
        signal = gaussian_blur(below, scale).clamp(min=0)
        trust = signal / (signal + half_trusted)
        local = local + trust * (_blurred_ratio(above, below, scale) - local)
    return ViewRatios(wide, local)


@dataclass(frozen=True)
class Highlights:
    """What is needed to rebuild the highlights of a photo; by CFA position, on the device.

    wb: gains. white_dn: above the composite's black.
    """

    ratios: ViewRatios
    composite_ramp: ClipRamp
    photodiode_ramp: ClipRamp
    wb: Tensor
    white_dn: Tensor

    @classmethod
    def of(cls, pair: RawPair, ratios: ViewRatios, ramps: tuple[ClipRamp, ClipRamp]) -> Highlights:
        """Collect it. ramps: of the composite and of the photodiode's frame."""
        device = ratios.wide.device
        white_dn = by_position(pair.white_level - pair.composite_black, pair.cfa)
        wb = by_position(pair.camera_wb, pair.cfa)
        return cls(ratios, *ramps, wb.to(device), white_dn.to(device))

    def rebuilt(
        self,
        raw: tuple[Tensor, Tensor],
        views: tuple[Tensor, Tensor],
        unreliable: Tensor,
        origin: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Return a part of both views with its unreliable samples rebuilt; (4, h, w) each.

        raw: composite and photodiode, DN. views: first and second view, DN above black. unreliable:
        the samples that are clipped or nearly so. origin: the part's first cell in the photo. The
        outermost MARGIN_CELLS are not exact unless they are the photo's own.
        """
        (composite, photodiode), (first, second) = raw, views
        ratio = self._ratio(first, second, ~unreliable, origin)
        clipped = self.composite_ramp(composite)
        rebuilt = second + clipped * (torch.maximum(first * ratio, second) - second)
        # From `lost` on the photodiode's frame is clipped too. The best guess of a clipped colour
        # is that of white light as bright as the brightest of its cell: so bright is mostly white.
        lost = self.photodiode_ramp(photodiode)
        neutral = (first * self.wb).amax(0, keepdim=True).clamp(min=0) / self.wb
        white = ratio * torch.maximum(first, neutral)
        white = torch.where(white < _SURELY_WHITE * self.white_dn, white, self.white_dn)
        rebuilt = rebuilt + lost * (white - rebuilt)
        whitened = first + lost * (self.white_dn - first)
        return torch.where(unreliable, whitened, first), torch.where(unreliable, rebuilt, second)

    def _ratio(
        self, first: Tensor, second: Tensor, reliable: Tensor, origin: tuple[int, int]
    ) -> Tensor:
        """Return second / first at every cell, refined by the reliable colours there."""
        size = (first.shape[1], first.shape[2])
        wide = enlarged(self.ratios.wide, size, BLOCK_CELLS, origin)
        local = enlarged(self.ratios.local, size, BLOCK_CELLS, origin)
        sums = torch.stack([(second * reliable / wide).sum(0), (first * reliable).sum(0)])
        above, below = small_blur(sums.clamp(min=0), _CELL_SIGMA)
        near = (above / below.clamp(min=1)).clamp(0.05, 20)
        # An edge so hard that it falls between the colours of a cell: take the brighter side.
        brighter, darker = dilated(near[None])[0], -dilated(-near[None])[0]
        near = torch.where(brighter > _HARD_EDGE * darker, brighter, near)
        near = _at_positions(near).clamp(min=darker, max=brighter)
        trust = below / (below + _CELL_HALF_TRUSTED_DN)
        refined: Tensor = wide * (local + trust * (near - local))
        return refined


def _blurred_ratio(above: Tensor, below: Tensor, sigma: float) -> Tensor:
    """Return above / below of the Gaussian neighbourhood, within 1/4 to 4; 1 without signal."""
    numerator, denominator = gaussian_blur(above, sigma), gaussian_blur(below, sigma)
    has_signal = (denominator > 1) & (numerator > 0)
    ratio = torch.where(has_signal, numerator / denominator.clamp(min=1), torch.ones_like(above))
    return ratio.clamp(0.25, 4)


def _at_positions(cells: Tensor) -> Tensor:
    """Interpolate a value a cell linearly at the four positions of the cell, (h, w) -> (4, h, w).

    Where a blurred lamp is smaller than some cells, the ratio changes by a third from one to the
    next; with one value a cell the two greens would differ like a chequerboard.
    """
    padded = F.pad(cells[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    down = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 8  # a quarter of a cell
    across = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 8
    signs = [(2 * row - 1, 2 * column - 1) for row, column in CFA_POSITIONS]
    return torch.stack([cells + row * down + column * across for row, column in signs])
