"""The radius of the blur everywhere in a photo, found from its two views by a small network.

The disparity does not give the radius: their ratio differs by a factor of five between cameras. The
shape of the blur does, because both views show the same detail through mirrored kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch

from ldp.blur.filling import fill, short_fill, with_steps, without_dips
from ldp.blur.matching import lightness
from ldp.blur.radius_net import LARGEST_STRIDE_PX, SMALLEST_RADIUS_PX, STRIDE_PX, RadiusNet
from ldp.types import BlurMap, Plane, ReducibleViews

_SMALLEST_SIDE_PX = 96
_SCALES = 6
_ROUNDS = 4
_BEST_LOG_RADIUS = 3.25
"""log2 of the radius, in pixels of a scale, that is told best."""
_EVEN_OCTAVES = 0.75
"""Radii up to this far from the best one are told as well."""
_LEAST_SHARE = 1e-6
_LOG_SCALES = (-4.0, 3.0)
_FILL_REACH = 0.02
"""As a share of the longer side."""
_FILL_EDGE = 0.03
_FILL_STEP_OCTAVES = 0.2
_LEAST_CERTAINTY = 1.0
_WIDEST_SPOT = 21
_SPOT_OCTAVES = 0.5
_UNSEEN = 1.3
"""Radii up to SMALLEST_RADIUS_PX times this cannot be told from none."""


@dataclass(frozen=True)
class RadiusMap:
    """Planes of (h, w) float32 that cover the whole view, which has more pixels.

    radius_px: in pixels of the full-size view, near of focus positive; 0 where it is too small to
        be seen.
    confidence: in (0, 1), how far the value is measured here rather than filled in.
    """

    radius_px: Plane
    confidence: Plane

    def beside(self, blur_map: BlurMap) -> BlurMap:
        """Return a map that has the radius too, and is as it was otherwise."""
        return replace(blur_map, radius_px=self.radius_px, radius_confidence=self.confidence)


@dataclass(frozen=True)
class RadiusEstimator:
    """Finds the radius of the blur.

    network: on the device.
    pixels: larger views are scaled down to about this many. The network looks there and in pictures
        of half the size, a quarter and so on: it knows radii up to about 30 px.
    """

    network: RadiusNet
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    pixels: int = 8_000_000

    def estimate(self, views: ReducibleViews) -> RadiusMap:
        """Return the radius map of two views, registered to their mean."""
        small = views.reduced(self.pixels)
        left, right = lightness(small.left), lightness(small.right)
        full_px = np.float32(views.size[1] / left.shape[1])
        log_radius, log_scale, side = _merged(list(self._at_scales(left, right)))
        certainty = np.exp(-2 * log_scale)
        guide = _resized(0.5 * (left + right), (side.shape[1], side.shape[0]))[..., None]
        reach = (_FILL_REACH * max(side.shape)) ** 2
        smooth = fill(log_radius[None], certainty, guide, reach, _FILL_EDGE)[0]
        first = short_fill(
            log_radius,
            certainty,
            guide,
            smooth,
            reach=reach,
            edge=_FILL_EDGE,
            least=_LEAST_CERTAINTY,
        )
        # Small spots without a radius are even or overexposed rather than in focus.
        steps = without_dips(first, _WIDEST_SPOT, _SPOT_OCTAVES)
        guide = with_steps(guide, steps, _FILL_EDGE, _FILL_STEP_OCTAVES)
        values = np.stack([log_radius, side])
        log_radius, side = fill(values, certainty, guide, reach, _FILL_EDGE)
        radius = np.exp2(log_radius)
        seen = radius > SMALLEST_RADIUS_PX * _UNSEEN
        signed = np.where(seen, np.copysign(radius, side), 0) * full_px
        confidence = certainty / (certainty + 4)
        return RadiusMap(np.asarray(signed, np.float32), np.asarray(confidence, np.float32))

    def _at_scales(self, left: Plane, right: Plane) -> Iterator[_Found]:
        full_width = left.shape[1]
        grid = (-(-left.shape[0] // STRIDE_PX), -(-left.shape[1] // STRIDE_PX))
        for _ in range(_SCALES):
            planes = self._one_scale(left, right)
            log_radius, log_scale, side = (_regridded(x, left.shape, grid) for x in planes)
            log_radius += np.float32(np.log2(full_width / left.shape[1]))
            yield _Found(log_radius, log_scale, side)
            if min(left.shape) < 2 * _SMALLEST_SIDE_PX:
                return
            size = ((left.shape[1] + 1) // 2, (left.shape[0] + 1) // 2)
            left, right = (_resized(view, size) for view in (left, right))

    def _one_scale(self, left: Plane, right: Plane) -> tuple[Plane, Plane, Plane]:
        down, across = (-side % LARGEST_STRIDE_PX for side in left.shape)
        both = np.stack([np.pad(x, ((0, down), (0, across)), "symmetric") for x in (left, right)])
        with torch.inference_mode():
            out = self.network(torch.from_numpy(both)[None].to(self.device))[0].cpu().numpy()
        return out[0], np.clip(out[1], *_LOG_SCALES), np.tanh(out[2] / 2)


@dataclass(frozen=True)
class _Found:
    """What the network says at one scale, (h, w) each, on a grid common to all scales.

    log_radius: log2, in pixels of the largest picture. log_scale: natural logarithm of the Laplace
    scale of its error. side: -1 far to 1 near.
    """

    log_radius: Plane
    log_scale: Plane
    side: Plane


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _regridded(plane: Plane, size_px: tuple[int, ...], grid: tuple[int, int]) -> Plane:
    """The part of a plane that covers a picture of size_px, interpolated to a grid of (h, w)."""
    y, x = (
        (np.arange(cells, dtype=np.float32) + 0.5) * np.float32(side / STRIDE_PX / cells) - 0.5
        for cells, side in zip(grid, size_px, strict=True)
    )
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    mode = cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(plane, across, down, cv2.INTER_LINEAR, borderMode=mode))


def _merged(found: list[_Found]) -> tuple[Plane, Plane, Plane]:
    """The means over all scales by inverse variance: log radius, log scale, side.

    A scale counts most for radii that are neither lost in its pixels nor wider than what the
    network looks at. Which scales these are follows from the mean itself, in a few rounds.
    """
    certainties = [np.exp(-2 * one.log_scale) for one in found]
    radii = [one.log_radius for one in found]
    mean = _weighted(radii, certainties)
    weights = certainties
    for _ in range(_ROUNDS):
        weights = [
            certainty * _within_reach(mean - level, level == 0, level == len(found) - 1)
            for level, certainty in enumerate(certainties)
        ]
        mean = _weighted(radii, weights)
    log_scale = _weighted([one.log_scale for one in found], weights)
    return mean, log_scale, _weighted([one.side for one in found], weights)


def _within_reach(log_radius: Plane, finest: bool, coarsest: bool) -> Plane:
    """How well a radius, in pixels of a scale, can be told there, above 0.

    All smaller radii are told best at the finest scale, all larger ones at the coarsest.
    """
    off = log_radius - np.float32(_BEST_LOG_RADIUS)
    off = (
        np.clip(off, 0 if finest else None, 0 if coarsest else None) if finest or coarsest else off
    )
    beyond = np.maximum(np.abs(off) - _EVEN_OCTAVES, 0)
    return np.asarray(np.exp(-2 * np.square(beyond)) + _LEAST_SHARE, np.float32)


def _weighted(planes: list[Plane], weights: list[Plane]) -> Plane:
    products = [plane * weight for plane, weight in zip(planes, weights, strict=True)]
    return np.asarray(np.sum(products, 0) / np.sum(weights, 0), np.float32)
