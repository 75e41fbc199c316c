"""Blur-prior attention: the blur map biases the weights of a position's neighbours.

Source: Yang et al., "LDP: Language-driven Dual-Pixel Image Defocus Deblurring Network", CVPR 2024,
Eq. 9 and 10: Attention = softmax(Q K^T / beta + O) V with O made from the map's logits by a
convolutional feed-forward and reshaped to q x q kernels. Eq. 10 pads O with zeros to all positions;
here O is minus infinity outside the q x q neighbourhood, so that nothing else has a weight.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldp.models.nafnet import LayerNorm2d, scaled_sum

LOGIT_LIMIT = 6.0
"""Bound of the map's logit on both sides: those of 0 and 1 are infinite."""

BLOCK = 4
"""Side of the blocks of positions. One matrix product gives the scores of a block with the union of
its neighbourhoods; what is outside a position's own neighbourhood is masked. That computes
(BLOCK + kernel - 1)^2 / kernel^2 times too much, and is still several times faster on CPUs than one
pass over the picture for each neighbour, which is bound by memory; 2 and 8 are slower than 4."""


def map_logit(amount: Tensor) -> Tensor:
    """Return sigma^-1 of a blur map in [0, 1], clamped to +-LOGIT_LIMIT."""
    return torch.logit(amount, eps=1e-4).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


class BlurPriorAttention(nn.Module):
    """Attention over a kernel x kernel neighbourhood, with weights biased by the map.

    Positions outside the picture have weight 0. Memory is linear in the pixels.

    with_prior: False for self-attention in the same neighbourhood, without the map.
    """

    def __init__(
        self, channels: int, kernel: int = 5, hidden: int = 16, with_prior: bool = True
    ) -> None:
        super().__init__()
        if kernel % 2 != 1:
            raise ValueError(f"kernel {kernel}: expected an odd number, for a centre")
        self.kernel = kernel
        self.norm = LayerNorm2d(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.temperature = nn.Parameter(torch.full((1,), channels**-0.5))
        self.ffn: nn.Sequential | None = None
        if with_prior:
            self.ffn = nn.Sequential(
                nn.Conv2d(1, hidden, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(hidden, kernel * kernel, 3, padding=1),
            )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)
        # The block starts as the identity and learns how much attention to add.
        self.scale = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Map x (B, C, H, W) and the map's logits (B, 1, H, W) to (B, C, H, W)."""
        query, key, value = self.qkv(self.norm(x)).permute(0, 2, 3, 1).chunk(3, -1)
        query = query * self.temperature.to(query.dtype)
        if self.ffn is None:
            bias = query.new_zeros((*query.shape[:3], self.kernel**2))
        else:
            bias = self.ffn(logits).permute(0, 2, 3, 1).to(query.dtype)
        mixed = neighbourhood_attention(query, key, value, bias).permute(0, 3, 1, 2)
        projected: Tensor = self.project_out(mixed)
        return scaled_sum(x, projected, self.scale)


def neighbourhood_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(Q K^T + bias) V over each position's neighbourhood, (B, H, W, C).

    query, key, value: (B, H, W, C).
    bias: (B, H, W, q * q), one value for each neighbour, row by row from the top left, q odd.

    Positions outside the picture have weight 0.
    """
    batch, height, width, channels = query.shape
    kernel = math.isqrt(bias.shape[-1])
    reach = kernel // 2
    # Both sides are padded to whole blocks, and the result is cropped again.
    grown_y, grown_x = -height % BLOCK, -width % BLOCK
    surplus = (0, 0, 0, grown_x, 0, grown_y)
    query, bias = F.pad(query, surplus), F.pad(bias, surplus)
    around = (0, 0, reach, reach + grown_x, reach, reach + grown_y)
    keys, values = (_block_surroundings(F.pad(x, around), reach) for x in (key, value))
    rows, columns = query.shape[1] // BLOCK, query.shape[2] // BLOCK
    inner = (batch, rows, BLOCK, columns, BLOCK)
    queries = query.reshape(*inner, channels).transpose(2, 3).reshape(-1, BLOCK**2, channels)
    spread = _block_bias(bias.reshape(*inner, kernel, kernel))
    _leave_out_outside(spread, height, width)
    scores = torch.baddbmm(spread.view(-1, BLOCK**2, keys.shape[1]), queries, keys.mT)
    mixed = torch.bmm(torch.softmax(scores, -1).to(values.dtype), values)
    mixed = mixed.reshape(batch, rows, columns, BLOCK, BLOCK, channels).transpose(2, 3)
    return mixed.reshape(batch, rows * BLOCK, columns * BLOCK, channels)[:, :height, :width]


def _leave_out_outside(spread: Tensor, height: int, width: int) -> None:
    """Set the bias of neighbours outside the picture to -inf.

    spread: see _block_bias. Only the blocks at the border have such neighbours. What fills up the
    last blocks keeps its own: a position without any would have NaN for its weights.
    """
    side = spread.shape[-1]
    reach = (side - BLOCK) // 2
    for length, blocks, positions, around in ((height, 1, 2, -2), (width, 2, 3, -1)):
        for block in {0, *range(max(0, (length - reach) // BLOCK - 1), spread.shape[blocks])}:
            start = block * BLOCK
            before, within = max(0, reach - start), min(side, length - start + reach)
            own = spread.select(blocks, block).narrow(positions, 0, min(BLOCK, length - start))
            own.narrow(around, 0, before).fill_(float("-inf"))
            own.narrow(around, within, side - within).fill_(float("-inf"))


def _block_surroundings(padded: Tensor, reach: int) -> Tensor:
    """Map (B, H + 2 reach, W + 2 reach, C) to (B * blocks, (BLOCK + 2 reach)^2, C)."""
    side = BLOCK + 2 * reach
    windows = padded.unfold(1, side, BLOCK).unfold(2, side, BLOCK)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, side * side, padded.shape[-1])


def _block_bias(bias: Tensor) -> Tensor:
    """Map (B, rows, BLOCK, columns, BLOCK, q, q) to (B, rows, columns, BLOCK, BLOCK, side, side).

    side is BLOCK + q - 1. It is -inf outside a position's own neighbourhood.
    """
    batch, rows, _, columns, _, kernel, _ = bias.shape
    side = BLOCK + kernel - 1
    spread = bias.new_full((batch, rows, columns, BLOCK, BLOCK, side, side), float("-inf"))
    # The neighbourhood of position (y, x) of a block begins at (y, x) of its surroundings.
    if torch.compiler.is_compiling():  # it would add up windows that overlap
        for y in range(BLOCK):
            for x in range(BLOCK):
                spread[..., y, x, y : y + kernel, x : x + kernel] = bias[:, :, y, :, x]
        return spread
    windows = spread.unfold(-2, kernel, 1).unfold(-2, kernel, 1)
    own = windows.diagonal(0, 3, 5).diagonal(0, 3, 4)
    own.copy_(bias.permute(0, 1, 3, 5, 6, 2, 4))
    return spread
