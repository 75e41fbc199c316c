"""The released network once more: float64, numpy, written to be read and not to be fast.

A dictionary of arrays under the checkpoint's names goes in, so it states the format as well.
"""

import numpy as np
import torch
from torch import nn

WIDTH, DEPTHS, MIDDLE = 32, (2, 2, 2, 2), 2


def shapes(width=WIDTH, depths=DEPTHS, middle=MIDDLE):
    """Every weight of the checkpoint and its shape."""
    found = {
        "patch_embed.proj.weight": (width, 6, 3, 3),
        "ca.temperature": (1, 1, 1),
        "ca.qkv.weight": (3 * width, width, 1, 1),
        "ca.qkv_dwconv.weight": (3 * width, 1, 3, 3),
        "ca.project_out.weight": (width, width, 1, 1),
        "naf.intro.weight": (width, width, 3, 3),
        "naf.intro.bias": (width,),
        "naf.ending.weight": (width, width, 3, 3),
        "naf.ending.bias": (width,),
        "skip_conv.weight": (width, width, 1, 1),
        "output.weight": (3, width, 3, 3),
    }

    def block(name, channels):
        for conv, shape in {
            "conv1": (2 * channels, channels, 1, 1),
            "conv2": (2 * channels, 1, 3, 3),
            "conv3": (channels, channels, 1, 1),
            "sca.1": (channels, channels, 1, 1),
            "conv4": (2 * channels, channels, 1, 1),
            "conv5": (channels, channels, 1, 1),
        }.items():
            found[f"{name}.{conv}.weight"] = shape
            found[f"{name}.{conv}.bias"] = shape[:1]
        for norm in ("norm1", "norm2"):
            found[f"{name}.{norm}.weight"] = found[f"{name}.{norm}.bias"] = (channels,)
        found[f"{name}.beta"] = found[f"{name}.gamma"] = (1, channels, 1, 1)

    for level, depth in enumerate(depths):
        channels = width << level
        for index in range(depth):
            block(f"naf.encoders.{level}.{index}", channels)
        found[f"naf.downs.{level}.weight"] = (2 * channels, channels, 2, 2)
        found[f"naf.downs.{level}.bias"] = (2 * channels,)
    for index in range(middle):
        block(f"naf.middle_blks.{index}", width << len(depths))
    for place, depth in enumerate(reversed(depths)):
        channels = width << (len(depths) - 1 - place)
        found[f"naf.ups.{place}.0.weight"] = (4 * channels, 2 * channels, 1, 1)
        for index in range(depth):
            block(f"naf.decoders.{place}.{index}", channels)
    return found


def random_weights(seed=0, **shape):
    """Weights at which every part of the network matters to what comes out."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, size in shapes(**shape).items():
        fan_in = np.prod(size[1:]) if len(size) == 4 and size[0] > 1 else 25
        weights[name] = rng.normal(0, fan_in**-0.5, size)
        if name.endswith(("norm1.weight", "norm2.weight")):
            weights[name] += 1
    weights["ca.temperature"] = np.full((1, 1, 1), 3.0)
    weights["output.weight"] /= 4  # which makes about a picture's range of it
    # What a checkpoint holds: the reference is to differ in its arithmetic alone.
    return {name: value.astype(np.float32).astype(np.float64) for name, value in weights.items()}


def restore(weights, views, amount, depths=DEPTHS, middle=MIDDLE):
    """views: (6, H, W). amount: (h, w), the whole photo's. Returns (3, H, W)."""
    attended = _attention(weights, _conv(weights, "patch_embed.proj", views), amount)
    height, width = views.shape[1:]
    multiple = 2 ** len(depths)
    padded = np.pad(attended, ((0, 0), (0, -height % multiple), (0, -width % multiple)))
    x = _conv(weights, "naf.intro", padded)
    skips = []
    for level, depth in enumerate(depths):
        for index in range(depth):
            x = _block(weights, f"naf.encoders.{level}.{index}", x)
        skips.append(x)
        x = _down(weights, f"naf.downs.{level}", x)
    for index in range(middle):
        x = _block(weights, f"naf.middle_blks.{index}", x)
    for place, depth in enumerate(reversed(depths)):
        x = _shuffle(_conv(weights, f"naf.ups.{place}.0", x)) + skips.pop()
        for index in range(depth):
            x = _block(weights, f"naf.decoders.{place}.{index}", x)
    x = _conv(weights, "naf.ending", x)[:, :height, :width]
    return _conv(weights, "output", x + _conv(weights, "skip_conv", attended))


