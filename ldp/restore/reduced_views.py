"""A photo's views scaled down, read in parts like the photo itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.restore.photo_views import BLOCK_PX, PhotoViews, mean_of, whole
from ldp.types import ViewPair


class ReducedViews:
    """Another photo's views scaled down: every pixel is the mean of factor x factor.

    Both sides round up; the border is repeated into the last pixels. Blocks are computed when they
    are first read, and kept: of a photo of 45 MP at half its size at most 270 MB.
    """

    def __init__(self, source: PhotoViews, factor: int, device: torch.device) -> None:
        """Compute nothing yet. factor: 2, 4 or 8."""
        self._source = source
        self._factor = factor
        self._block = tuple(side // factor for side in BLOCK_PX[device.type])
        height, width = (-(-side // factor) for side in source.size)
        self._pixels = torch.empty((height, width, 6), device=device)
        self._done: set[tuple[int, int]] = set()

    @property
    def size(self) -> tuple[int, int]:
        """See PhotoViews."""
        return self._pixels.shape[0], self._pixels.shape[1]

    def pair(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        height, width = self._block
        for row in range(rows.start // height, -(-rows.stop // height)):
            for column in range(columns.start // width, -(-columns.stop // width)):
                if (row, column) not in self._done:
                    self._compute(row, column)
                    self._done.add((row, column))
        return self._pixels[rows, columns].permute(2, 0, 1)

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews: the mean of the views."""
        return mean_of(self.pair(rows, columns))

    def reduced(self, pixels: int) -> ViewPair:
        """See PhotoViews."""
        return whole(self).reduced(pixels)

    def _compute(self, row: int, column: int) -> None:
        parts, missing = [], []
        for number, block, side in zip((row, column), self._block, self._source.size, strict=True):
            start = number * block * self._factor
            stop = min(start + block * self._factor, side)
            parts.append(slice(start, stop))
            missing.append(-(stop - start) % self._factor)
        both = self._source.pair(*parts)[None]
        down, across = missing
        if down or across:
            both = F.pad(both, (0, across, 0, down), mode="replicate")
        means = F.avg_pool2d(both, self._factor)[0].permute(1, 2, 0)
        top, left = row * self._block[0], column * self._block[1]
        self._pixels[top : top + len(means), left : left + means.shape[1]] = means
