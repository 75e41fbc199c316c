"""Render an all-in-focus scene as a dual-pixel camera sees it, in linear light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray
from training.simulator.optics import (
    KernelShape,
    LensField,
    left_share,
    view_disparity_px,
    view_kernels,
)

GRID_STEP = 0.35
"""Kernels are computed at points of the frame this far apart (its half width is 1), and blended
linearly between them."""
_TABLE_PX = 8.0
"""For larger radii the ratio of disparity to radius is that at this one."""


@dataclass(frozen=True)
class Surface:
    """One object of the scene.

    colour: (H, W, 3) float32 linear light, defined behind the mask's edge too.
    alpha: (H, W) float32 coverage in [0, 1].
    coc_px: (H, W) float32 signed radius of the circle of confusion, near positive, smooth.
    """

    colour: FloatArray
    alpha: FloatArray
    coc_px: FloatArray


@dataclass(frozen=True)
class FrameArea:
    """Where in the camera's frame a picture lies: its middle and its width, from the optical axis
    in units of half the frame's width. By default it is the whole frame."""

    x: float = 0.0
    y: float = 0.0
    width: float = 2.0


@dataclass(frozen=True)
class RenderedPair:
    """left, right, sharp: (H, W, 3) float32 linear light, each view at the composite's brightness
    (the composite is their mean); sharp is the scene as the lens shows it in focus.
    disparity_px, coc_px: (H, W) float32, near positive."""

    left: FloatArray
    right: FloatArray
    sharp: FloatArray
    disparity_px: FloatArray
    coc_px: FloatArray


@dataclass(frozen=True)
class Patch:
    """A part of the picture with the kernel at its middle.

    weight: (h, w, 1) float32, how much the kernel counts at each pixel; over all patches it adds up
    to 1. None stands for 1.
    """

    rows: slice
    columns: slice
    weight: FloatArray | None
    shape: KernelShape


def patches(height: int, width: int, lens: LensField, area: FrameArea) -> list[Patch]:
    """Divide a picture into overlapping patches, at most GRID_STEP from middle to middle."""
    rows = _hats(height, area.width * height / width)
    columns = _hats(width, area.width)
    scale = area.width / width
    cut = []
    for down, row_weight, row_span in rows:
        for across, column_weight, column_span in columns:
            shape = lens.shape_at(
                area.x + scale * (across + 0.5 - width / 2),
                area.y + scale * (down + 0.5 - height / 2),
            )
            weight = row_weight[:, None, None] * column_weight[None, :, None]
            cut.append(Patch(row_span, column_span, weight, shape))
    return cut


def blur_surface(
    surface: Surface, parts: Sequence[Patch], step_px: float
) -> tuple[FloatArray, FloatArray]:
    """Return both views of one surface, (H, W, 4): its light, and its coverage as the last channel.

    The kernel of every pixel is interpolated between those of the two nearest of a row of radii
    that lie at most step_px apart, which needs a circle of confusion that changes slowly.
    """
    light = np.dstack([surface.colour * surface.alpha[..., None], surface.alpha])
    lowest, highest = float(surface.coc_px.min()), float(surface.coc_px.max())
    count = max(1, int(np.ceil((highest - lowest) / step_px)) + 1)
    radii = np.linspace(lowest, highest, count) if count > 1 else [(lowest + highest) / 2]
    spacing = radii[1] - radii[0] if count > 1 else np.inf
    left = np.zeros_like(light)
    right = np.zeros_like(light)
    for part in parts:
        coc_px = surface.coc_px[part.rows, part.columns]
        for radius in radii:
            share = np.maximum(1 - np.abs(coc_px - radius) / spacing, 0)
            rows, columns = (_nonzero_span(share.max(axis)) for axis in (1, 0))
            if rows is None or columns is None:
                continue
            share = share[rows, columns, None]
            if part.weight is not None:
                share = share * part.weight[rows, columns]
            place = (_within(part.rows, rows), _within(part.columns, columns))
            kernels = view_kernels(float(radius), part.shape)
            left[place] += share * _convolve(light, kernels[0], place)
            right[place] += share * _convolve(light, kernels[1], place)
    return left, right


