"""Restore a pair of views of any size with a network, tile by tile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ldp.devices import choose_precision, is_out_of_memory
from ldp.errors import DeviceMemoryError
from ldp.restore.compiled import CompiledNetwork, Compiler, Run, inductor
from ldp.restore.network import Network, auto_tile_px, grid_px, planes_read
from ldp.restore.photo_views import (
    PhotoViews,
    RollingViews,
    StoredViews,
    as_photo,
    read_window,
)
from ldp.restore.protect import Kept
from ldp.restore.scale_weights import ScaleWeights
from ldp.restore.scales import ScaledTask, restore_at_scales
from ldp.restore.tile_plan import Band, TileSizes, Wanting, plan_tiles
from ldp.restore.tiles import Receive, check_finite, restore_in_tiles, store
from ldp.restore.tiling import Progress, Span, as_tensor, map_window, pool_map, rounded_up, spans
from ldp.types import BlurMap, FloatArray, ViewPair

if TYPE_CHECKING:
    from ldp.models.weights import PairNetwork

T = TypeVar("T")
Finish = Callable[[Tensor], Tensor]
"""finish(rows) returns rows of a picture changed, (n, W, 3) uint16 on the device."""
MIN_TILE_PX = 128
_FINISHED_ROWS = 4096
OVERLAP_PX = 32
HALO_PX = 64
"""At least; and half a local window, so that the first window of every pixel that is kept is whole.
"""


@dataclass(frozen=True)
class Deblurrer:
    """A network on a device, ready to restore photos.

    tile_px: side of the area that one pass gives, OVERLAP_PX of it shared with each neighbour.
    halo_px: what a pass reads around it and throws away.
    precision: the type of the network's matrix products.
    compiled: the network's compiled form; None where it runs as it is.
    """

    network: Network
    device: torch.device
    tile_px: int
    halo_px: int
    precision: torch.dtype
    compiled: CompiledNetwork | None = None

    @classmethod
    def of(cls, network: PairNetwork, device: torch.device, tile_px: int = 0) -> Deblurrer:
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
            tile_px=_tile_px(tile_px or auto_tile_px(own.config, device), align),
            halo_px=rounded_up(max(HALO_PX, own.config.crop_px // 2), align),
            precision=choose_precision(device),
        )

    def on(self, device: torch.device) -> Deblurrer:
        """Return the same on a device: itself, or a copy with the tiles that suit that device."""
        if device == self.device:
            return self
        tile_px = _tile_px(auto_tile_px(self.network.config, device), grid_px(self.network))
        network = copy.deepcopy(self.network).to(device)
        return replace(
            self,
            network=network,
            device=device,
            tile_px=tile_px,
            precision=choose_precision(device),
            compiled=None,
        )

    def compiling(self, compiler: Compiler = inductor) -> Deblurrer:
        """Return the same with a network that is being compiled in the background.

        Photos that begin before it is compiled are restored as before. The compiled network's
        values differ from the network's own by rounding.
        """
        compiled = CompiledNetwork(cast(nn.Module, self.network), compiler)
        side = self.tile_px + 2 * self.halo_px
        config = self.network.config
        views = torch.full((1, 6, side, side), 0.5, device=self.device)
        map_side = config.pooled_map_side or side
        blur = torch.full((1, len(config.map_planes), map_side, map_side), 0.5, device=self.device)
        compiled.start(views, blur, partial(run_network, precision=self.precision))
        return replace(self, compiled=compiled)

    def restore(
        self,
        views: ViewPair | PhotoViews,
        blur_map: BlurMap,
        progress: Progress | None = None,
        kept: Kept | None = None,
        weights: ScaleWeights | None = None,
    ) -> FloatArray:
        """Return the sharp picture of two views, (H, W, 3) float32, white at 1, not clipped.

        views: arrays, or a photo's on this device.
        weights: which scales to restore at, and where, as far as something is kept there; None for
            the views' own scale everywhere.
        progress: where the memory does not hold a tile, the photo starts again with tiles of half
            the side, so `done` may fall back and `total` grow. Tiles of which nothing is kept are
            not computed and do not count.
        kept: which share of the network's result is kept where; None keeps all of it.

        Raises SoftMapError where the network reads a plane that the map does not have,
        DeviceMemoryError where even small tiles do not fit, and LdpError where the result is not
        finite: a NaN or an infinity in a view is refused, since no pixel value represents it.
        """
        sharp = np.empty((*views.size, 3), np.float32)

        def receive(rows: slice, columns: slice, pixels: Tensor) -> None:
            sharp[rows, columns] = pixels.permute(1, 2, 0).cpu().numpy()

        self._restore(views, blur_map, receive, progress, kept, weights=weights)
        return sharp

    def restore_uint16(
        self,
        views: ViewPair | PhotoViews,
        blur_map: BlurMap,
        progress: Progress | None = None,
        kept: Kept | None = None,
        weights: ScaleWeights | None = None,
        *,
        finish: Finish | None = None,
        also: Receive | None = None,
    ) -> npt.NDArray[np.uint16]:
        """Return the same picture clipped to [0, 1] and rounded, (H, W, 3), 65535 is white.

        It is rounded part by part, on the device: the whole picture is never in memory as floats.
        Other arguments and errors are those of `restore`.

        finish: applied to the rounded picture, some rows at a time; None leaves it as it is.
        also: is given every part too, before it is clipped; again where the photo starts again.
        """
        sharp = torch.empty((*views.size, 3), dtype=torch.uint16, device=self.device)

        def receive(rows: slice, columns: slice, pixels: Tensor) -> None:
            if also:
                also(rows, columns, pixels)
            levels = pixels.clamp(0, 1).mul_(65535).add_(0.5).to(torch.uint16)
            store(levels, sharp[rows, columns])

        self._restore(views, blur_map, receive, progress, kept, weights=weights)
        if finish is not None:
            for top in range(0, len(sharp), _FINISHED_ROWS):
                rows = sharp[top : top + _FINISHED_ROWS]
                finished = finish(rows)
                if finished is not rows:
                    rows.copy_(finished)
        return np.asarray(to_host(sharp), np.uint16)

    def _restore(
        self,
        views: ViewPair | PhotoViews,
        blur_map: BlurMap,
        receive: Receive,
        progress: Progress | None,
        kept: Kept | None,
        *,
        weights: ScaleWeights | None,
    ) -> None:
        """Call receive(rows, columns, pixels) for all parts; again with smaller tiles."""
        align = grid_px(self.network)
        tile_px = self.tile_px
        photo = as_photo(views, self.device)
        kept = kept or Kept(photo, np.ones((1, 1), np.float32))
        while True:
            try:
                if weights is None:
                    rolling = RollingViews(photo, self.device)
                    restore_tile = self._tile_restorer(rolling, blur_map)
                    bands = self.bands(kept, photo.size, tile_px)
                    width = photo.size[1]
                    restore_in_tiles(
                        restore_tile, bands, width, kept, receive, progress, device=self.device
                    )
                else:
                    bands_of = partial(self.bands, tile_px=tile_px)
                    task = ScaledTask(bands_of, self._tile_restorer, photo, blur_map, kept, weights)
                    restore_at_scales(task, receive, progress, self.device)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                smaller_px = _tile_px(max(MIN_TILE_PX, tile_px // 2), align)
                if smaller_px >= tile_px:
                    raise DeviceMemoryError(
                        f"the memory of {self.device} does not hold the network and a tile of "
                        f"{tile_px} px; free some of it, or restore on the CPU"
                    ) from error
                tile_px = smaller_px
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def bands(self, picture: Wanting, size: tuple[int, int], tile_px: int) -> list[Band]:
        """Return the tiles that cover what is wanted of a picture of `size` (H, W)."""
        sizes = TileSizes(tile_px, OVERLAP_PX, grid_px(self.network), gap=2 * self.halo_px)
        return plan_tiles(picture, size, sizes)

    def tile_spans(self, size: tuple[int, int], tile_px: int) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of tiles that cover a picture of `size` (H, W)."""
        align = grid_px(self.network)
        overlap = rounded_up(OVERLAP_PX, align)
        rows, columns = (spans(side, tile_px, overlap, align) for side in size)
        return rows, columns

    def tile_restorer(
        self, views: ViewPair, blur_map: BlurMap
    ) -> Callable[[Span, Span], FloatArray]:
        """Return the function that restores one tile, (rows, columns) -> (h, w, 3), not clipped.

        Raises SoftMapError where the network reads a plane that the map does not have.
        """
        restore_tile = self._tile_restorer(StoredViews(views, self.device), blur_map)

        def restored(row: Span, column: Span) -> FloatArray:
            tile = restore_tile(row, column)
            check_finite(row, [column], [tile])
            return np.asarray(tile.permute(1, 2, 0).cpu().numpy(), np.float32)

        return restored

    def _tile_restorer(
        self, views: PhotoViews, blur_map: BlurMap
    ) -> Callable[[Span, Span], Tensor]:
        """Return the function that restores one tile, (rows, columns) -> (3, h, w)."""
        planes = planes_read(self.network, blur_map)
        run = self.network if self.compiled is None else self.compiled.current()
        side = self.network.config.pooled_map_side
        if side:
            pooled = np.stack([pool_map(plane, views.size, side) for plane in planes])
            blur = torch.from_numpy(pooled)[None].to(self.device)
            return lambda row, column: self._restore_tile(views, [], blur, row, column, run=run)
        maps = [as_tensor(plane).to(self.device) for plane in planes]
        return lambda row, column: self._restore_tile(views, maps, None, row, column, run=run)

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
        (top, height), (left, width) = (
            self._window(span, side) for span, side in zip((row, column), views.size, strict=True)
        )
        window = (top, left, height, width)
        both = read_window(views, *window)[None].contiguous(memory_format=torch.channels_last)
        blur = pooled
        if blur is None:
            blur = torch.stack([map_window(plane, views.size, *window) for plane in maps])[None]
        restored = run_network(run, both, blur, precision=self.precision)[0]
        down, across = row.start - top, column.start - left
        return restored[:, down : down + row.length, across : across + column.length].float()

    def _window(self, span: Span, side: int) -> tuple[int, int]:
        """Return where the window of a tile begins along an axis, and its length.

        side: of the picture along it. The window has the tile's halo inside the picture and ends
        with the picture, as the crops of training do, but that it grows to a multiple of what the
        network needs, which is cut off again.
        """
        align, halo = grid_px(self.network), self.halo_px
        end = rounded_up(side, align)
        first = max(0, span.start - halo)
        step = align if self.compiled is not None else self.network.config.stride
        last = min(end, span.start + rounded_up(span.length + halo, step))
        # A compiled network takes full windows, filled with pixels rather than with padding; but
        # tiles that were halved because the memory did not hold a full window have small ones.
        if self.compiled is not None and 2 * span.length > self.tile_px:
            first = max(0, min(first, last - self.tile_px - 2 * halo))
            last = min(end, first + self.tile_px + 2 * halo)
        return first, last - first


