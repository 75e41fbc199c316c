"""The LDP network: two views and a blur map in, one sharp picture out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.models.attention import BlurPriorAttention, map_logit
from ldp.models.nafnet import NAFNet
from ldp.types import MapPlane

PRIORS: tuple[MapPlane, ...] = ("amount", "soft")


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network; it is stored with the weights.

    shuffle: the views enter as blocks of shuffle x shuffle pixels (1: as they are). 2 quarters the
        work of every layer for a little fine detail, which is what a CPU needs.
    map_channel: the blur map enters the first convolution, beside the views.
    attention: blur-prior attention stands at the first layer. Without both the network sees no map.
    prior: the plane of the blur map whose logits the attention is given: "amount", or "soft", the
        paper's, which only CLIP's map has.
    attention_kernel: side q of the blur-prior attention's neighbourhood.
    attention_below: further encoder levels, 1 and more, that begin with such an attention; the
        paper has it at the first layer only.
    crop_px: side of the training crops, which ldp.models.tlc gives to the global statistics at
    inference.
    """

    width: int = 32
    encoder: tuple[int, ...] = (2, 2, 2, 2)
    middle: int = 2
    decoder: tuple[int, ...] = (2, 2, 2, 2)
    shuffle: int = 1
    map_channel: bool = True
    attention: bool = True
    prior: MapPlane = "amount"
    attention_kernel: int = 5
    attention_below: tuple[int, ...] = ()
    crop_px: int = 256

    @property
    def stride(self) -> int:
        """Both sides of a network's input are multiples of it."""
        return self.shuffle << len(self.encoder)

    @property
    def map_planes(self) -> tuple[MapPlane, ...]:
        """The planes of the blur map that the network is given, in this order."""
        return ("amount",) if self.prior == "amount" else ("amount", "soft")

    @property
    def pooled_map_side(self) -> None:
        """The network reads the blur map pixel by pixel."""


SIZES: dict[str, NetworkConfig] = {
    "tiny": NetworkConfig(encoder=(2, 2, 2), middle=1, decoder=(2, 2, 2), shuffle=2, crop_px=160),
    "small": NetworkConfig(),
    "large": NetworkConfig(encoder=(4, 4, 8, 8), middle=4, decoder=(8, 8, 4, 4)),
}


class LDPNet(nn.Module):
    """NAFNet with blur-prior attention at its first layer; it predicts what the mean view lacks."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.prior not in PRIORS:
            raise ValueError(f"prior {config.prior!r}: expected one of {', '.join(PRIORS)}")
        self.config = config
        planes = config.shuffle**2
        # The map enters the first convolution too: attention weights say where to look, and the
        # plain channel how much to sharpen.
        self.intro = nn.Conv2d((6 + config.map_channel) * planes, config.width, 3, padding=1)
        if not set(config.attention_below) <= set(range(1, len(config.encoder))):
            raise ValueError(
                f"attention below at levels {config.attention_below}, expected some of 1 to "
                f"{len(config.encoder) - 1}"
            )
        self.attention = (
            BlurPriorAttention(config.width, config.attention_kernel) if config.attention else None
        )
        self.attention_below = nn.ModuleDict(
            {
                str(level): BlurPriorAttention(config.width << level, config.attention_kernel)
                for level in config.attention_below
            }
        )
        self.naf = NAFNet(config.width, config.encoder, config.middle, config.decoder)
        self.ending = nn.Conv2d(config.width, 3 * planes, 3, padding=1)

    def forward(self, views: Tensor, blur: Tensor) -> Tensor:
        """The sharp picture, (B, 3, H, W), not clipped.

        views: (B, 6, H, W) left RGB then right RGB, sRGB-encoded, white at 1. blur: the planes of
        the blur map that config.map_planes names, (B, 1 or 2, H, W), in [0, 1]. H and W are
        multiples of config.stride.
        """
        if blur.shape[1] != len(self.config.map_planes):
            raise ValueError(
                f"the blur map has {blur.shape[1]} planes, expected "
                f"{len(self.config.map_planes)}: {', '.join(self.config.map_planes)}"
            )
        shuffle = self.config.shuffle
        amount, prior = blur[:, :1], blur[:, -1:]
        logits = map_logit(prior)
        mean = (views[:, :3] + views[:, 3:]) / 2
        x = torch.cat([views, amount.to(views.dtype)], 1) if self.config.map_channel else views
        if shuffle > 1:
            x = F.pixel_unshuffle(x, shuffle)
            logits = F.avg_pool2d(logits, shuffle)
        x = self.intro(x)
        if self.attention is not None:
            x = self.attention(x, logits.to(x.dtype))

        def attend(level: int, features: Tensor) -> Tensor:
            if str(level) not in self.attention_below:
                return features
            coarse = F.avg_pool2d(logits, 1 << level).to(features.dtype)
            attended: Tensor = self.attention_below[str(level)](features, coarse)
            return attended

        x = self.ending(self.naf(x, attend if self.attention_below else None) + x)
        if shuffle > 1:
            x = F.pixel_shuffle(x, shuffle)
        return mean + x

    def use_local_statistics(self, crop_px: int | None) -> None:
        """Gives every pooling a window of crop_px input pixels; None makes it global again."""
        shuffled_px = None if crop_px is None else crop_px // self.config.shuffle
        self.naf.use_local_statistics(shuffled_px)


def parameter_count(network: nn.Module) -> int:
    """The number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())
