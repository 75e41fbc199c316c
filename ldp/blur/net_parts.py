"""What the small networks are built of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), (B, channels, H, W) each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        changed: Tensor = self.mix(F.gelu(self.spread(F.gelu(x))))
        return x + changed


def doubled(planes: Tensor) -> Tensor:
    """Return planes (B, k, H, W) at twice the size, bilinearly."""
    return F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
