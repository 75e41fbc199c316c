"""Restores a pair of views of any size with a network, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldp.errors import NEEDS_SOFT_MAP, LdpError
from ldp.models.tlc import CELLS
from ldp.models.weights import load_network, resolve, sha256
from ldp.restore.tiling import RowBlender, Span, pool_map, read_map_window, read_window, spans
from ldp.types import BlurMap, Deblurred, MapPlane, Plane, ViewPair

if TYPE_CHECKING:
    from ldp.models.network import LDPNet
    from ldp.models.released import LDPReleased

Progress = Callable[[int, int], None]

AUTO_TILE_PX = {"cpu": 768, "cuda": 1024}
MIN_TILE_PX = 128
OVERLAP_PX = 32
HALO_PX = 64
"""At least; and half a local window, so that the first window of every pixel that is kept is whole.
"""


class NetworkFacts(Protocol):
    """What Deblurrer must know of a network's configuration."""

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
        """Where every tile wants the whole photo's map, pooled to a square: that square's side."""


class Network(Protocol):
    """ldp.models.network.LDPNet, ldp.models.released.LDPReleased."""

    @property
    def config(self) -> NetworkFacts:
        """The configuration."""

    def __call__(self, views: Tensor, blur: Tensor) -> Tensor:
        """views: (1, 6, H, W). blur: (1, planes, H, W), or the pooled map. -> (1, 3, H, W)."""


@dataclass(frozen=True)
class Deblurrer:
    """A network on a device, ready to restore photos.

    tile_px: side of the area that one pass gives, OVERLAP_PX of it shared with each neighbour.
    halo_px: what a pass reads around it and throws away.
    precision: the type of the network's matrix products.
    """

    network: Network
    name: str
    weights_sha256: str
    device: torch.device
    tile_px: int
    halo_px: int
    precision: torch.dtype

    @classmethod
    def load(cls, model: str, device: str = "auto", tile: int = 0) -> Deblurrer:
        """A network from its weights file.

        model: a shipped network's name or a .safetensors path. device: auto, cpu, cuda, cuda:N.
        tile: side in pixels, rounded up to what the network allows; 0 to choose.

        Raises WeightsError if the weights cannot be used, ValueError for an impossible device.
        """
        path = resolve(model)
        where = choose_device(device)
        return cls.of(load_network(path), path.stem, sha256(path), where, tile)

    @classmethod
    def of(
        cls,
        network: LDPNet | LDPReleased,
        name: str,
        weights_sha256: str,
        device: torch.device,
        tile: int = 0,
    ) -> Deblurrer:
        """A network in memory, which is moved to the device and given local statistics."""
        network.use_local_statistics(network.config.crop_px)
        network = network.to(device).to(memory_format=torch.channels_last)
        align = grid_px(network)
        return cls(
            network=network,
            name=name,
            weights_sha256=weights_sha256,
            device=device,
            tile_px=_tile_px(tile or AUTO_TILE_PX[device.type], align),
            halo_px=_rounded(max(HALO_PX, network.config.crop_px // 2), align),
            precision=choose_precision(device),
        )

    def restore(
        self, views: ViewPair, blur_map: BlurMap, progress: Progress | None = None
    ) -> Deblurred:
        """The sharp picture of two views, clipped to [0, 1] and rounded to 16 bits.

        progress(done, total) is called after every tile. Where a GPU's memory does not hold a tile,
        the photo starts again with tiles of half the side, so done may fall back and total grow.

        Raises LdpError where the network reads a plane that the map has not, where even small tiles
        do not fit, and where the result is not finite: a NaN or an infinity in a view is refused,
        since no pixel value stands for it.
        """
        align = grid_px(self.network)
        tile = self.tile_px
        while True:
            try:
                return Deblurred(self._restore(views, blur_map, tile, progress), blur_map)
            except torch.OutOfMemoryError as error:
                smaller = _tile_px(max(MIN_TILE_PX, tile // 2), align)
                if smaller >= tile:
                    raise LdpError(
                        f"the memory of {self.device} does not hold the network and a tile of "
                        f"{tile} px; free some of it, or restore on the CPU (--device cpu)"
                    ) from error
                tile = smaller
            torch.cuda.empty_cache()

    def _restore(
        self, views: ViewPair, blur_map: BlurMap, tile: int, progress: Progress | None
    ) -> npt.NDArray[np.uint16]:
        height, width = views.size
        align = grid_px(self.network)
        overlap = _rounded(OVERLAP_PX, align)
        rows, columns = (spans(side, tile, overlap, align) for side in views.size)
        planes = _planes_read(self.network, blur_map)
        side = self.network.config.pooled_map_side
        pooled = [pool_map(plane, views.size, side) for plane in planes] if side else None
        sharp = np.empty((height, width, 3), np.uint16)
        blender = RowBlender(width)
        done, finished = 0, 0
        for row in rows:
            for column in columns:
                restored = self._restore_tile(views, planes, pooled, row, column)
                blender.add(row, column, restored)
                done += 1
                if progress:
                    progress(done, len(rows) * len(columns))
            band = blender.take(row)
            levels = np.clip(band, 0, 1) * np.float32(65535) + np.float32(0.5)
            sharp[finished : finished + len(band)] = levels.astype(np.uint16)
            finished += len(band)
        return sharp

    def _restore_tile(
        self,
        views: ViewPair,
        planes: list[Plane],
        pooled: list[Plane] | None,
        row: Span,
        column: Span,
    ) -> npt.NDArray[np.float32]:
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
    """Tiles begin at multiples of this: the network's stride and the cells of its local windows."""
    return math.lcm(network.config.stride, max(1, network.config.crop_px // CELLS))


def choose_device(device: str) -> torch.device:
    """The device of a name; auto is CUDA where there is one, else the CPU.

    Raises ValueError for a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: expected auto, cpu, cuda or cuda:N") from error
    if chosen.type not in AUTO_TILE_PX:
        raise ValueError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or install a driver and a CUDA build of PyTorch"
        )
    return chosen


def choose_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32: CUDA, and CPUs with AMX.

    On a Xeon with AMX, `tiny` restores a tile of 768 px with its halo about 1.6 times as fast in
    bfloat16 autocast as in float32 (one thread, both in one run). On real photos the two results
    agree to more than 60 dB PSNR, far closer than either comes to the true picture.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Private in PyTorch 2.11 to 2.15, so it may go; without an answer float32 is the safe one.
        fast = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return torch.bfloat16 if fast else torch.float32


def _planes_read(network: Network, blur_map: BlurMap) -> list[Plane]:
    """The planes of a blur map that the network is given. Raises LdpError where one is missing."""
    planes = [getattr(blur_map, name) for name in network.config.map_planes]
    if any(plane is None for plane in planes):
        raise LdpError(NEEDS_SOFT_MAP)
    return planes


def _tile_px(wanted: int, align: int) -> int:
    return max(_rounded(wanted, align), 2 * _rounded(OVERLAP_PX, align))


def _rounded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
