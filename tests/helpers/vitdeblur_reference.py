"""ViTDeblur restated naively from its description, in float64: loops, no PyTorch modules.

The parameters are those of the published checkpoint, by their names in it. One picture, (H, W, 3)
BGR in [0, 1], becomes one of its padded size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch

Array = np.ndarray
Weights = dict[str, Array]


@dataclass(frozen=True)
class Sizes:
    """Heads of the three parts, which no shape tells, and where the windows are."""

    primary_heads: int
    contextual_heads: int
    decoder_heads: int
    window: int = 320
    stride: int = 94
    smooth: bool = False


def layer_norm(x: Array, weights: Weights, name: str, eps: float = 1e-5) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[
        f"{name}.bias"
    ]


def linear(x: Array, weights: Weights, name: str) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    from scipy.special import erf

    return x / 2 * (1 + erf(x / math.sqrt(2)))


def attention(x: Array, weights: Weights, name: str, heads: int) -> Array:
    width = x.shape[1]
    mixed = np.zeros_like(x)
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        query, key, value = (
            (x @ weights[f"{name}.qkv.weight"][first : first + width][own].T)
            + weights[f"{name}.qkv.bias"][first : first + width][own]
            for first in (0, width, 2 * width)
        )
        scores = query @ key.T / math.sqrt(width / heads)
        scores = np.exp(scores - scores.max(1, keepdims=True))
        mixed[:, own] = scores / scores.sum(1, keepdims=True) @ value
    return linear(mixed, weights, f"{name}.proj")


def block(x: Array, weights: Weights, name: str, heads: int, eps: float = 1e-5) -> Array:
    x = x + attention(layer_norm(x, weights, f"{name}.norm1", eps), weights, f"{name}.attn", heads)
    hidden = gelu(linear(layer_norm(x, weights, f"{name}.norm2", eps), weights, f"{name}.mlp.fc1"))
    return x + linear(hidden, weights, f"{name}.mlp.fc2")


def cubic(distance: float) -> float:
    """The kernel of bicubic interpolation with a = -0.75."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def positions(stored: Array, side: int) -> Array:
    """Stored (1, 1 + grid^2, width) at side x side tokens, sampled every grid / (side + 0.1)."""
    grid = math.isqrt(stored.shape[1] - 1)
    if grid == side:
        return stored[0]
    step = grid / (side + 0.1)
    along = np.zeros((side, grid))
    for i in range(side):
        at = (i + 0.5) * step - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            along[i, min(max(j, 0), grid - 1)] += cubic(at - j)
    plane = stored[0, 1:].reshape(grid, grid, -1)
    moved = np.einsum("ia,jb,abc->ijc", along, along, plane)
    return np.concatenate([stored[0, :1], moved.reshape(side * side, -1)])


