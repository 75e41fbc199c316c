"""Restore a photo tile by tile, blend the tiles, and hand the result on part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import cv2
import torch
from torch import Tensor

from ldp.errors import LdpError
from ldp.restore.photo_views import BLOCK_PX
from ldp.restore.tile_plan import Band, Tile
from ldp.restore.tiling import Progress, Span, blend_weights

Receive = Callable[[slice, slice, Tensor], None]
"""receive(rows, columns, pixels) is given a part of the result, (3, h, w) float32, white at 1."""


class Keeping(Protocol):
    """What becomes of restored tiles, such as ldp.restore.protect.Kept."""

    def wants(self, rows: Span, columns: Span) -> bool:
        """Whether anything of a tile is kept."""

    def share(self, rows: Span, columns: Span, restored: Tensor) -> Tensor:
        """Return what a tile adds to the result, (3, h, w), from the tile as it is restored."""

    def finished(self, rows: slice, columns: slice, total: Tensor | None) -> Tensor:
        """Return a part of the result, (3, h, w), from the sum of what all tiles add to it.

        total: None where no tile adds anything.
        """


def restore_in_tiles(
    restore_tile: Callable[[Span, Span], Tensor],
    bands: Sequence[Band],
    width: int,
    kept: Keeping,
    receive: Receive,
    progress: Progress | None,
    *,
    device: torch.device,
) -> None:
    """Restore the tiles of which something is kept, and call receive for every part of the photo.

    restore_tile: restore_tile(rows, columns) returns a tile, (3, h, w).
    bands: with their tiles; they cover the photo. width: of the photo.
    """
    count, done = sum(len(band.tiles) for band in bands), 0
    most_rows = max((band.rows.length for band in bands if band.tiles), default=0)
    sums_of_band = _BandSums(width, most_rows, device)
    for band in bands:
        row = band.rows
        total = sums_of_band.begin(band)
        sums = []
        for tile in band.tiles:
            restored = restore_tile(tile.rows, tile.columns)
            sums.append(restored.sum())
            share = kept.share(tile.rows, tile.columns, restored)
            assert total is not None
            inside = slice(tile.rows.start - row.start, tile.rows.stop - row.start)
            _add(share, tile, total[:, inside, tile.columns.as_slice])
            done += 1
            if progress:
                progress(done, count)
        # Once a band: a GPU works on while its tiles are handed on.
        check_finite(row, [tile.columns for tile in band.tiles], sums)
        ready = row.length - row.after
        for part_rows, part_columns in parts(slice(row.start, row.start + ready), width, device):
            inside = slice(part_rows.start - row.start, part_rows.stop - row.start)
            part = None if total is None else total[:, inside, part_columns]
            receive(part_rows, part_columns, kept.finished(part_rows, part_columns, part))


class _BandSums:
    """The sums of a band's tiles, and those in the rows of pixels that it shares with the next.

    All bands use the same memory: new memory costs a CPU more than the sums. Channels are last in
    it, as in what networks give.
    """

    def __init__(self, width: int, most_rows: int, device: torch.device) -> None:
        self._shape, self._device = (most_rows, width, 3), device
        self._memory: Tensor | None = None
        self._shared: slice | None = None

    def begin(self, band: Band) -> Tensor | None:
        """Return the sums so far of a band, (3, rows, width); None for nothing."""
        row = band.rows
        shared, self._shared = self._shared, None
        if shared is None and not band.tiles:
            return None
        if self._memory is None:
            self._memory = torch.empty(self._shape, device=self._device).permute(2, 0, 1)
        first_new = 0
        if shared is not None:
            first_new = shared.stop - shared.start
            self._memory[:, :first_new] = self._memory[:, shared].clone()
        total = self._memory[:, : row.length]
        total[:, first_new:] = 0
        if row.after:
            self._shared = slice(row.length - row.after, row.length)
        return total


def check_finite(row: Span, columns: Sequence[Span], sums: Sequence[Tensor]) -> None:
    """Raise LdpError where the sum of a restored tile is not finite.

    sums: of the tiles of a row, or the tiles themselves.
    """
    if not sums or bool(torch.isfinite(torch.stack([total.sum() for total in sums])).all()):
        return
    wrong = [
        column
        for column, total in zip(columns, sums, strict=True)
        if not bool(torch.isfinite(total.sum()))
    ]
    raise LdpError(
        f"rows {row.start} to {row.stop}, columns {wrong[0].start} to {wrong[0].stop}: the "
        "restored picture is not finite; look for NaN or infinity in the views"
    )


def parts(rows: slice, width: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Yield parts of some rows, on the grid of blocks that suits the device."""
    height_px, width_px = BLOCK_PX[device.type]
    top = rows.start
    while top < rows.stop:
        bottom = min((top // height_px + 1) * height_px, rows.stop)
        for left in range(0, width, width_px):
            yield slice(top, bottom), slice(left, min(left + width_px, width))
        top = bottom


def store(planes: Tensor, pixels: Tensor) -> None:
    """Copy a part of a picture, (3, h, w), into a part of one that has channels last, (h, w, 3)."""
    if planes.device.type == "cpu" and planes.stride(2) == 1:  # the same, three times as fast
        cv2.merge(list(planes.numpy()), pixels.numpy())
    else:
        pixels.copy_(planes.permute(1, 2, 0))


def _add(share: Tensor, tile: Tile, total: Tensor) -> None:
    """Add what a tile gives, (3, h, w), blended where it overlaps its neighbours."""
    rows, columns = tile.rows, tile.columns
    down, across = (
        torch.from_numpy(blend_weights(span)).to(total.device) for span in (rows, columns)
    )
    every = slice(0, columns.length)
    own_rows = slice(rows.before, rows.length - rows.after)
    own_columns = slice(columns.before, columns.length - columns.after)
    shared = (
        (slice(0, own_rows.start), every),
        (slice(own_rows.stop, rows.length), every),
        (own_rows, slice(0, own_columns.start)),
        (own_rows, slice(own_columns.stop, columns.length)),
    )
    for lines, part in shared:
        weights = down[lines, None] * across[part]
        total[:, lines, part].addcmul_(share[:, lines, part], weights)
    total[:, own_rows, own_columns].add_(share[:, own_rows, own_columns])
