"""Renders an all-in-focus scene as a dual-pixel camera sees it, in linear light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.optics import Array, KernelShape, view_disparity_px, view_kernels


@dataclass(frozen=True)
class Surface:
    """One thing in the scene.

    colour: (H, W, 3) float32 linear light, defined behind the mask's edge too.
    alpha: (H, W) float32 coverage in [0, 1].
    coc_px: (H, W) float32 signed radius of the circle of confusion, near positive, smooth.
    """

    colour: Array
    alpha: Array
    coc_px: Array


@dataclass(frozen=True)
class RenderedPair:
    """left, right, sharp: (H, W, 3) float32 linear light, each view at the composite's brightness
    (the composite is their mean); sharp is the scene as the lens shows it in focus.
    disparity_px, coc_px: (H, W) float32, near positive."""

    left: Array
    right: Array
    sharp: Array
    disparity_px: Array
    coc_px: Array


def blur_surface(surface: Surface, shape: KernelShape, step_px: float) -> tuple[Array, Array]:
    """Both views of one surface, (H, W, 4): its light, and its coverage as the last channel.

    The kernel of every pixel is interpolated between those of the two nearest of a row of radii
    that lie at most step_px apart, which needs a circle of confusion that changes slowly.
    """
    light = np.dstack([surface.colour * surface.alpha[..., None], surface.alpha])
    lowest, highest = float(surface.coc_px.min()), float(surface.coc_px.max())
    count = max(1, int(np.ceil((highest - lowest) / step_px)) + 1)
    radii = np.linspace(lowest, highest, count)
    if count == 1:
        kernels = view_kernels((lowest + highest) / 2, shape)
        left, right = (_convolve(light, kernel) for kernel in kernels)
        return left, right
    spacing = radii[1] - radii[0]
    left = np.zeros_like(light)
    right = np.zeros_like(light)
    for radius in radii:
        share = np.maximum(1 - np.abs(surface.coc_px - radius) / spacing, 0)[..., None]
        if not share.any():
            continue
        kernels = view_kernels(float(radius), shape)
        left += share * _convolve(light, kernels[0])
        right += share * _convolve(light, kernels[1])
    return left, right


def render(surfaces: Sequence[Surface], shape: KernelShape, step_px: float = 0.7) -> RenderedPair:
    """The two views of surfaces given from the farthest to the nearest.

    Occlusion-aware: a nearer surface hides a farther one by its blurred coverage (Xin et al., ICCV
    2021). The farthest surface covers the whole picture.
    """
    height, width = surfaces[0].alpha.shape
    left = np.zeros((height, width, 3), np.float32)
    right, sharp = left.copy(), left.copy()
    coc = np.zeros((height, width), np.float32)
    for surface in surfaces:
        blurred_left, blurred_right = blur_surface(surface, shape, step_px)
        left = left * (1 - blurred_left[..., 3:]) + blurred_left[..., :3]
        right = right * (1 - blurred_right[..., 3:]) + blurred_right[..., :3]
        alpha = surface.alpha[..., None]
        sharp = sharp * (1 - alpha) + surface.colour * alpha
        coc = np.where(surface.alpha > 0.5, surface.coc_px, coc)
    # The truth is what the same lens shows in focus: were it sharper than that, a network would
    # learn to sharpen what is in focus too.
    sharp = _convolve(sharp, view_kernels(0.0, shape)[0])
    return RenderedPair(left, right, sharp, _disparity(coc, shape), coc)


def _convolve(image: Array, kernel: Array) -> Array:
    # filter2D correlates; only a kernel turned by 180 degrees makes a point look like the kernel.
    turned = np.ascontiguousarray(kernel[::-1, ::-1])
    return np.asarray(
        cv2.filter2D(image, cv2.CV_32F, turned, borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def _disparity(coc_px: Array, shape: KernelShape) -> Array:
    """Per-pixel disparity; its ratio to the radius is nearly constant, so a short table will do."""
    reach = max(float(np.abs(coc_px).max()), 0.1)
    radii = np.linspace(-reach, reach, 33)
    table = np.array([view_disparity_px(float(radius), shape) for radius in radii])
    return np.asarray(np.interp(coc_px, radii, table), np.float32)