def _attention(weights, x, amount):
    channels, height, width = x.shape
    qkv = _conv(weights, "ca.qkv", x).reshape(3, channels, height * width)
    mixed = np.zeros((channels, height * width))
    pooled = pool(amount, channels)
    for i in range(channels):
        query = qkv[0, i] / np.linalg.norm(qkv[0, i])
        logits = np.zeros(channels)
        for j in range(channels):
            key = qkv[1, j] / np.linalg.norm(qkv[1, j])
            logits[j] = query @ key * weights["ca.temperature"].item() + pooled[i, j]
        shares = np.exp(logits) / np.exp(logits).sum()
        for j in range(channels):
            mixed[i] += shares[j] * qkv[2, j]
    return _conv(weights, "ca.project_out", mixed.reshape(x.shape))


def pool(amount, side):
    """Means over side x side areas that cover the map, overlapping where they must."""
    height, width = amount.shape
    pooled = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            rows = slice(int(np.floor(i * height / side)), int(np.ceil((i + 1) * height / side)))
            columns = slice(int(np.floor(j * width / side)), int(np.ceil((j + 1) * width / side)))
            pooled[i, j] = amount[rows, columns].mean()
    return pooled


def _block(weights, name, x):
    y = _conv(weights, f"{name}.conv1", _norm(weights, f"{name}.norm1", x))
    y = _gate(_conv(weights, f"{name}.conv2", y))
    y = y * _conv(weights, f"{name}.sca.1", y.mean((1, 2), keepdims=True))
    x = x + _conv(weights, f"{name}.conv3", y) * weights[f"{name}.beta"][0]
    y = _gate(_conv(weights, f"{name}.conv4", _norm(weights, f"{name}.norm2", x)))
    return x + _conv(weights, f"{name}.conv5", y) * weights[f"{name}.gamma"][0]


def _gate(x):
    half = len(x) // 2
    return x[:half] * x[half:]


def _norm(weights, name, x):
    normed = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
    return (
        normed * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]
    )


def _conv(weights, name, x):
    """1x1 or 3x3 with zeros around; a channel of its own each where the weights have one input."""
    kernel = weights[f"{name}.weight"]
    reach = kernel.shape[2] // 2
    height, width = x.shape[1:]
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((len(kernel), height, width))
    for dy in range(kernel.shape[2]):
        for dx in range(kernel.shape[3]):
            part, tap = padded[:, dy : dy + height, dx : dx + width], kernel[:, :, dy, dx]
            if tap.shape[1] == len(x):
                out += np.tensordot(tap, part, 1)
            else:
                out += tap[:, 0, None, None] * part
    return out + weights.get(f"{name}.bias", np.zeros(len(kernel)))[:, None, None]


def _down(weights, name, x):
    kernel = weights[f"{name}.weight"]
    taps = [(dy, dx) for dy in range(2) for dx in range(2)]
    out = sum(np.tensordot(kernel[:, :, dy, dx], x[:, dy::2, dx::2], 1) for dy, dx in taps)
    return out + weights[f"{name}.bias"][:, None, None]


def _shuffle(x):
    """Four channels become the 2 x 2 pixels of one."""
    out = np.zeros((len(x) // 4, 2 * x.shape[1], 2 * x.shape[2]))
    for place in range(4):
        out[:, place // 2 :: 2, place % 2 :: 2] = x[place::4]
    return out


class Developed(nn.Module):
    """A network of random weights whose output is brought to a picture's mean and contrast."""

    def __init__(self, network, example):
        super().__init__()
        self.network, self.config = network, network.config
        with torch.inference_mode():
            output = network(*example)
        self.mean, self.std = float(output.mean()), float(output.std())

    def forward(self, views, amount):
        return (self.network(views, amount) - self.mean) * (0.15 / self.std) + 0.5
