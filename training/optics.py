"""The optics of a dual-pixel camera: how a point out of focus looks in the left and the right view.

Measured on a Canon EOS R6 Mark II and a 5D Mark IV, a view's kernel is a full disk with a rim that
may be brighter or darker than its middle, times a horizontal ramp that is mirrored in the other
view; it is never an ideal half disk and never a Gaussian. The family here spans both cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_SUBSAMPLES = 5
_POINT_PX = 0.3
"""Smaller disks are drawn with this radius: within one pixel they are a point without sides."""


def circle_of_confusion_px(
    depth_m: Array, focus_m: float, focal_length_mm: float, f_number: float, pixel_pitch_um: float
) -> Array:
    """Signed radius of the circle of confusion in pixels, near of the focus plane positive.

    Thin lens: c(z) = (z - z_f) / z * F^2 / (N (z_f - F)) is the diameter on the sensor, zero at the
    focus distance z_f; the sign is turned here so that it agrees with the disparity's.
    """
    focal_m = focal_length_mm / 1000
    diameter_m = (focus_m - depth_m) / depth_m * focal_m**2 / (f_number * (focus_m - focal_m))
    return np.asarray(diameter_m / 2 / (pixel_pitch_um * 1e-6), np.float32)


@dataclass(frozen=True)
class KernelShape:
    """One member of the kernel family.

    ramp: slope of the horizontal ramp. Left weighs a place x in [-1, 1] of the near-side disk by
        clip((1 + ramp x) / 2, 0, 1), right by the rest, so both together are the symmetric
        aperture. Up to a ramp of 1 a plain disk's views lie 0.5 ramp radii apart.
    rim: brightness added towards the edge (negative: taken away), as rim * rho^rim_order.
    softness_px: standard deviation of a Gaussian that stands for diffraction and aberrations.
    aspect: height over width of the disk (cat's eye off the axis).
    """

    ramp: float = 1.0
    rim: float = 0.0
    rim_order: int = 6
    softness_px: float = 0.4
    aspect: float = 1.0


def view_kernels(radius_px: float, shape: KernelShape) -> tuple[Array, Array]:
    """The kernels of the left and the right view for a signed circle of confusion's radius.

    Both are (k, k) float32 with odd k, each summing to 1; right is left mirrored in x. A negative
    radius (far of focus) swaps the two.
    """
    radius = abs(radius_px)
    reach = int(np.ceil(radius * max(1.0, shape.aspect) + 3 * shape.softness_px)) + 1
    steps = np.arange(_SUBSAMPLES * (2 * reach + 1))
    fine = ((steps + 0.5) / _SUBSAMPLES - reach - 0.5).astype(np.float32)
    drawn = max(radius, _POINT_PX)
    x = fine[None, :] / drawn
    y = fine[:, None] / drawn / np.float32(shape.aspect)
    rho = np.hypot(x, y)
    disk = (rho <= 1) * np.maximum(1 + shape.rim * rho**shape.rim_order, 0.05)
    weight = np.clip((1 + shape.ramp * x) / 2, 0, 1)
    side = 2 * reach + 1
    left = (disk * weight).reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).sum((1, 3))
    left = left.astype(np.float32)
    if shape.softness_px > 0:
        left = cv2.GaussianBlur(left, (0, 0), shape.softness_px, borderType=cv2.BORDER_CONSTANT)
    left = np.ascontiguousarray(left / left.sum())
    right = np.ascontiguousarray(left[:, ::-1])
    return (left, right) if radius_px >= 0 else (right, left)


def view_disparity_px(radius_px: float, shape: KernelShape) -> float:
    """Distance of the two kernels' centroids, x_left - x_right, in pixels."""
    left, right = view_kernels(radius_px, shape)
    x = np.arange(left.shape[1], dtype=np.float32)
    return float((left.sum(0) * x).sum() - (right.sum(0) * x).sum())
