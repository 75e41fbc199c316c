"""The LDP network: two views and a blur map in, one sharp picture out; or one picture alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.models.attention import BlurPriorAttention, map_logit
from ldp.models.nafnet import NAFNet
from ldp.types import MapPlane

NOISE_SCALE = 16.0
"""A network of one view reads its noise level, at most about 0.06, times this."""
Prior = Literal["amount", "soft", "none"]
PRIORS: tuple[Prior, ...] = ("amount", "soft", "none")


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network; it is stored with the weights.

    width: channels at full resolution; each level doubles them.
    encoder, decoder: blocks at each level. middle: blocks at the lowest resolution.
    shuffle: the views are rearranged from blocks of shuffle x shuffle pixels to channels (1: not at
        all). 2 quarters the MACs of every layer at the cost of a little fine detail.
    map_channel: the blur map is an input channel of the first convolution.
    attention: blur-prior attention at the first layer. Without both, the network is given no map.
    prior: the plane of the blur map whose logits are the attention's prior: "amount", or "soft",
        the paper's, which only CLIP's map has; "none" for self-attention without a prior.
    attention_kernel: side q of the neighbourhood of the blur-prior attention.
    crop_px: side of the training crops: the window of the global statistics at inference, see
        ldp.models.tlc.
    views: 2, or 1 for a network of ordinary photos: in the place of the blur map it is given the
        noise level, as a plane that is the same everywhere; it has no attention.
    """

    width: int = 32
    encoder: tuple[int, ...] = (2, 2, 2, 2)
    middle: int = 2
    decoder: tuple[int, ...] = (2, 2, 2, 2)
    shuffle: int = 1
    map_channel: bool = True
    attention: bool = True
    prior: Prior = "amount"
    attention_kernel: int = 5
    crop_px: int = 256
    views: int = 2

    @property
    def stride(self) -> int:
        """Both sides of a network's input are multiples of it."""
        return self.shuffle << len(self.encoder)

    @property
    def map_planes(self) -> tuple[MapPlane, ...]:
        """The planes of the blur map that the network is given, in this order.

        A network of one view is given its noise level in the place of the amount.
        """
        return ("amount", "soft") if self.prior == "soft" else ("amount",)

    @property
    def pooled_map_side(self) -> None:
        """None: the network is given the blur map pixel by pixel."""


SIZES: dict[str, NetworkConfig] = {
    "tiny": NetworkConfig(encoder=(2, 2, 2), middle=1, decoder=(2, 2, 2), shuffle=2, crop_px=160),
    "small": NetworkConfig(),
    "large": NetworkConfig(encoder=(4, 4, 8, 8), middle=4, decoder=(8, 8, 4, 4)),
}


class LDPNet(nn.Module):
    """NAFNet with blur-prior attention at its first layer; a residual to the mean of the views."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.prior not in PRIORS:
            raise ValueError(f"prior {config.prior!r}: expected one of {', '.join(PRIORS)}")
        if config.views not in (1, 2):
            raise ValueError(f"{config.views} views: expected 2, or 1")
        if config.views == 1 and config.attention:
            raise ValueError("one view: no blur map for the blur-prior attention")
        self.config = config
        planes = config.shuffle**2
        channels = 3 * config.views + config.map_channel
        # The map is an input channel too: attention weights choose the neighbours, the channel says
        # how much to sharpen.
        self.intro = nn.Conv2d(channels * planes, config.width, 3, padding=1)
        self.attention = None
        if config.attention:
            with_prior = config.prior != "none"
            self.attention = BlurPriorAttention(
                config.width, config.attention_kernel, with_prior=with_prior
            )
        self.naf = NAFNet(config.width, config.encoder, config.middle, config.decoder)
        self.ending = nn.Conv2d(config.width, 3 * planes, 3, padding=1)

    def forward(self, views: Tensor, blur: Tensor) -> Tensor:
        """Return the sharp picture, (B, 3, H, W), not clipped.

        views: (B, 6, H, W), left RGB then right RGB, sRGB-encoded, white at 1; H and W multiples of
            config.stride. A network of one view reads the first three channels.
        blur: (B, 1 or 2, H, W), the planes of the blur map in config.map_planes, in [0, 1]; or the
            standard deviation of the picture's noise (B, 1, H, W) for a network of one view.

        Raises ValueError for another number of planes.
        """
        if blur.shape[1] != len(self.config.map_planes):
            raise ValueError(
                f"the blur map has {blur.shape[1]} planes, expected "
                f"{len(self.config.map_planes)}: {', '.join(self.config.map_planes)}"
            )
        shuffle = self.config.shuffle
        amount, prior = blur[:, :1], blur[:, -1:]
        if self.config.views == 1:
            views, amount = views[:, :3], amount * NOISE_SCALE
        mean = mean_view(views)
        x = torch.cat([views, amount.to(views.dtype)], 1) if self.config.map_channel else views
        if shuffle > 1:
            x = F.pixel_unshuffle(x, shuffle)
        x = self.intro(x)
        if self.attention is not None:
            logits = map_logit(prior)
            if shuffle > 1:
                logits = F.avg_pool2d(logits, shuffle)
            x = self.attention(x, logits.to(x.dtype))
        x = self.ending(self.naf(x) + x)
        if shuffle > 1:
            x = F.pixel_shuffle(x, shuffle)
        return mean + x

    def use_local_statistics(self, crop_px: int | None) -> None:
        """Give every pooling a window of crop_px input pixels; None makes it global again."""
        shuffled_px = None if crop_px is None else crop_px // self.config.shuffle
        self.naf.use_local_statistics(shuffled_px)


def mean_view(views: Tensor) -> Tensor:
    """Return the mean of two views (B, 6, H, W), which is the composite; one view is its own."""
    return views if views.shape[1] == 3 else (views[:, :3] + views[:, 3:]) / 2


def parameter_count(network: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())
