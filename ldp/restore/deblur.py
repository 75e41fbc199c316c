"""Restore a pair of views of any size with a network, tile by tile."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldp.devices import choose_precision
from ldp.errors import DeviceMemoryError, LdpError, SoftMapError
from ldp.models.tlc import CELLS
from ldp.restore.scale_weights import ScaleWeights
from ldp.restore.scales import ScaledTask, restore_at_scales
from ldp.restore.tiling import (
    Progress,
    RowBlender,
    Span,
    pool_map,
    read_map_window,
    read_window,
    spans,
)
from ldp.types import BlurMap, FloatArray, MapPlane, Plane, ViewPair, to_uint16

if TYPE_CHECKING:
    from ldp.models.network import LDPNet
    from ldp.models.released import LDPReleased

Finish = Callable[[int, FloatArray], FloatArray]
"""finish(first_row, rows) returns rows of the restored picture, (n, W, 3), as they are kept."""

AUTO_TILE_PX = {"cpu": 768, "cuda": 1024}
MIN_TILE_PX = 128
OVERLAP_PX = 32
HALO_PX = 64
"""At least; and half a local window, so that the first window of every pixel that is kept is whole.
"""


class NetworkFacts(Protocol):
    """The part of a network's configuration that restoring depends on."""

    @property
    def stride(self) -> int:
        """Both sides of a tile are multiples of it."""

    @property
    def crop_px(self) -> int:
        """Side of the training crops; local windows are made of cells of it."""

    @property
    def map_planes(self) -> tuple[MapPlane, ...]:
        """The planes of the blur map that the network is given, in this order."""

    @property
    def pooled_map_side(self) -> int | None:
        """Where every tile is given the whole photo's map, pooled to a square: that square's side.

        None where a tile is given its own part of the map.
        """


class Network(Protocol):
    """ldp.models.network.LDPNet, ldp.models.released.LDPReleased."""

    @property
    def config(self) -> NetworkFacts:
        """The configuration."""

    def __call__(self, views: Tensor, blur: Tensor) -> Tensor:
        """Map views (1, 6, H, W) and blur (1, planes, H, W), or the pooled map, to (1, 3, H, W)."""