def window_features(window: Array, weights: Weights, sizes: Sizes) -> Array:
    """(S, S, 3) -> (T, T, 24)."""
    encoder, context = "primary_encoder.pretrain_mae", "contextual_encoder"
    normalised = (window - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    side = (sizes.window - 16) // 10 + 1
    kernel = weights[f"{encoder}.patch_embed.proj.weight"]
    tokens = []
    for row in range(side):
        for column in range(side):
            patch = normalised[10 * row : 10 * row + 16, 10 * column : 10 * column + 16]
            value = np.einsum("yxc,dcyx->d", patch, kernel)
            tokens.append(value + weights[f"{encoder}.patch_embed.proj.bias"])
    x = np.stack([weights[f"{encoder}.cls_token"][0, 0], *tokens])
    x = x + positions(weights[f"{encoder}.pos_embed"], side)
    layers = []
    for i in range(4):
        x = block(x, weights, f"{encoder}.blocks.{i}", sizes.primary_heads, 1e-6)
        layers.append(x)
    for i in range(3):
        x = block(x, weights, f"{context}.embed_blocks.{i}", sizes.contextual_heads)
    x = layer_norm(x, weights, f"{context}.embed_norm") * weights[f"{context}.blur_parameter"]
    layers = [layer[1:] for layer in layers]
    layers[3] = layer_norm(layers[3], weights, "decoder.decoder_dnorm1")
    x = layer_norm(x[1:], weights, "decoder.decoder_anorm")
    for i in range(4):
        x = np.concatenate([layers[3 - i], layers[3 - i], x], 1)
        x = linear(
            layer_norm(x, weights, f"decoder.decoder_linears.{i}.0"),
            weights,
            f"decoder.decoder_linears.{i}.1",
        )
        x = block(x, weights, f"decoder.embed_blocks.{i}", sizes.decoder_heads)
    x = linear(layer_norm(x, weights, "decoder.decoder_norm"), weights, "decoder.decoder_pred")
    pixels = np.zeros((10 * side, 10 * side, 24))
    for row in range(side):
        for column in range(side):
            cell = x[row * side + column].reshape(10, 10, 24)
            pixels[10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = cell
    return pixels


def convolved(x: Array, kernel: Array, bias: Array) -> Array:
    """(H, W, in) -> (H - k + 1, W - k + 1, out), no padding, one tap after the other."""
    size = kernel.shape[2]
    height, width = x.shape[0] - size + 1, x.shape[1] - size + 1
    found = np.zeros((height, width, kernel.shape[0])) + bias
    for dy in range(size):
        for dx in range(size):
            found += x[dy : dy + height, dx : dx + width] @ kernel[:, :, dy, dx].T
    return found


def padded(picture: Array, window: int = 320) -> Array:
    """Enlarge sides under a window, then reflect to multiples of 16 at the bottom and right."""
    height, width = picture.shape[:2]
    larger = max(height, window), max(width, window)
    if larger != (height, width):
        picture = cv2.resize(picture, larger[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    below, beside = (-side % 16 for side in larger)
    return cv2.copyMakeBorder(picture, 0, below, 0, beside, cv2.BORDER_REFLECT)


def restored(picture: Array, weights: Weights, sizes: Sizes) -> Array:
    """A picture that is padded already, (H, W, 3) BGR, as the network gives it, in [0, 1]."""
    height, width = picture.shape[:2]
    window = sizes.window
    covered = ((window - 16) // 10 + 1) * 10
    ramp = np.ones(covered)
    if sizes.smooth:
        ramp = np.sin(np.pi * (np.arange(covered) + 0.5) / covered) ** 2
    sums, counts = np.zeros((height, width, 24)), np.zeros((height, width, 1))
    for top in [*range(0, height - window, sizes.stride), height - window]:
        for left in [*range(0, width - window, sizes.stride), width - window]:
            part = picture[top : top + window, left : left + window]
            inner = np.s_[top + 5 : top + 5 + covered, left + 5 : left + 5 + covered]
            weight = (ramp[:, None] * ramp)[..., None]
            sums[inner] += window_features(part, weights, sizes) * weight
            counts[inner] += weight
    features = (sums[5:-5, 5:-5] / counts[5:-5, 5:-5]).astype(np.float64)
    twice = np.concatenate([picture, picture], 2)
    step = "inputecoding_step"
    features = features + convolved(twice, weights[f"{step}.weight"], weights[f"{step}.bias"])
    grown = np.pad(features, ((11, 11), (11, 11), (0, 0)), mode="reflect")
    step = "outputprojr_step"
    return convolved(grown, weights[f"{step}.weight"], weights[f"{step}.bias"]).clip(0, 1)


def random_checkpoint(
    width: int, decoder_width: int, grid: int = 35, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random weights under the published names, 196 of them, all values of ordinary size."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, std: float = 0.05, mean: float = 0.0) -> None:
        found[name] = torch.randn(shape, generator=generator) * std + mean

    def put_norm(name: str, wide: int) -> None:
        put(f"{name}.weight", wide, mean=1.0)
        put(f"{name}.bias", wide)

    def put_linear(name: str, wide_in: int, wide_out: int) -> None:
        put(f"{name}.weight", wide_out, wide_in, std=wide_in**-0.5 / 2)
        put(f"{name}.bias", wide_out)

    def put_block(name: str, wide: int) -> None:
        put_norm(f"{name}.norm1", wide)
        put_linear(f"{name}.attn.qkv", wide, 3 * wide)
        put_linear(f"{name}.attn.proj", wide, wide)
        put_norm(f"{name}.norm2", wide)
        put_linear(f"{name}.mlp.fc1", wide, 4 * wide)
        put_linear(f"{name}.mlp.fc2", 4 * wide, wide)

    encoder = "primary_encoder.pretrain_mae"
    put(f"{encoder}.cls_token", 1, 1, width)
    put(f"{encoder}.pos_embed", 1, 1 + grid * grid, width, std=0.2)
    put(f"{encoder}.mask_token", 1, 1, 512)
    put(f"{encoder}.patch_embed.proj.weight", width, 3, 16, 16)
    put(f"{encoder}.patch_embed.proj.bias", width)
    for i in range(5):
        put_block(f"{encoder}.blocks.{i}", width)
    put_norm(f"{encoder}.norm", width)
    context = "contextual_encoder"
    for i in range(3):
        put_block(f"{context}.embed_blocks.{i}", width)
    put_norm(f"{context}.embed_norm", width)
    put(f"{context}.blur_parameter", width, mean=1.0)
    put_linear(f"{context}.projector.0", width, 256)
    put_norm(f"{context}.projector.1", 256)
    put(f"{context}.projector.1.running_mean", 256)
    put(f"{context}.projector.1.running_var", 256, mean=1.0)
    found[f"{context}.projector.1.num_batches_tracked"] = torch.tensor(1234)
    put(f"{context}.projector.3.weight", 128, 256)
    put_norm(f"{context}.fc_norm", width)
    put_linear(f"{context}.head", width, 1)
    for i in range(4):
        wide = 2 * width + (decoder_width if i else width)
        put_norm(f"decoder.decoder_linears.{i}.0", wide)
        put_linear(f"decoder.decoder_linears.{i}.1", wide, decoder_width)
        put_block(f"decoder.embed_blocks.{i}", decoder_width)
    for name in ("decoder_dnorm1", "decoder_dnorm2", "decoder_anorm"):
        put_norm(f"decoder.{name}", width)
    put_norm("decoder.decoder_norm", decoder_width)
    put_linear("decoder.decoder_pred", decoder_width, 2400)
    put("inputecoding_step.weight", 24, 6, 11, 11, std=0.02)
    put("inputecoding_step.bias", 24)
    put("outputprojr_step.weight", 3, 24, 13, 13, std=0.01)
    put("outputprojr_step.bias", 3, mean=0.5)
    assert len(found) == 196
    return found
