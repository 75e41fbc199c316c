"""ViTDeblur: a transformer that removes defocus blur from a single picture, window by window.

Liang et al., IEEE Transactions on Computational Imaging 10:1207, 2024. Written from a description
of the published system, so that its weights can be used; docs/vitdeblur.md says what is not
established of it. Channels are in OpenCV's order (BGR) everywhere in this module; whole pictures
are restored by ldp.restore.windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_PX = 16
"""Side of the patch of a token; patches overlap, since TOKEN_PX is smaller."""
TOKEN_PX = 10
"""From one token to the next, and the side of the area that a token's features are decoded to."""
MARGIN_PX = 5
"""Pixels of a window on each side without features of their own."""
FEATURES = 24
SKIP_KERNEL = 2 * MARGIN_PX + 1
OUTPUT_KERNEL = 13
OUTPUT_PAD_PX = MARGIN_PX + OUTPUT_KERNEL // 2
"""By how much features are reflected at a picture's border, for an output of the picture's size."""
# ImageNet's, which belong to R, G and B; the published system applies them to B, G and R.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_MAE_GRID = 14
_GRID_SURPLUS = 0.1


@dataclass(frozen=True)
class ViTDeblurConfig:
    """The shape of the network; the defaults are the published one's.

    window_px: side of a window, a multiple of TOKEN_PX.
    position_grid: side of the grid of stored positions; they are interpolated to the tokens.
    width, primary_heads, primary_blocks: of the primary encoder, whose blocks each have one of the
        decoder. contextual_heads, contextual_blocks: of the contextual encoder, as wide.
    decoder_width, decoder_heads: of the decoder.
    """

    window_px: int = 320
    position_grid: int = 35
    width: int = 768
    primary_heads: int = 12
    primary_blocks: int = 4
    contextual_heads: int = 16
    contextual_blocks: int = 3
    decoder_width: int = 1024
    decoder_heads: int = 16

    def __post_init__(self) -> None:
        if self.window_px < 3 * TOKEN_PX or self.window_px % TOKEN_PX:
            raise ValueError(
                f"window_px {self.window_px}: expected a multiple of {TOKEN_PX}, at least 3 of them"
            )
        if self.width % 4:
            raise ValueError(f"width {self.width}: expected a multiple of 4, for the positions")
        for heads, width in (
            (self.primary_heads, self.width),
            (self.contextual_heads, self.width),
            (self.decoder_heads, self.decoder_width),
        ):
            if width % heads:
                raise ValueError(f"{heads} heads: expected a divisor of the width, {width}")

    @property
    def tokens(self) -> int:
        """Tokens along a side of a window."""
        return (self.window_px - PATCH_PX) // TOKEN_PX + 1

    @property
    def covered_px(self) -> int:
        """Side of the area that a window gives features for, MARGIN_PX inside of it."""
        return self.tokens * TOKEN_PX


VITDEBLUR_SIZES: dict[str, ViTDeblurConfig] = {"vitdeblur": ViTDeblurConfig()}
"""By the names that training's recipes have for them."""


class Attention(nn.Module):
    """Attention of all tokens to all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, width) to the same shape."""
        batch, count, width = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return projected


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, width) to the same shape."""
        mapped: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return mapped


class Block(nn.Module):
    """A block of a vision transformer, normalised before each of its two parts."""

    def __init__(self, width: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, width) to the same shape."""
        x = x + self.attn(self.norm1(x))
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class PrimaryEncoder(nn.Module):
    """The first blocks of a masked autoencoder's encoder (He et al., CVPR 2022)."""

    pos_embed: Tensor

    def __init__(self, config: ViTDeblurConfig) -> None:
        super().__init__()
        width = config.width
        self._tokens = config.tokens
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.proj = nn.Conv2d(3, width, PATCH_PX, TOKEN_PX)
        self.register_buffer("pos_embed", fixed_positions(config.position_grid, width))
        heads, count = config.primary_heads, config.primary_blocks
        self.blocks = nn.ModuleList(Block(width, heads, 1e-6) for _ in range(count))

    def forward(self, windows: Tensor) -> list[Tensor]:
        """Map normalised windows (B, 3, S, S) to the tokens after each block.

        Each is (B, 1 + tokens^2, width), the class token first, then row by row.
        """
        positions = interpolated_positions(self.pos_embed, self._tokens)
        patches = self.proj(windows).flatten(2).transpose(1, 2) + positions[:, 1:]
        first = (self.cls_token + positions[:, :1]).expand(len(windows), -1, -1)
        tokens = torch.cat([first.to(patches.dtype), patches], 1)
        layers = []
        for block in self.blocks:
            tokens = block(tokens)
            layers.append(tokens)
        return layers


