"""Trains the radius network of `--blur learned` on rendered patches.

    python -m training.radius PHOTOS --out radius.safetensors --minutes 40

Every patch is one or two pieces of photographs, each with a blur of its own, the nearer one hiding
the other, seen through a kernel of training.simulator.optics; the radius of every pixel is known.
It goes on from --out where that exists. One CPU core is enough.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ldp.blur.radius_net import SMALLEST_RADIUS_PX, STRIDE_PX, RadiusNet
from ldp.srgb import decode_srgb
from ldp.types import FloatArray
from training.simulator.layouts import smooth_field
from training.simulator.optics import KernelShape, view_kernels
from training.simulator.scenes import Photo, read_photos, sample_kernel_shape

PATCH_PX = 96
LARGEST_RADIUS_PX = 36.0
IN_FOCUS_SHARE = 0.12
TWO_LAYERS_SHARE = 0.45
RAMPS = (0.2, 1.9)
"""Of the kernels: the slope that parts the two views' light."""
_MARGIN_PX = 40
_CANVAS_PX = PATCH_PX + 2 * _MARGIN_PX
_SKIPPED = 2
"""Outputs at a patch's border that are not judged: half of what they look at lies outside."""


@dataclass(frozen=True)
class Patches:
    """lightness: (B, 2, S, S) sRGB-encoded, noise included. radius_px: (B, 1, S/4, S/4), signed."""

    lightness: Tensor
    radius_px: Tensor


