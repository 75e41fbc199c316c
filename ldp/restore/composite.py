"""Restore a single picture of any size with a network of one view, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ldp.errors import DeviceMemoryError
from ldp.models.network import LDPNet
from ldp.restore.deblur import MIN_TILE_PX, Deblurrer
from ldp.restore.noise import noise_level
from ldp.restore.protect import eased
from ldp.restore.tiling import Progress, ReceiveRows, RowBlender
from ldp.types import BlurMap, FloatArray, Picture, ViewPair, as_float

NOTHING_BELOW, ALL_FROM = 0.004, 0.012
"""Local change of a picture, white at 1, below which none of it is kept and from which all is."""
_NEIGHBOURHOOD_PX = 8.0


@dataclass(frozen=True)
class CompositeRestorer:
    """A network of one view on a device; see ldp.single.BandRestorer.

    deblurrer: of the network, which is given the picture as both views and reads one.
    protects: whether the picture stays as it is where the network would change it by little, see
        `kept_share`: what is in focus.
    """

    deblurrer: Deblurrer
    protects: bool = True

    @classmethod
    def of(
        cls, network: LDPNet, device: torch.device, tile_px: int = 0, protects: bool = True
    ) -> CompositeRestorer:
        """Prepare a copy of a network on a device. tile_px: as in Deblurrer.of."""
        return cls(Deblurrer.of(network, device, tile_px), protects)

    def restore_bands(
        self,
        picture: Picture,
        receive: ReceiveRows,
        progress: Progress | None = None,
    ) -> None:
        """See ldp.single.BandRestorer."""
        views = ViewPair(picture, picture)
        level = BlurMap(np.full((1, 1), noise_level(picture), np.float32))
        tile_px = self.deblurrer.tile_px
        while True:
            try:
                self._restore(views, level, tile_px, receive, progress)
                return
            except torch.OutOfMemoryError as error:
                if tile_px <= MIN_TILE_PX:
                    raise DeviceMemoryError(
                        f"the memory of {self.deblurrer.device} does not hold the network and a "
                        f"tile of {tile_px} px; free some of it, or restore on the CPU"
                    ) from error
                tile_px = max(MIN_TILE_PX, tile_px // 2)
            torch.cuda.empty_cache()

    def _restore(
        self,
        views: ViewPair,
        level: BlurMap,
        tile_px: int,
        receive: ReceiveRows,
        progress: Progress | None,
    ) -> None:
        rows, columns = self.deblurrer.tile_spans(views.size, tile_px)
        restore_tile = self.deblurrer.tile_restorer(views, level)
        picture = views.left
        blender = RowBlender(views.size[1])
        done, finished = 0, 0
        for row in rows:
            for column in columns:
                tile = restore_tile(row, column)
                if self.protects:
                    area = row.as_slice, column.as_slice
                    tile = _protected(as_float(picture[area]), tile)
                blender.add(row, column, tile)
                done += 1
                if progress:
                    progress(done, len(rows) * len(columns))
            band = blender.take(row)
            receive(finished, band)
            finished += len(band)


def kept_share(change: FloatArray) -> FloatArray:
    """Return the share of a network's change that is kept, (H, W) in [0, 1].

    A single picture does not tell what is in focus, but there the network finds little to change.
    change: (H, W, 3), of which the root of the mean square of a neighbourhood decides.
    """
    square = cv2.GaussianBlur(np.square(change).mean(2), (0, 0), _NEIGHBOURHOOD_PX)
    return eased((np.sqrt(square) - NOTHING_BELOW) / (ALL_FROM - NOTHING_BELOW))


def _protected(given: FloatArray, restored: FloatArray) -> FloatArray:
    change = restored - given
    return given + change * kept_share(change)[..., None]
