"""What restoring needs to know of a network."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ldp.types import MapPlane


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

    def to(self, device: torch.device) -> Network:
        """Move it to a device."""

    def __call__(self, views: Tensor, blur: Tensor) -> Tensor:
        """Map views (1, 6, H, W) and blur (1, planes, H, W), or the pooled map, to (1, 3, H, W)."""
