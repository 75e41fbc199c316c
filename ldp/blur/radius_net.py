"""A small network that tells the radius of the blur from the two views of a photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.blur.net_parts import ResidualBlock, doubled

STRIDE_PX = 4
"""Pixels of the views to one value of the output, along each axis."""
LARGEST_STRIDE_PX = 16
"""Both sides of the input are multiples of it."""
SMALLEST_RADIUS_PX = 0.25
"""Radii below this look alike and count as this one."""
_CONTRAST_SIGMA_PX = 8.0
_CONTRAST_FLOOR = 0.01


@dataclass(frozen=True)
class RadiusNetConfig:
    """Channels at strides of 4, 8 and 16 px."""

    channels: tuple[int, int, int] = (32, 48, 64)


class RadiusNet(nn.Module):
    """A U-Net from the lightness of both views to the logarithm of the radius, how sure it is, and
    the side of the focus plane."""

    def __init__(self, config: RadiusNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or RadiusNetConfig()
        fine, middle, coarse = self.config.channels
        self.intro = nn.Conv2d(2 * STRIDE_PX**2, fine, 3, padding=1)
        self.fine = ResidualBlock(fine)
        self.down = nn.Conv2d(fine, middle, 2, 2)
        self.middle = nn.Sequential(ResidualBlock(middle), ResidualBlock(middle))
        self.down_again = nn.Conv2d(middle, coarse, 2, 2)
        self.coarse = nn.Sequential(
            ResidualBlock(coarse), ResidualBlock(coarse), ResidualBlock(coarse)
        )
        self.up = nn.Conv2d(coarse, middle, 1)
        self.middle_out = ResidualBlock(middle)
        self.up_again = nn.Conv2d(middle, fine, 1)
        self.fine_out = ResidualBlock(fine)
        self.ending = nn.Conv2d(fine, 3, 3, padding=1)

    def forward(self, lightness: Tensor) -> Tensor:
        """(B, 3, H / STRIDE_PX, W / STRIDE_PX): log2 of the radius in pixels of this input, the
        natural logarithm of the Laplace scale of its error, and the logit of being near.

        lightness: (B, 2, H, W), of the left and the right view, sRGB-encoded, white at 1, H and W
        multiples of LARGEST_STRIDE_PX.
        """
        x = F.pixel_unshuffle(normalised(lightness), STRIDE_PX)
        fine = self.fine(self.intro(x))
        middle = self.middle(self.down(fine))
        coarse = self.coarse(self.down_again(middle))
        middle = self.middle_out(middle + doubled(self.up(coarse)))
        fine = self.fine_out(fine + doubled(self.up_again(middle)))
        found: Tensor = self.ending(fine)
        return found


def normalised(lightness: Tensor) -> Tensor:
    """Mean and difference of the views, less their local means, over the local contrast of the
    mean: blur does not depend on brightness and contrast.

    lightness: (B, 2, H, W). Returns the same shape.
    """
    mean = lightness.mean(1, keepdim=True)
    difference = lightness[:, :1] - lightness[:, 1:]
    both = torch.cat([mean, difference], 1)
    centred = both - _smooth(both)
    contrast = (_smooth(centred[:, :1].square()) + _CONTRAST_FLOOR**2).sqrt()
    scaled = centred / contrast
    # The difference of the views is several times smaller than the views.
    return torch.cat([scaled[:, :1], 3 * scaled[:, 1:]], 1).clamp(-6, 6)


def _smooth(planes: Tensor) -> Tensor:
    """A Gaussian blur of about _CONTRAST_SIGMA_PX: three box means at a quarter of the size."""
    small = F.avg_pool2d(planes, STRIDE_PX)
    side = 2 * round(_CONTRAST_SIGMA_PX / STRIDE_PX) - 1
    for _ in range(3):
        small = F.avg_pool2d(F.pad(small, (side // 2,) * 4, mode="replicate"), side, 1)
    return F.interpolate(small, scale_factor=STRIDE_PX, mode="bilinear", align_corners=False)
