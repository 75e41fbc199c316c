"""A small network that tells the depth of every pixel of a restored photo, from a map of it, the
two views and the restored picture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.blur.net_parts import ResidualBlock, doubled

LEVELS = 9
"""Depths that are tried, from somewhat farther than the map has to somewhat nearer."""
FINE_PLANES = 6 + LEVELS
COARSE_PLANES = 6 + 2 * LEVELS
LARGEST_STRIDE_PX = 32
"""Both sides of the input are multiples of it."""
_STRIDE_PX = 2


@dataclass(frozen=True)
class OutlineNetConfig:
    """Channels at strides of 2, 4, 8, 16 and 32 px."""

    channels: tuple[int, int, int, int, int] = (24, 48, 64, 80, 80)


class OutlineNet(nn.Module):
    """A U-Net that gives every pixel one of LEVELS depths, or that of the map, or a mixture."""

    def __init__(self, config: OutlineNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or OutlineNetConfig()
        channels = self.config.channels
        self.intro = nn.Conv2d(
            FINE_PLANES * _STRIDE_PX**2 + COARSE_PLANES, channels[0], 3, padding=1
        )
        self.inwards = nn.ModuleList([ResidualBlock(size) for size in channels[:-1]])
        self.downs = nn.ModuleList(
            [nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairwise(channels)]
        )
        self.middle = nn.Sequential(ResidualBlock(channels[-1]), ResidualBlock(channels[-1]))
        self.ups = nn.ModuleList(
            [nn.Conv2d(coarse, fine, 1) for coarse, fine in pairwise(reversed(channels))]
        )
        self.outwards = nn.ModuleList([ResidualBlock(size) for size in reversed(channels[:-1])])
        self.ending = nn.Conv2d(channels[0], (LEVELS + 1) * _STRIDE_PX**2, 3, padding=1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, LEVELS + 1, H, W): how likely each depth is, the last for the map's own; they add up
        to 1.

        fine: (B, FINE_PLANES, H, W). coarse: (B, COARSE_PLANES, H / 2, W / 2). See
        ldp.blur.outline_planes. H and W are multiples of LARGEST_STRIDE_PX.
        """
        x = self.intro(torch.cat([F.pixel_unshuffle(fine, _STRIDE_PX), coarse], 1))
        passed = []
        for block, down in zip(self.inwards, self.downs, strict=True):
            passed.append(block(x))
            x = down(passed[-1])
        x = self.middle(x)
        for block, up, before in zip(self.outwards, self.ups, reversed(passed), strict=True):
            x = block(before + doubled(up(x)))
        found: Tensor = F.pixel_shuffle(self.ending(x), _STRIDE_PX).softmax(1)
        return found


def mixed(found: Tensor, own: Tensor) -> Tensor:
    """Return the depth that the likelihoods come to, (B, 1, H, W), 0 for the first of the levels
    and 1 for the last.

    found: of the network. own: (B, 1, H, W), of the map.
    """
    levels = torch.linspace(0, 1, LEVELS, device=found.device)[:, None, None]
    depth: Tensor = (found[:, :LEVELS] * levels).sum(1, keepdim=True) + found[:, LEVELS:] * own
    return depth