@dataclass(frozen=True)
class Deblurrer:
    """A network on a device, ready to restore photos.

    tile_px: side of the area that one pass gives, OVERLAP_PX of it shared with each neighbour.
    halo_px: what a pass reads around it and throws away.
    precision: the type of the network's matrix products.
    """

    network: Network
    device: torch.device
    tile_px: int
    halo_px: int
    precision: torch.dtype

    @classmethod
    def of(cls, network: LDPNet | LDPReleased, device: torch.device, tile_px: int = 0) -> Deblurrer:
        """Prepare a copy of a network: on the device, with local statistics, for inference.

        tile_px: rounded up to what the network allows; 0 to choose by the device.
        """
        own = copy.deepcopy(network).eval()
        own.use_local_statistics(own.config.crop_px)
        own = own.to(device).to(memory_format=torch.channels_last)
        align = grid_px(own)
        return cls(
            network=own,
            device=device,
            tile_px=_tile_px(tile_px or AUTO_TILE_PX[device.type], align),
            halo_px=_rounded(max(HALO_PX, own.config.crop_px // 2), align),
            precision=choose_precision(device),
        )

    def restore(
        self,
        views: ViewPair,
        blur_map: BlurMap,
        progress: Progress | None = None,
        finish: Finish | None = None,
        weights: ScaleWeights | None = None,
    ) -> FloatArray:
        """Return the sharp picture of two views, (H, W, 3) float32, white at 1, not clipped.

        weights: which scales to restore at, and where; None for the views' own scale everywhere.
        progress: where the memory of a GPU does not hold a tile, the photo starts again with tiles
            of half the side, so `done` may fall back and `total` grow.
        finish: applied to the rows before they are returned; None returns them as they are.

        Raises SoftMapError where the network reads a plane that the map does not have,
        DeviceMemoryError where even small tiles do not fit, and LdpError where the result is not
        finite: a NaN or an infinity in a view is refused, since no pixel value represents it.
        """
        sharp = np.empty((*views.size, 3), np.float32)

        def receive(first_row: int, band: FloatArray) -> None:
            sharp[first_row : first_row + len(band)] = finish(first_row, band) if finish else band

        self._restore_bands(views, blur_map, receive, progress, weights)
        return sharp

    def restore_uint16(
        self,
        views: ViewPair,
        blur_map: BlurMap,
        progress: Progress | None = None,
        finish: Finish | None = None,
        weights: ScaleWeights | None = None,
    ) -> npt.NDArray[np.uint16]:
        """Return the same picture clipped to [0, 1] and rounded, (H, W, 3), 65535 is white.

        It is rounded band by band: the whole picture is never in memory as floats. Arguments and
        errors are those of `restore`.
        """
        sharp = np.empty((*views.size, 3), np.uint16)

        def receive(first_row: int, band: FloatArray) -> None:
            kept = finish(first_row, band) if finish else band
            sharp[first_row : first_row + len(band)] = to_uint16(kept)

        self._restore_bands(views, blur_map, receive, progress, weights)
        return sharp

    def _restore_bands(
        self,
        views: ViewPair,
        blur_map: BlurMap,
        receive: Callable[[int, FloatArray], None],
        progress: Progress | None,
        weights: ScaleWeights | None,
    ) -> None:
        """Call receive(first_row, rows) for every band; again from row 0 with smaller tiles."""
        align = grid_px(self.network)
        tile_px = self.tile_px
        while True:
            try:
                if weights is None:
                    self._restore_in_tiles(views, blur_map, tile_px, receive, progress)
                else:
                    task = ScaledTask(self, views, blur_map, weights, tile_px)
                    restore_at_scales(task, receive, progress)
                return
            except torch.OutOfMemoryError as error:
                smaller_px = _tile_px(max(MIN_TILE_PX, tile_px // 2), align)
                if smaller_px >= tile_px:
                    raise DeviceMemoryError(
                        f"the memory of {self.device} does not hold the network and a tile of "
                        f"{tile_px} px; free some of it, or restore on the CPU"
                    ) from error
                tile_px = smaller_px
            torch.cuda.empty_cache()

    def _restore_in_tiles(
        self,
        views: ViewPair,
        blur_map: BlurMap,
        tile_px: int,
        receive: Callable[[int, FloatArray], None],
        progress: Progress | None,
    ) -> None:
        rows, columns = self.tile_spans(views.size, tile_px)
        restore_tile = self.tile_restorer(views, blur_map)
        blender = RowBlender(views.size[1])
        done, finished = 0, 0
        for row in rows:
            for column in columns:
                blender.add(row, column, restore_tile(row, column))
                done += 1
                if progress:
                    progress(done, len(rows) * len(columns))
            band = blender.take(row)
            receive(finished, band)
            finished += len(band)

    def tile_spans(self, size: tuple[int, int], tile_px: int) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of tiles that cover a picture of `size` (H, W)."""
        align = grid_px(self.network)
        overlap = _rounded(OVERLAP_PX, align)
        rows, columns = (spans(side, tile_px, overlap, align) for side in size)
        return rows, columns

    def tile_restorer(
        self, views: ViewPair, blur_map: BlurMap
    ) -> Callable[[Span, Span], FloatArray]:
        """Return the function that restores one tile, (rows, columns) -> (h, w, 3), not clipped.

        Raises SoftMapError where the network reads a plane that the map does not have.
        """
        planes = _planes_read(self.network, blur_map)
        side = self.network.config.pooled_map_side
        pooled = [pool_map(plane, views.size, side) for plane in planes] if side else None
        return lambda row, column: self._restore_tile(views, planes, pooled, row, column)

    def _restore_tile(
        self,
        views: ViewPair,
        planes: list[Plane],
        pooled: list[Plane] | None,
        row: Span,
        column: Span,
    ) -> FloatArray:
        align, halo = grid_px(self.network), self.halo_px
        # The far side grows to the next multiple of the network's grid, which is cut off again.
        height = _rounded(row.length, align) + 2 * halo
        width = _rounded(column.length, align) + 2 * halo
        window = (row.start - halo, column.start - halo, height, width)
        both = np.concatenate([read_window(view, *window) for view in (views.left, views.right)])
        maps = pooled or [read_map_window(plane, views.size, *window) for plane in planes]
        inputs = torch.from_numpy(both)[None].to(self.device, memory_format=torch.channels_last)
        blur = torch.from_numpy(np.stack(maps))[None].to(self.device)
        narrow = self.precision != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.precision, enabled=narrow),
        ):
            restored = self.network(inputs, blur)[0]
        inner = restored[:, halo : halo + row.length, halo : halo + column.length]
        result = np.asarray(inner.permute(1, 2, 0).float().cpu().numpy(), np.float32)
        if not np.isfinite(result).all():
            raise LdpError(
                f"rows {row.start} to {row.stop}, columns {column.start} to {column.stop}: the "
                "restored picture is not finite; look for NaN or infinity in the views"
            )
        return result


def grid_px(network: Network) -> int:
    """Return the grid that tiles begin on: the network's stride and the cells of local windows."""
    return math.lcm(network.config.stride, max(1, network.config.crop_px // CELLS))


def _planes_read(network: Network, blur_map: BlurMap) -> list[Plane]:
    """Return the planes that the network is given. Raises SoftMapError where one is missing."""
    planes = [getattr(blur_map, name) for name in network.config.map_planes]
    if any(plane is None for plane in planes):
        raise SoftMapError(
            "this network reads CLIP's unnormalised map, the plane `soft`, which only the blur map "
            "'clip' has"
        )
    return planes


def _tile_px(wanted: int, align: int) -> int:
    return max(_rounded(wanted, align), 2 * _rounded(OVERLAP_PX, align))


def _rounded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