def run_network(run: Run, views: Tensor, blur: Tensor, *, precision: torch.dtype) -> Tensor:
    """Call a network with its matrix products in that precision."""
    narrow = precision != torch.float32
    with torch.inference_mode(), torch.autocast(views.device.type, precision, enabled=narrow):
        return run(views, blur)


def first_that_fits(devices: Sequence[torch.device], attempt: Callable[[torch.device], T]) -> T:
    """Return attempt(device) for the first of the devices whose memory is large enough.

    Raises DeviceMemoryError where that of none is.
    """
    for number, device in enumerate(devices):
        try:
            return attempt(device)
        except DeviceMemoryError:
            if device.type == "cpu" or number + 1 == len(devices):
                raise
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if device.type == "cpu" or number + 1 == len(devices):
                reason = str(error).partition("\n")[0] or "out of memory"
                text = f"the memory of {device} does not hold the photo: {reason}"
                raise DeviceMemoryError(text) from error
        torch.cuda.empty_cache()
    raise ValueError("no device")


def to_host(picture: Tensor) -> npt.NDArray[np.generic]:
    """Return a tensor as an array on the host, from a GPU through pinned memory."""
    if picture.device.type != "cuda":
        return picture.numpy()
    pinned = torch.empty(picture.shape, dtype=picture.dtype, pin_memory=True)
    return pinned.copy_(picture).numpy()


def _tile_px(wanted: int, align: int) -> int:
    return max(rounded_up(wanted, align), 2 * rounded_up(OVERLAP_PX, align))
