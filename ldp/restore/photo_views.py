"""A photo's views on the device that restores them, read window by window.

Windows are slices of rows and columns; only those that reach beyond the photo's border, where its
pixels are reflected, are gathered by index.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ldp.restore.tiling import Indices, reflected
from ldp.types import ViewPair, as_float

BLOCK_PX = {"cpu": (256, 1024), "cuda": (1024, 4096)}
"""Rows and columns of the parts that a photo is read and handed on in: on a CPU they stay in its
cache."""
GRID_PX = {"cpu": (256, 64), "cuda": (1024, 4096)}
"""Rows and columns of the blocks of RollingViews; those that are missing side by side are read as
one part."""
_KEPT_BYTES = {"cpu": 0, "cuda": 8 << 30}
"""At least the rows of one window are kept. On a CPU more would be fresh memory, which costs a page
fault for every 4 KiB."""


class PhotoViews(Protocol):
    """A photo that can be read in parts.

    Parts are float32 RGB, sRGB-encoded, white at 1, on one device; slices have a start and a stop.
    """

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def pair(self, rows: slice, columns: slice) -> Tensor:
        """Return a part of both views, (6, h, w): left RGB, then right RGB."""

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        """Return a part of the photo as the camera took it, (3, h, w)."""

    def reduced(self, pixels: int) -> ViewPair:
        """Return both views scaled down to about that many pixels, or whole if they have fewer."""


OpenPhoto = Callable[[torch.device], PhotoViews]
"""open_photo(device) returns a photo's views there."""


class StoredViews:
    """Views that are arrays already; untouched is their mean."""

    def __init__(self, views: ViewPair, device: torch.device) -> None:
        self._views = views
        self._device = device
        self._uploaded: tuple[Tensor, ...] = ()
        if device.type != "cpu":  # once, as they are
            self._uploaded = tuple(
                torch.from_numpy(np.array(view)).to(device) for view in (views.left, views.right)
            )

    @property
    def size(self) -> tuple[int, int]:
        """See PhotoViews."""
        return self._views.size

    def pair(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        if self._uploaded:
            parts = [_scaled(view[rows, columns]) for view in self._uploaded]
            return torch.cat(parts, 2).permute(2, 0, 1)
        views = (self._views.left, self._views.right)
        both = np.concatenate([as_float(view[rows, columns]) for view in views], axis=2)
        return torch.from_numpy(both).permute(2, 0, 1)

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        return mean_of(self.pair(rows, columns))

    def reduced(self, pixels: int) -> ViewPair:
        """See PhotoViews."""
        return self._views.reduced(pixels)


class RollingViews:
    """Another photo's views, each block computed once for the windows that share it.

    The blocks of the rows that were used last are kept: a photo of 45 MP takes 1 GiB as floats. A
    part may share their memory: it is overwritten when parts further down are read.
    """

    def __init__(self, source: PhotoViews, device: torch.device) -> None:
        self._source = source
        self._device = device
        self._block = GRID_PX[device.type]
        self._bands: OrderedDict[int, tuple[Tensor, set[int]]] = OrderedDict()
        self._most_used = 2

    @property
    def size(self) -> tuple[int, int]:
        """See PhotoViews."""
        return self._source.size

    def pair(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        height = self._block[0]
        numbers = range(rows.start // height, -(-rows.stop // height))
        self._most_used = max(self._most_used, len(numbers))
        parts = []
        for number in numbers:
            top = number * height
            here = slice(max(rows.start - top, 0), rows.stop - top)
            parts.append(self._band(number, columns)[here, columns])
        window = parts[0] if len(parts) == 1 else torch.cat(parts)
        return window.permute(2, 0, 1)

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        return self._source.untouched(rows, columns)

    def reduced(self, pixels: int) -> ViewPair:
        """See PhotoViews."""
        return self._source.reduced(pixels)

    def _band(self, number: int, columns: slice) -> Tensor:
        """Return a row of blocks of which those that cover `columns` are computed, (h, W, 6).

        Channels last, as networks are given them.
        """
        height, width = self._block
        rows = slice(number * height, min((number + 1) * height, self.size[0]))
        if number not in self._bands:
            self._bands[number] = self._unused_band(), set()
        self._bands.move_to_end(number)
        pixels, done = self._bands[number]
        for first, last in self._missing(done, columns):
            part = slice(first * width, min(last * width, self.size[1]))
            both = self._source.pair(rows, part).permute(1, 2, 0)
            pixels[: rows.stop - rows.start, part] = both
            done.update(range(first, last))
        return pixels

    def _missing(self, done: set[int], columns: slice) -> list[tuple[int, int]]:
        """Return the runs of blocks that cover the columns and are not done: first, last + 1."""
        width = self._block[1]
        runs: list[tuple[int, int]] = []
        for block in range(columns.start // width, -(-columns.stop // width)):
            if block in done:
                continue
            first = runs.pop()[0] if runs and runs[-1][1] == block else block
            runs.append((first, block + 1))
        return runs

    def _unused_band(self) -> Tensor:
        """Return memory of a row of blocks: that of the one that was used longest ago, or new."""
        height, _ = self._block
        shape = (min(height, self.size[0]), self.size[1], 6)
        most = max(self._most_used, _KEPT_BYTES[self._device.type] // (4 * math.prod(shape)))
        unused = None
        while len(self._bands) >= most:
            _, (unused, _) = self._bands.popitem(last=False)
        return torch.empty(shape, device=self._device) if unused is None else unused


def as_photo(views: ViewPair | PhotoViews, device: torch.device) -> PhotoViews:
    """Return views on a device; those that are there already as they are."""
    return StoredViews(views, device) if isinstance(views, ViewPair) else views


def mean_of(pair: Tensor) -> Tensor:
    """Return the mean of a part of both views, (6, h, w) -> (3, h, w)."""
    return (pair[:3] + pair[3:]) * 0.5


def read_window(views: PhotoViews, top: int, left: int, height: int, width: int) -> Tensor:
    """Return a window of both views, (6, height, width), reflected beyond the photo's border."""
    parts: list[slice] = []
    places: list[Indices | None] = []
    for start, length, side in zip((top, left), (height, width), views.size, strict=True):
        place = reflected(np.arange(start, start + length), side)
        first, last = int(place.min()), int(place.max())
        parts.append(slice(first, last + 1))
        inside = start >= 0 and start + length <= side
        places.append(None if inside else place - first)
    window = views.pair(*parts)
    for axis, at in enumerate(places):
        if at is not None:
            index = torch.from_numpy(at).to(window.device)
            window = window.index_select(axis + 1, index)
    return window


def whole(views: ViewPair | PhotoViews) -> ViewPair:
    """Return all of a photo's views as arrays, (H, W, 3) float32."""
    if isinstance(views, ViewPair):
        return views
    height, width = views.size
    left, right = (np.empty((height, width, 3), np.float32) for _ in range(2))
    rows_at_once = BLOCK_PX["cpu"][0]
    for top in range(0, height, rows_at_once):
        rows = slice(top, min(top + rows_at_once, height))
        both = views.pair(rows, slice(0, width)).permute(1, 2, 0).cpu().numpy()
        left[rows], right[rows] = both[..., :3], both[..., 3:]
    return ViewPair(left, right)


def _scaled(picture: Tensor) -> Tensor:
    if picture.dtype == torch.float32:
        return picture
    return picture.float() / (255 if picture.dtype == torch.uint8 else 65535)