class ContextualEncoder(nn.Module):
    """Turn the tokens of a blurred picture into those of the sharp one.

    head_norm, head: tell sharp from blurred; only the training's loss uses them.
    """

    def __init__(self, config: ViTDeblurConfig) -> None:
        super().__init__()
        width, heads = config.width, config.contextual_heads
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(config.contextual_blocks))
        self.norm = nn.LayerNorm(width)
        self.blur_parameter = nn.Parameter(torch.ones(width))
        self.head_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, tokens, width) to the same shape, before blur_parameter is applied."""
        for block in self.blocks:
            tokens = block(tokens)
        context: Tensor = self.norm(tokens)
        return context

    def sharpness_logit(self, context: Tensor) -> Tensor:
        """Map what `forward` returned to the logit that its picture is sharp, (B, 1)."""
        logit: Tensor = self.head(self.head_norm(context[:, 1:].mean(1)))
        return logit


class Decoder(nn.Module):
    """From tokens to features of pixels; each block joins the tokens of an encoder's layer."""

    def __init__(self, config: ViTDeblurConfig) -> None:
        super().__init__()
        self._tokens = config.tokens
        encoder, width, count = config.width, config.decoder_width, config.primary_blocks
        joined = [2 * encoder + (width if i else encoder) for i in range(count)]
        self.joins = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, width)) for wide in joined
        )
        self.layer_norm = nn.LayerNorm(encoder)
        self.context_norm = nn.LayerNorm(encoder)
        self.blocks = nn.ModuleList(Block(width, config.decoder_heads) for _ in range(count))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, TOKEN_PX**2 * FEATURES)

    def forward(self, layers: list[Tensor], sharp_context: Tensor) -> Tensor:
        """Map the tokens of every layer, and the last one's in context, to features of pixels.

        All are (B, 1 + tokens^2, width); returns (B, FEATURES, S, S), S = config.covered_px.
        """
        own = [layer[:, 1:] for layer in layers]
        own[-1] = self.layer_norm(own[-1])
        x = self.context_norm(sharp_context[:, 1:])
        for join, block, layer in zip(self.joins, self.blocks, reversed(own), strict=True):
            # The published network joins a layer's tokens twice.
            x = block(join(torch.cat([layer, layer, x], -1)))
        cells = self.predict(self.norm(x))
        side = self._tokens
        cells = cells.view(-1, side, side, TOKEN_PX, TOKEN_PX, FEATURES)
        area = (-1, FEATURES, side * TOKEN_PX, side * TOKEN_PX)
        pixels: Tensor = cells.permute(0, 5, 1, 3, 2, 4).reshape(area)
        return pixels


class Compared(NamedTuple):
    """What training compares.

    restored: (B, 3, S, S) BGR, not clipped. predicted, true: tokens in context, (B, 1 + tokens^2,
    width), those that the network makes of the blurred windows' and those of the sharp windows.
    blurred_logit, sharp_logit: that the windows are sharp, (B, 1).
    """

    restored: Tensor
    predicted: Tensor
    true: Tensor
    blurred_logit: Tensor
    sharp_logit: Tensor


