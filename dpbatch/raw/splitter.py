"""Split two raw frames into two views by subtraction and rebuild clipped highlights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dpbatch.raw.cells import block_sums, by_position, to_cells
from dpbatch.raw.highlights import (
    BLOCK_CELLS,
    MARGIN_CELLS,
    BlockSums,
    ClipRamp,
    Highlights,
    measure_ratios,
)
from ldp.threads import side_by_side

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.raw.frames import RawPair

BAND_CELLS = {"cpu": 64, "cuda": 1024}
"""Rows of cells measured at a time: on a GPU enough to keep it busy."""


@dataclass(frozen=True)
class SplitCells:
    """A part of the two views as raw samples, (4, h, w) each, by CFA position.

    left, right: float32, linear, DN above black, signed, not clipped. They sum to the composite
        above black wherever that is not clipped.
    unreliable: bool, where the composite or the photodiode's frame is clipped or nearly so; there
        the second view is rebuilt more and more, rather than subtracted.
    """

    left: Tensor
    right: Tensor
    unreliable: Tensor


class Splitter:
    """A photo's two mosaics on a device, split part by part.

    The photodiode's frame is one view and composite minus photodiode the other. Where the composite
    clips, the difference is too small, in green more than in red and blue, and the picture turns
    magenta. There the second view is the first one times the ratio of the views in the
    neighbourhood, at least the difference (the clipped composite is a lower bound of the true one).
    Where the photodiode's frame clips too, nothing of the colour is left: the first view is white,
    the second as well, or a neutral tone where the other colours show that it is darker. Between
    the levels `start` and `full` of clipping, one goes over into the other.
    """

    def __init__(self, pair: RawPair, swap: bool, device: torch.device) -> None:
        """Upload the mosaics. swap: the photodiode is the right view instead of the left one."""
        self.device = device
        self.clipped_share = 0.0
        """Share of the samples that are clipped in either frame, or nearly so."""
        self._composite, self._photodiode = (
            _uploaded(mosaic, device) for mosaic in (pair.composite, pair.photodiode)
        )
        self._blacks = tuple(
            by_position(black, pair.cfa).to(device)
            for black in (pair.composite_black, pair.photodiode_black)
        )
        self._swap = swap
        self._ramps = (
            ClipRamp(pair.composite_clip, pair.cfa, device),
            ClipRamp(pair.photodiode_clip, pair.cfa, device),
        )
        height, width = pair.composite.shape
        self.size_cells = (height // 2, width // 2)
        self._highlights: Highlights | None = None
        sums = self._block_sums()
        if sums is not None:
            self._highlights = Highlights.of(pair, measure_ratios(sums), self._ramps)

    def split(self, rows: slice, columns: slice) -> SplitCells:
        """Return a part of both views, highlights rebuilt; rows and columns of cells."""
        if self._highlights is None:
            composite, photodiode = self._raw(rows, columns)
            return self._ordered(*self._subtracted(composite, photodiode), None)
        wider, inner = [], []
        for part, side in zip((rows, columns), self.size_cells, strict=True):
            start = max(0, part.start - MARGIN_CELLS)
            wider.append(slice(start, min(side, part.stop + MARGIN_CELLS)))
            inner.append(slice(part.start - start, part.stop - start))
        raw = self._raw(*wider)
        first, second = self._subtracted(*raw)
        unreliable = self._unreliable(*raw)
        if unreliable.any():
            origin = wider[0].start, wider[1].start
            first, second = self._highlights.rebuilt(raw, (first, second), unreliable, origin)
        kept = (slice(None), inner[0], inner[1])
        return self._ordered(first[kept], second[kept], unreliable[kept])

    def subtracted(self, rows: slice, columns: slice) -> SplitCells:
        """Return a part of both views without rebuilding; rows and columns of cells."""
        raw = self._raw(rows, columns)
        return self._ordered(*self._subtracted(*raw), self._unreliable(*raw))

    def composite(self, rows: slice, columns: slice) -> Tensor:
        """Return a part of the composite frame, (4, h, w) DN; rows and columns of cells."""
        return self._raw(rows, columns)[0]

    def _raw(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        area = (
            slice(2 * rows.start, 2 * rows.stop),
            slice(2 * columns.start, 2 * columns.stop),
        )
        composite, photodiode = (
            to_cells(mosaic[area].float()) for mosaic in (self._composite, self._photodiode)
        )
        return composite, photodiode

    def _subtracted(self, composite: Tensor, photodiode: Tensor) -> tuple[Tensor, Tensor]:
        black, second_black = self._blacks
        first = photodiode - second_black
        return first, composite - black - first

    def _unreliable(self, composite: Tensor, photodiode: Tensor) -> Tensor:
        found = composite >= self._ramps[0].start
        found |= photodiode >= self._ramps[1].start
        return found

    def _ordered(self, first: Tensor, second: Tensor, unreliable: Tensor | None) -> SplitCells:
        if unreliable is None:
            unreliable = torch.zeros((), dtype=torch.bool, device=first.device).expand_as(first)
        left, right = (second, first) if self._swap else (first, second)
        return SplitCells(left, right, unreliable)

    def _block_sums(self) -> BlockSums | None:
        """Sum the reliable samples of all blocks; None where every sample is reliable."""
        height, width = self.size_cells
        band = BAND_CELLS[self.device.type]

        def measure(top: int) -> tuple[int, list[Tensor]]:
            raw = self._raw(slice(top, min(top + band, height)), slice(0, width))
            first, second = self._subtracted(*raw)
            unreliable = self._unreliable(*raw)
            planes = first * ~unreliable, second * ~unreliable, unreliable.float()
            return int(unreliable.sum()), [block_sums(plane, BLOCK_CELLS) for plane in planes]

        measured = side_by_side(measure, range(0, height, band), self.device)
        clipped = sum(count for count, _ in measured)
        self.clipped_share = clipped / max(1, 4 * height * width)
        if not clipped:
            return None
        return BlockSums(
            *(torch.cat(planes, 1) for planes in zip(*(sums for _, sums in measured), strict=True))
        )


def _uploaded(mosaic: npt.NDArray[np.uint16], device: torch.device) -> Tensor:
    """Return a mosaic on a device; on the CPU it shares the memory where it may be written to."""
    tensor = torch.from_numpy(mosaic if mosaic.flags.writeable else mosaic.copy())
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
