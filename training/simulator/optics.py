"""Model the optics of a dual-pixel camera: the blur kernels of the left and the right view.

Measured on a Canon EOS R6 Mark II and a 5D Mark IV, a view's kernel is a full disk with a rim that
may be brighter or darker than its middle, times a horizontal ramp that is mirrored in the other
view; it is never an ideal half disk and never a Gaussian. The family here spans both cameras.
Towards the frame's sides the ramp gets flatter and favours one view, the disk becomes a cat's eye,
and light falls off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ldp.types import FloatArray

CORNER = float(np.hypot(1, 2 / 3))
"""Distance of a 3:2 frame's corner from the axis, in units of half the frame's width."""

_SUBSAMPLES = 5
_POINT_PX = 0.3
"""Smaller disks are computed with this radius: within one pixel they are a point without sides."""


def circle_of_confusion_px(
    depth_m: FloatArray,
    focus_m: float,
    focal_length_mm: float,
    f_number: float,
    pixel_pitch_um: float,
) -> FloatArray:
    """Return the signed radius of the circle of confusion in px, near of the focus plane positive.

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
        clip((1 + shading + ramp x) / 2, 0, 1), right by the rest, so both together are the whole
        aperture. Up to a ramp of 1 a plain disk's views lie 0.5 ramp radii apart.
    rim: brightness added towards the edge (negative: taken away), as rim * rho^rim_order.
    softness_px: standard deviation of a Gaussian that stands for diffraction and aberrations.
    aspect: height over width of the disk.
    clip_x, clip_y: cat's eye. Of the near-side disk only what a second disk of the same size lets
        through remains, whose middle lies this many radii away.
    shading: how much more of a plain disk's light the left photodiode gets than the right one, as a
        share of all. It moves the ramp; how bright each view is, is left to the flat field.

    Raises ValueError where a view would get no light.
    """

    ramp: float = 1.0
    rim: float = 0.0
    rim_order: int = 6
    softness_px: float = 0.4
    aspect: float = 1.0
    clip_x: float = 0.0
    clip_y: float = 0.0
    shading: float = 0.0

    def __post_init__(self) -> None:
        if not (np.hypot(self.clip_x, self.clip_y) < 1 and abs(self.shading) < 1):
            raise ValueError(
                f"cat's eye {self.clip_x}, {self.clip_y} and shading {self.shading}: expected less "
                "than 1, or a view gets no light"
            )


def view_kernels(radius_px: float, shape: KernelShape) -> tuple[FloatArray, FloatArray]:
    """Return the kernels of the left and the right view for a signed radius of the blur.

    Both are (k, k) float32 with odd k, each summing to 1, as in views whose shading was corrected.
    Rays from behind the focus plane have crossed before the sensor, so a negative radius turns both
    kernels by 180 degrees, which swaps the two where the aperture is symmetric. In the mirror
    (clip_x and shading negated) the views are mirrored and swapped.
    """
    reach = int(np.ceil(abs(radius_px) * max(1.0, shape.aspect) + 3 * shape.softness_px)) + 1
    disk, weight = _aperture(radius_px, reach, shape)
    views = []
    for fine in (disk * weight, disk * (1 - weight)):
        kernel = _binned(fine)
        if shape.softness_px > 0:
            kernel = np.asarray(
                cv2.GaussianBlur(kernel, (0, 0), shape.softness_px, borderType=cv2.BORDER_CONSTANT),
                np.float32,
            )
        views.append(np.ascontiguousarray(kernel / kernel.sum()))
    return views[0], views[1]


def left_share(shape: KernelShape) -> float:
    """Return the left photodiode's share of the aperture's light, before shading is corrected."""
    disk, weight = _aperture(8.0, 10, shape)
    return float((disk * weight).sum() / disk.sum())


def _aperture(radius_px: float, reach: int, shape: KernelShape) -> tuple[FloatArray, FloatArray]:
    """Return the light through the whole aperture, and the left view's share of it.

    Both on a grid of _SUBSAMPLES a pixel that reaches this many pixels from the middle one.
    """
    count = _SUBSAMPLES * (2 * reach + 1)
    # From odd integers, so that both halves are exact mirror images.
    fine = (np.arange(1 - count, count, 2) / (2 * _SUBSAMPLES)).astype(np.float32)
    radius = np.float32(np.copysign(max(abs(radius_px), _POINT_PX), radius_px))
    x = fine[None, :] / radius
    y = fine[:, None] / radius / np.float32(shape.aspect)
    rho = np.hypot(x, y)
    inside = rho <= 1
    if shape.clip_x or shape.clip_y:
        inside &= np.hypot(x - np.float32(shape.clip_x), y - np.float32(shape.clip_y)) <= 1
    disk = inside * np.maximum(1 + shape.rim * rho**shape.rim_order, 0.05)
    return disk, np.clip((1 + shape.shading + shape.ramp * x) / 2, 0, 1)


def _binned(fine: FloatArray) -> FloatArray:
    side = fine.shape[0] // _SUBSAMPLES
    pixels = fine.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).sum((1, 3))
    return np.asarray(pixels, np.float32)


def view_disparity_px(radius_px: float, shape: KernelShape) -> float:
    """Return the distance of the two kernels' centroids, x_left - x_right, in pixels."""
    left, right = view_kernels(radius_px, shape)
    x = np.arange(left.shape[1], dtype=np.float32)
    return float((left.sum(0) * x).sum() - (right.sum(0) * x).sum())


@dataclass(frozen=True)
class LensField:
    """How a lens's kernels change across the frame.

    Places are x (right) and y (down) from the optical axis in units of half the frame's width.

    axis: the kernel on the axis.
    disparity_loss: the share of the ramp that is lost at the frame's left and right edge, growing
        with |x|^1.5 as measured on both cameras.
    shading: KernelShape's at the right edge; it grows straight from the axis, odd in x.
    cats_eye: how far the edge that clips the aperture has moved at a 3:2 frame's corner, in radii,
        straight from the axis outwards. Positive: a front rim, which takes the inner side of near
        points' kernels and the outer side of far ones'. Negative: a rear rim.
    light_loss: the share of the light lost at the corner, growing with the square of the distance.
    """

    axis: KernelShape
    disparity_loss: float = 0.0
    shading: float = 0.0
    cats_eye: float = 0.0
    light_loss: float = 0.0

    def shape_at(self, x: float, y: float) -> KernelShape:
        """Return the kernel at a place."""
        ramp = self.axis.ramp * max(0.0, 1 - self.disparity_loss * abs(x) ** 1.5)
        return replace(
            self.axis,
            ramp=ramp,
            clip_x=self.axis.clip_x + self.cats_eye * x / CORNER,
            clip_y=self.axis.clip_y + self.cats_eye * y / CORNER,
            shading=self.axis.shading + self.shading * x,
        )

    def light_at(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return the brightness of an even scene, 1 on the axis."""
        lost = self.light_loss * (x * x + y * y) / CORNER**2
        return np.asarray(np.maximum(0, 1 - lost), np.float32)


# As far as measurements on a 5D Mark IV go: a bright rim and a strong ramp.
EOS_5D_MARK_IV_KERNEL = KernelShape(ramp=1.2, rim=0.8, rim_order=6, softness_px=0.45)
EOS_5D_MARK_IV_FIELD = LensField(
    EOS_5D_MARK_IV_KERNEL, disparity_loss=0.15, shading=-0.35, cats_eye=0.3, light_loss=0.4
)
"""At the frame's side this loses 0.34 of the disparity, of which a part is the cat's eye's, as was
measured, and each view differs there from the other's light by a quarter stop up or down."""