class ViTDeblur(nn.Module):
    """Features of windows from a transformer, added to those of a convolution of the picture."""

    def __init__(self, config: ViTDeblurConfig | None = None) -> None:
        super().__init__()
        self.config = config or ViTDeblurConfig()
        self.primary = PrimaryEncoder(self.config)
        self.contextual = ContextualEncoder(self.config)
        self.decoder = Decoder(self.config)
        self.skip = nn.Conv2d(6, FEATURES, SKIP_KERNEL)
        self.output = nn.Conv2d(FEATURES, 3, OUTPUT_KERNEL)
        _initialise(self)

    def forward(self, blurred: Tensor, sharp: Tensor) -> Compared:
        """Restore blurred windows, and return all that training compares with the sharp ones.

        blurred, sharp: (B, 3, S, S) BGR, S = config.window_px.
        """
        layers, context = self._encoded(blurred)
        _, true = self._encoded(sharp)
        predicted = context * self.contextual.blur_parameter
        features = self.decoder(layers, predicted) + self.skip_features(blurred)
        logits = (self.contextual.sharpness_logit(tokens) for tokens in (context, true))
        return Compared(self.assembled(features), predicted, true, *logits)

    def _encoded(self, windows: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the tokens after each block of the primary encoder, and those in context."""
        mean, deviation = (windows.new_tensor(x).view(3, 1, 1) for x in (_MEAN, _DEVIATION))
        layers = self.primary((windows - mean) / deviation)
        return layers, self.contextual(layers[-1])

    def window_features(self, windows: Tensor) -> Tensor:
        """Map windows (B, 3, S, S), S = config.window_px, to (B, FEATURES, T, T).

        T is config.covered_px; the first feature belongs to pixel (MARGIN_PX, MARGIN_PX).
        """
        layers, context = self._encoded(windows)
        features: Tensor = self.decoder(layers, context * self.contextual.blur_parameter)
        return features

    def skip_features(self, picture: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, FEATURES, H - 2 MARGIN_PX, W - 2 MARGIN_PX)."""
        features: Tensor = self.skip(torch.cat([picture, picture], 1))
        return features

    def assembled(self, features: Tensor, rows_padded: bool = False) -> Tensor:
        """Map the sum of both features, of a whole picture, to the picture, (B, 3, H, W).

        rows_padded: whether features are reflected above and below already, as bands of them are.
        """
        pad_y = 0 if rows_padded else OUTPUT_PAD_PX
        padded = F.pad(features, (OUTPUT_PAD_PX, OUTPUT_PAD_PX, pad_y, pad_y), mode="reflect")
        sharp: Tensor = self.output(padded)
        return sharp


def fixed_positions(grid: int, width: int) -> Tensor:
    """Return the positions that training begins with, (1, 1 + grid^2, width).

    They are the fixed sines and cosines of a masked autoencoder with 14 x 14 tokens, the first half
    of the columns, the second of the rows, interpolated; the class token's are 0.
    """
    rates = 10_000.0 ** -(torch.arange(width // 4) / (width / 4))
    angles = torch.arange(float(_MAE_GRID))[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    side = (_MAE_GRID, _MAE_GRID, width // 2)
    both = torch.cat([waves[None].expand(side), waves[:, None].expand(side)], 2)
    positions = torch.cat([both.new_zeros(1, width), both.reshape(-1, width)])[None]
    return interpolated_positions(positions, grid)


def interpolated_positions(positions: Tensor, tokens: int) -> Tensor:
    """Interpolate positions (1, 1 + grid^2, width) to (1, 1 + tokens^2, width).

    The class token's are kept. The step between two samples is grid / (tokens + 0.1), as in the
    published system, and not grid / tokens.
    """
    count, width = positions.shape[1:]
    grid = round((count - 1) ** 0.5)
    if grid == tokens:
        return positions
    planes = positions[:, 1:].view(1, grid, grid, width).permute(0, 3, 1, 2)
    scale = (tokens + _GRID_SURPLUS) / grid
    planes = F.interpolate(planes, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
    return torch.cat([positions[:, :1], planes.flatten(2).transpose(1, 2)], 1)


def _initialise(network: ViTDeblur) -> None:
    """Draw random weights as a masked autoencoder's are; convolutions keep PyTorch's own."""
    nn.init.normal_(network.primary.cls_token, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