class PatchMaker:
    """Draws patches from photographs; the photographs are kept as linear lightness at several
    sizes, so that everything in them is sharp."""

    def __init__(self, photos: Sequence[Photo], seed: int, kernels: int = 3000) -> None:
        self._rng = np.random.default_rng(seed)
        self._textures = [t for photo in photos for t in _textures(photo)]
        self._kernels = [_drawn_kernels(self._rng) for _ in range(kernels)]

    def draw(self, count: int) -> Patches:
        """A batch."""
        drawn = [self._one() for _ in range(count)]
        lightness = torch.from_numpy(np.stack([views for views, _ in drawn]))
        radius = torch.from_numpy(np.stack([radius for _, radius in drawn]))[:, None]
        return Patches(lightness, radius)

    def _one(self) -> tuple[FloatArray, FloatArray]:
        rng = self._rng
        layers = [self._kernels[int(rng.integers(len(self._kernels)))]]
        if rng.random() < TWO_LAYERS_SHARE:
            # The same lens at another depth: the nearer layer has the larger signed radius.
            layers.append(_another_depth(rng, layers[0]))
            layers.sort(key=lambda layer: layer.radius_px)
        views = np.zeros((2, PATCH_PX, PATCH_PX), np.float32)
        radius = np.full((PATCH_PX // STRIDE_PX,) * 2, layers[0].radius_px, np.float32)
        for index, layer in enumerate(layers):
            light = self._texture()
            alpha = _mask(rng) if index else np.ones_like(light)
            coverage = [_seen(alpha, kernel) for kernel in layer.kernels]
            for view, kernel, hidden in zip(views, layer.kernels, coverage, strict=True):
                view *= 1 - hidden
                view += _seen(light * alpha, kernel)
            inner = alpha[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
            share = inner.reshape(len(radius), STRIDE_PX, len(radius), STRIDE_PX).mean((1, 3))
            radius[share > 0.5] = layer.radius_px
        return self._photographed(views), radius

    def _texture(self) -> FloatArray:
        rng = self._rng
        texture = self._textures[int(rng.integers(len(self._textures)))]
        y, x = (int(rng.integers(side - _CANVAS_PX + 1)) for side in texture.shape)
        piece = texture[y : y + _CANVAS_PX, x : x + _CANVAS_PX].astype(np.float32)
        if rng.random() < 0.5:
            piece = piece[:, ::-1]
        return np.ascontiguousarray(piece * np.float32(rng.uniform(0.3, 1.2)))

    def _photographed(self, views: FloatArray) -> FloatArray:
        """Noise, a gain of each view, and the sRGB curve."""
        rng = self._rng
        gain = np.float32(rng.normal(0, 0.02))
        views = views * np.array([1 + gain, 1 - gain], np.float32)[:, None, None]
        encoded = np.clip(views, 1e-6, 1) ** np.float32(1 / rng.uniform(1.9, 2.6))
        noise = rng.standard_normal(views.shape, np.float32)
        if rng.random() < 0.4:
            noise = np.stack([cv2.GaussianBlur(n, (0, 0), 0.8) for n in noise]) * np.float32(2.5)
        deviation = 10 ** rng.uniform(-3.6, -1.6)
        return np.asarray(encoded + noise * np.float32(deviation), np.float32)


@dataclass(frozen=True)
class _Layer:
    radius_px: float
    kernels: tuple[FloatArray, FloatArray]
    lens: KernelShape


def _drawn_kernels(rng: np.random.Generator) -> _Layer:
    # Small ratios of disparity to radius as often as large ones.
    low, high = np.log(RAMPS)
    lens = replace(sample_kernel_shape(rng), ramp=float(np.exp(rng.uniform(low, high))))
    radius = _drawn_radius(rng)
    return _Layer(radius, view_kernels(radius, lens), lens)


def _another_depth(rng: np.random.Generator, layer: _Layer) -> _Layer:
    radius = _drawn_radius(rng)
    return _Layer(radius, view_kernels(radius, layer.lens), layer.lens)


def _drawn_radius(rng: np.random.Generator) -> float:
    if rng.random() < IN_FOCUS_SHARE:
        return 0.0
    low, high = np.log(SMALLEST_RADIUS_PX), np.log(LARGEST_RADIUS_PX)
    return float(np.exp(rng.uniform(low, high)) * rng.choice([-1, 1]))


def _textures(photo: Photo) -> list[FloatArray]:
    """The photo's lightness, linear, at up to three sizes, float16."""
    light = decode_srgb(photo[..., :3].astype(np.float32) / np.float32(255))
    grey = light @ np.array([0.3, 0.5, 0.2], np.float32)
    sizes = []
    for factor in (0.8, 0.5, 0.28):
        small = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        if min(small.shape) >= _CANVAS_PX:
            sizes.append(small.astype(np.float16))
    return sizes  # type: ignore[return-value]


def _mask(rng: np.random.Generator) -> FloatArray:
    """Coverage of a nearer layer: a half plane or a blob."""
    if rng.random() < 0.5:
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
        y, x = np.mgrid[-1 : 1 : _CANVAS_PX * 1j, -1 : 1 : _CANVAS_PX * 1j]
        field = (np.cos(angle) * x + np.sin(angle) * y - offset) * _CANVAS_PX / 2
    else:
        field = (smooth_field(rng, _CANVAS_PX, rng.uniform(20, 60)) - rng.uniform(0, 0.8)) * 20
    return np.asarray(np.clip(field + 0.5, 0, 1), np.float32)


def _seen(light: FloatArray, kernel: FloatArray) -> FloatArray:
    """The middle of a canvas through a kernel, (PATCH_PX, PATCH_PX)."""
    flipped = np.ascontiguousarray(kernel[::-1, ::-1])
    blurred = cv2.filter2D(light, cv2.CV_32F, flipped, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX], np.float32)


def loss_of(found: Tensor, radius_px: Tensor) -> Tensor:
    """The Laplace likelihood of log2 of the radius, and the cross entropy of the side."""
    inner = (..., slice(_SKIPPED, -_SKIPPED), slice(_SKIPPED, -_SKIPPED))
    found, radius_px = found[inner], radius_px[inner]
    wanted = radius_px.abs().clamp_min(SMALLEST_RADIUS_PX).log2()
    log_scale = found[:, 1:2].clamp(-4, 3)
    likelihood = (found[:, :1] - wanted).abs() * (-log_scale).exp() + log_scale
    blurred = (radius_px.abs() > 0.5).float()
    side = F.binary_cross_entropy_with_logits(found[:, 2:], (radius_px > 0).float(), weight=blurred)
    return likelihood.mean() + 0.3 * side


def train(
    network: RadiusNet, maker: PatchMaker, out: Path, seconds: float, rate: float, batch: int = 16
) -> None:
    """Trains for a time, the learning rate falling over it, and saves a moving average."""
    from ldp.blur.learned import save_radius_network

    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    average = AveragedModel(
        network,
        multi_avg_fn=get_ema_multi_avg_fn(0.995),  # type: ignore[no-untyped-call]
    )
    started, step, recent = time.monotonic(), 0, []
    while (elapsed := time.monotonic() - started) < seconds:
        share = elapsed / seconds
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.5 * (1 + np.cos(np.pi * share)) + 0.01)
        patches = maker.draw(batch)
        found = network(patches.lightness)
        loss = loss_of(found, patches.radius_px)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        with torch.no_grad():
            wanted = patches.radius_px.abs().clamp_min(SMALLEST_RADIUS_PX).log2()
            recent.append((loss.item(), (found[:, :1] - wanted).abs().median().item()))
        step += 1
        if step % 100 == 0:
            means = np.mean(recent, 0)
            print(
                f"{step:6d} {elapsed:6.0f} s  loss {means[0]:.3f}  median |log2| {means[1]:.3f}",
                flush=True,
            )
            recent = []
            save_radius_network(cast(RadiusNet, average.module), out, {"steps": str(step)})
    save_radius_network(cast(RadiusNet, average.module), out, {"steps": str(step)})


def main() -> None:
    """Command line."""
    from ldp.blur.learned import load_radius_network

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of sharp photographs")
    parser.add_argument(
        "--out", type=Path, required=True, help="weights to write, or to go on from"
    )
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    try:
        photos = read_photos(args.photos)
    except ValueError as error:
        sys.exit(f"training.radius: {error}")
    network = load_radius_network(args.out) if args.out.exists() else RadiusNet()
    train(network, PatchMaker(photos, args.seed), args.out, args.minutes * 60, args.rate)


if __name__ == "__main__":
    main()