def render(
    surfaces: Sequence[Surface],
    lens: KernelShape | LensField,
    step_px: float = 0.7,
    area: FrameArea | None = None,
) -> RenderedPair:
    """Render the two views of surfaces given from the farthest to the nearest.

    Occlusion-aware: a nearer surface hides a farther one by its blurred coverage (Xin et al., ICCV
    2021). The farthest surface covers the whole picture.

    lens: one kernel for the whole picture, or a field of them, of which the picture fills `area`
        (by default the whole frame). A field takes several times as long; a picture that is a small
        part of the frame can as well have `LensField.shape_at` its middle.

    An even scene stays even: `light_shares` gives the light that the views lose.
    """
    height, width = surfaces[0].alpha.shape
    if isinstance(lens, LensField):
        parts = patches(height, width, lens, area or FrameArea())
        in_focus = lens.axis
    else:
        parts = [Patch(slice(0, height), slice(0, width), None, lens)]
        in_focus = lens
    left = np.zeros((height, width, 3), np.float32)
    right, sharp = left.copy(), left.copy()
    coc = np.zeros((height, width), np.float32)
    for surface in surfaces:
        blurred_left, blurred_right = blur_surface(surface, parts, step_px)
        left = left * (1 - blurred_left[..., 3:]) + blurred_left[..., :3]
        right = right * (1 - blurred_right[..., 3:]) + blurred_right[..., :3]
        alpha = surface.alpha[..., None]
        sharp = sharp * (1 - alpha) + surface.colour * alpha
        coc = np.where(surface.alpha > 0.5, surface.coc_px, coc)
    # The truth is what the same lens shows in focus: were it sharper than that, a network would
    # learn to sharpen what is in focus too.
    whole = (slice(0, height), slice(0, width))
    sharp = _convolve(sharp, view_kernels(0.0, in_focus)[0], whole)
    disparity = np.zeros((height, width), np.float32)
    for part in parts:
        found = _disparity(coc[part.rows, part.columns], part.shape)
        if part.weight is not None:
            found = found * part.weight[..., 0]
        disparity[part.rows, part.columns] += found
    return RenderedPair(left, right, sharp, disparity, coc)


def light_shares(
    height: int, width: int, lens: LensField, area: FrameArea | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return each photodiode's share of an even scene's light, (H, W); they sum to 1 on the axis.

    Times these, rendered views are what falls on the sensor, and their sum is the composite of a
    camera without flat field: the aperture of the place, which is symmetric but for its cat's eye.
    """
    left, right = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    area = area or FrameArea()
    scale = area.width / width
    x = area.x + scale * (np.arange(width, dtype=np.float32) + 0.5 - width / 2)
    y = area.y + scale * (np.arange(height, dtype=np.float32) + 0.5 - height / 2)
    light = lens.light_at(x[None, :], y[:, None])
    for part in patches(height, width, lens, area):
        assert part.weight is not None
        share = left_share(part.shape)
        left[part.rows, part.columns] += part.weight[..., 0] * np.float32(share)
        right[part.rows, part.columns] += part.weight[..., 0] * np.float32(1 - share)
    return left * light, right * light


def _hats(length: int, extent: float) -> list[tuple[float, FloatArray, slice]]:
    """Return overlapping spans of an axis: the middle, the weights that are not 0, their place.

    extent: the axis's length in units of half the frame's width.
    """
    count = max(2, int(np.ceil(extent / GRID_STEP)) + 1)
    places = np.arange(length)
    hats = []
    for middle in np.linspace(0, length - 1, count):
        weight = np.maximum(1 - np.abs(places - middle) * (count - 1) / (length - 1), 0)
        span = _nonzero_span(weight)
        assert span is not None
        hats.append((float(middle), weight[span].astype(np.float32), span))
    return hats


def _nonzero_span(values: npt.NDArray[np.floating[Any]]) -> slice | None:
    found = np.flatnonzero(values)
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else None


def _within(outer: slice, inner: slice) -> slice:
    return slice(outer.start + inner.start, outer.start + inner.stop)


def _convolve(image: FloatArray, kernel: FloatArray, place: tuple[slice, slice]) -> FloatArray:
    """Convolve a part of the picture."""
    reach = kernel.shape[0] // 2
    start = [max(span.start - reach, 0) for span in place]
    rows, columns = (slice(at, span.stop + reach) for at, span in zip(start, place, strict=True))
    # filter2D correlates; only a kernel turned by 180 degrees makes a point look like the kernel.
    turned = np.ascontiguousarray(kernel[::-1, ::-1])
    blurred = cv2.filter2D(
        image[rows, columns], cv2.CV_32F, turned, borderType=cv2.BORDER_REFLECT_101
    )
    inner = tuple(
        slice(span.start - at, span.stop - at) for at, span in zip(start, place, strict=True)
    )
    return np.asarray(blurred[inner], np.float32)


def _disparity(coc_px: FloatArray, shape: KernelShape) -> FloatArray:
    """Return the disparity of every pixel.

    Its ratio to the radius is nearly constant, so a short table is enough. It is odd in the radius:
    a far point's kernels are a near one's, turned.
    """
    radii = np.linspace(0, _TABLE_PX, 17)
    table = np.array([view_disparity_px(float(radius), shape) for radius in radii])
    size = np.abs(coc_px)
    within = np.interp(np.minimum(size, _TABLE_PX), radii, table)
    return np.asarray(within * np.sign(coc_px) * np.maximum(size / _TABLE_PX, 1), np.float32)
