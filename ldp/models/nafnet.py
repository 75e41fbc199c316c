"""NAFNet's building blocks (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.models.tlc import local_mean


def scaled_sum(x: Tensor, change: Tensor, scale: Tensor) -> Tensor:
    """Return x + change * scale, in the wider type of x and scale.

    In one pass over memory after the change is widened: a CPU multiplies values of different types
    in three. Without gradients the result takes the memory of the widened change, which is lost.
    """
    wide = torch.promote_types(x.dtype, scale.dtype)
    widened = change.to(wide)
    in_place = x.device.type == "cpu" and not torch.is_grad_enabled()
    return torch.addcmul(x.to(wide), widened, scale.to(wide), out=widened if in_place else None)


class LayerNorm2d(nn.Module):
    """Normalise the channels of every pixel, in float32: fp16 overflows, bf16 is too coarse."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape and type."""
        wide = x.float().permute(0, 2, 3, 1)
        normed = F.layer_norm(wide, wide.shape[-1:], self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2).to(x.dtype)


class NAFBlock(nn.Module):
    """Gated depthwise block with simplified channel attention, then a gated feed-forward.

    window: side of the area that the channel attention averages over, in this block's pixels; None
        for everything, as in training. At inference it is the size of the training crops, so that
        the statistics are those that the network was trained on (ldp.models.tlc).
    """

    window: int | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.window = None
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sca = nn.Conv2d(channels, channels, 1)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        y: Tensor = self.conv2(self.conv1(self.norm1(x)))
        first, second = y.chunk(2, 1)
        y = first * second
        y = y * self._attention(y)
        x = scaled_sum(x, self.conv3(y), self.beta)
        first, second = self.conv4(self.norm2(x)).chunk(2, 1)
        y = self.conv5(first * second)
        return scaled_sum(x, y, self.gamma)

    def _attention(self, y: Tensor) -> Tensor:
        if self.window is None or self.window >= max(y.shape[-2:]):
            weights: Tensor = self.sca(y.mean((2, 3), keepdim=True))
            return weights
        means, cell = local_mean(y, self.window)
        grown = F.interpolate(self.sca(means), scale_factor=float(cell), mode="nearest")
        return grown[..., : y.shape[-2], : y.shape[-1]]


class NAFNet(nn.Module):
    """Encoder, middle blocks and decoder with additive skips; features in, features out.

    Input and output have `width` channels; each level halves the resolution and doubles them.
    """

    def __init__(
        self, width: int, encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...]
    ) -> None:
        super().__init__()
        if len(encoder) != len(decoder):
            raise ValueError(f"{len(encoder)} encoder levels, {len(decoder)} decoder levels")
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        channels = width
        for blocks in encoder:
            self.encoders.append(nn.Sequential(*(NAFBlock(channels) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, 2))
            channels *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(channels) for _ in range(middle)))
        for blocks in decoder:
            self.ups.append(
                nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            )
            channels //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(channels) for _ in range(blocks))))

    @property
    def stride(self) -> int:
        """Both sides of the input are multiples of it."""
        return 1 << len(self.encoders)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W), H and W multiples of `stride`, to the same shape."""
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return x

    def use_local_statistics(self, crop_px: int | None) -> None:
        """Give every pooling a window of crop_px input pixels; None makes it global again."""
        deepest = len(self.encoders)
        levels = [*enumerate(self.encoders), (deepest, self.middle_blks)]
        levels += [(deepest - 1 - depth, blocks) for depth, blocks in enumerate(self.decoders)]
        for level, blocks in levels:
            for block in blocks.modules():
                if isinstance(block, NAFBlock):
                    block.window = None if crop_px is None else max(1, crop_px >> level)
