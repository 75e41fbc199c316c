"""Networks with a known result, to test restoring at several scales with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.models.network import NetworkConfig
from ldp.restore.deblur import Deblurrer

MICRO = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), shuffle=2, crop_px=64)


class Adding(nn.Module):
    """The mean view and a constant; it notes the sizes of its inputs."""

    def __init__(self, value: float, seen: list[tuple[int, int]] | None = None) -> None:
        super().__init__()
        self.config = MICRO
        self.value = value
        self.seen = seen if seen is not None else []

    def forward(self, views: Tensor, blur: Tensor) -> Tensor:
        self.seen.append((views.shape[-2], views.shape[-1]))
        return (views[:, :3] + views[:, 3:]) / 2 + self.value


class Smoothing(nn.Module):
    """The mean view, a share of it smoothed over three pixels."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.config = MICRO
        self.share = share

    def forward(self, views: Tensor, blur: Tensor) -> Tensor:
        mean = (views[:, :3] + views[:, 3:]) / 2
        smooth = F.avg_pool2d(F.pad(mean, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return mean + self.share * (smooth - mean)


def deblurrer_of(network: nn.Module, tile_px: int = 64) -> Deblurrer:
    """A Deblurrer on the CPU with small tiles."""
    return Deblurrer(network, torch.device("cpu"), tile_px, 16, torch.float32)  # type: ignore[arg-type]
