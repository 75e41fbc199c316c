"""What restoring needs to know of a network."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from ldp.errors import SoftMapError
from ldp.models.tlc import CELLS
from ldp.types import BlurMap, MapPlane, Plane

_AUTO_TILE_PX = {"cpu": 1024, "cuda": 1024}
_AUTO_TILE_PX_SHUFFLED = {"cpu": 1440, "cuda": 1024}
"""Of networks whose first layer has a quarter of the pixels, which take a quarter of the memory. On
a CPU larger tiles save halos; a GPU is busy with smaller ones, and all are compiled for one size.
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
    def shuffle(self) -> int:
        """Side of the blocks of pixels that are one pixel of the first layer."""

    @property
    def map_planes(self) -> tuple[MapPlane, ...]:
        """The planes of the blur map that the network is given, in this order."""

    @property
    def pooled_map_side(self) -> int | None:
        """Where every tile is given the whole photo's map, pooled to a square: that square's side.

        None where a tile is given its own part of the map.
        """


class Network(Protocol):
    """LDPNet, LDPReleased and Restormer, of the modules of ldp.models."""

    @property
    def config(self) -> NetworkFacts:
        """The configuration."""

    def to(self, device: torch.device) -> Network:
        """Move it to a device."""

    def __call__(self, views: Tensor, blur: Tensor) -> Tensor:
        """Map views (1, 6, H, W) and blur (1, planes, H, W), or the pooled map, to (1, 3, H, W)."""


def auto_tile_px(config: NetworkFacts, device: torch.device) -> int:
    """Return the side of tiles that suits a network on a device."""
    sides = _AUTO_TILE_PX if config.shuffle == 1 else _AUTO_TILE_PX_SHUFFLED
    return sides[device.type]


def grid_px(network: Network) -> int:
    """Return the grid that tiles begin on: the network's stride and the cells of local windows."""
    return math.lcm(network.config.stride, max(1, network.config.crop_px // CELLS))


def planes_read(network: Network, blur_map: BlurMap) -> list[Plane]:
    """Return the planes that the network is given. Raises SoftMapError where one is missing."""
    planes = [getattr(blur_map, name) for name in network.config.map_planes]
    if any(plane is None for plane in planes):
        raise SoftMapError(
            "this network reads CLIP's unnormalised map, the plane `soft`, which only the blur map "
            "'clip' has"
        )
    return planes
