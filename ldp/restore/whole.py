"""Restore a picture in one pass, as networks were published: nothing of ours around them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.devices import is_out_of_memory
from ldp.errors import DeviceMemoryError
from ldp.restore.compiled import Run
from ldp.restore.deblur import Deblurrer, run_network
from ldp.restore.photo_views import PhotoViews, read_window
from ldp.restore.tile_plan import Band, Tile, Wanting
from ldp.restore.tiling import Span, map_window

if TYPE_CHECKING:
    from ldp.models.weights import PairNetwork


_WARM_UP_PX = 256
"""In the place of a tile's side: that of the picture that warms a model up."""


@dataclass(frozen=True)
class WholeDeblurrer(Deblurrer):
    """A network that is given the whole picture at once, in float32.

    Its convolutions see zeros beyond the border, and its statistics are those of the whole picture
    (no local windows, see ldp.models.tlc). Sides that the network cannot take are filled up with
    zeros at the bottom and on the right.
    """

    @classmethod
    def of(cls, network: PairNetwork, device: torch.device, tile_px: int = 0) -> WholeDeblurrer:
        """Prepare a copy of a network; tile_px has no meaning here."""
        own = copy.deepcopy(network).eval()
        own.use_local_statistics(None)
        own = own.to(device).to(memory_format=torch.channels_last)
        return cls(own, device, tile_px=_WARM_UP_PX, halo_px=0, precision=torch.float32)

    def on(self, device: torch.device) -> WholeDeblurrer:
        """Return the same on a device."""
        if device == self.device:
            return self
        return replace(self, network=copy.deepcopy(self.network).to(device), device=device)

    def bands(self, picture: Wanting, size: tuple[int, int], tile_px: int) -> list[Band]:
        """Return the one tile that is the picture, if anything of it is wanted."""
        rows, columns = (Span(0, side, 0, 0) for side in size)
        tiles = (Tile(rows, columns),) if picture.wants(rows, columns) else ()
        return [Band(rows, tiles)]

    def _restore_tile(
        self,
        views: PhotoViews,
        maps: list[Tensor],
        pooled: Tensor | None,
        row: Span,
        column: Span,
        *,
        run: Run,
    ) -> Tensor:
        height, width = row.length, column.length
        window = (0, 0, height, width)
        stride = 1 if pooled is not None else self.network.config.stride
        surplus = (0, -width % stride, 0, -height % stride)
        both = F.pad(read_window(views, *window)[None], surplus)
        blur = pooled
        if blur is None:
            planes = [map_window(plane, views.size, *window) for plane in maps]
            blur = F.pad(torch.stack(planes)[None], surplus)
        both = both.contiguous(memory_format=torch.channels_last)
        try:
            restored = run_network(run, both, blur, precision=self.precision)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceMemoryError(
                f"the memory of {self.device} does not hold the network and a whole picture of "
                f"{width} x {height} px; restore it in tiles"
            ) from error
        sharp: Tensor = restored[0, :, :height, :width].float()
        return sharp
