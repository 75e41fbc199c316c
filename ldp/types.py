"""What passes between the stages of the model library: views, blur map, restored picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
Plane = FloatArray
"""(h, w), one value a pixel or a cell."""
Picture = FloatArray | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]
"""(H, W, 3) RGB, sRGB-encoded; white is 1 for floats and the largest value of an integer type."""
Picture16 = npt.NDArray[np.uint16]
"""A Picture of 16 bits."""
Plane16 = npt.NDArray[np.uint16]
"""(h, w), one value a pixel or a cell, 65535 for 1."""
MapPlane = Literal["amount", "soft"]
"""A plane of BlurMap that a network may read."""


@dataclass(frozen=True)
class ViewPair:
    """The two sub-aperture views of one photo, developed alike, in the sensor's own orientation.

    left, right: (H, W, 3) RGB, sRGB primaries, sRGB-encoded. Integer arrays span their whole type
        (uint16: 65535 is white); float32 has white at 1 and may go below 0, where the noise of a
        dark area does (nothing is clipped before the final write).
    orientation: EXIF orientation, 1 to 8, that turns the pixels upright. The baseline between the
        views is along x only as long as it has not been applied, so it is applied last.

    Raises ValueError where the views differ in size or type, or are not such pictures.
    """

    left: Picture
    right: Picture
    orientation: int = 1

    def __post_init__(self) -> None:
        if self.left.shape != self.right.shape or self.left.dtype != self.right.dtype:
            raise ValueError(
                f"left is {self.left.shape} {self.left.dtype}, right {self.right.shape} "
                f"{self.right.dtype}: two views of one photo have the same size and type"
            )
        if self.left.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"a view is uint8, uint16 or float32, found {self.left.dtype}")
        if self.left.ndim != 3 or self.left.shape[2] != 3 or not self.left.size:
            raise ValueError(f"a view is (H, W, 3) RGB of a pixel or more, found {self.left.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.left.shape[0], self.left.shape[1]

    def reduced(self, pixels: int) -> ViewPair:
        """Return the views scaled down to about that many pixels; as they are if they have fewer.

        Areas are averaged before integers turn to float, for the sake of memory.
        """
        left, right = (reduced_picture(view, pixels) for view in (self.left, self.right))
        return self if left is self.left else ViewPair(left, right, self.orientation)


class ReducibleViews(Protocol):
    """Views that a blur map is estimated from: a ViewPair, or those of a photo on a device."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def reduced(self, pixels: int) -> ViewPair:
        """Return both views scaled down to about that many pixels, or whole if they have fewer."""


@dataclass(frozen=True)
class BlurMap:
    """Where a photo is out of focus, and to which side.

    Each plane is (h, w) float32 and covers the whole view; it may be coarser than the view (a map
    of a 45 MP photo has fewer values than pixels).

    amount: in [0, 1], 0 sharp.
    disparity_px: x_left - x_right of the same detail in pixels of the full-size view, near of the
        focus plane positive; None where the estimator gives no sign. An estimator may even it over
        the frame, so that one depth has one value everywhere (DisparityEstimator does).
    confidence: in [0, 1], how far the value is measured on texture rather than filled in; None
        where the estimator does not know.
    soft: in (0, 1), the map M of LDP's paper as its equations give it, without the stretching that
        makes an amount of it; None where the estimator has no such values.
    radius_px: radius of the blur in pixels of the full-size view, near of the focus plane positive,
        0 where none is seen; None where neither the estimator nor the choice of scales found it.
    radius_confidence: as confidence, of radius_px (h, w); None where disparity_px follows from
        radius_px, or where this is None.
    magnitude_px: size of the disparity in the same pixels, for estimators that fill it in apart:
        between a near object and a far one a filled disparity passes through 0, its magnitude does
        not. None stands for |disparity_px|.
    corrected_px: (h, w) of its own, a better disparity where the restored photo shows that
        disparity_px is wrong (ldp.blur.reconsider), NaN elsewhere; None for nowhere.
    placed_px, placed_amount: (h, w) of their own, disparity_px and amount with their steps at the
        outlines of the restored photo (ldp.blur.placing); None before that is known.
    falloff: the share of the disparity that is lost at the frame's left and right edge and that the
        map makes up for, see DisparityEstimator.
    """

    amount: Plane
    disparity_px: Plane | None = None
    confidence: Plane | None = None
    soft: Plane | None = None
    radius_px: Plane | None = None
    radius_confidence: Plane | None = None
    magnitude_px: Plane | None = None
    corrected_px: Plane | None = None
    placed_px: Plane | None = None
    placed_amount: Plane | None = None
    falloff: float = 0.0


@dataclass(frozen=True)
class Deblurred:
    """A restored photo.

    sharp: (H, W, 3) float32 RGB, sRGB-encoded, white at 1, in the orientation of the views. Not
        clipped: values below 0 and above 1 are as the network gives them.
    blur_map: what the network was given.
    """

    sharp: FloatArray
    blur_map: BlurMap

    def to_uint16(self) -> npt.NDArray[np.uint16]:
        """Return the picture clipped to [0, 1] and rounded, 65535 is white; (H, W, 3)."""
        return to_uint16(self.sharp)


@dataclass(frozen=True)
class RoundedDeblurred:
    """A restored photo as it is written.

    sharp: (H, W, 3) uint16 RGB, sRGB-encoded, 65535 is white, in the orientation of the views.
    blur_map: what the network was given.
    """

    sharp: npt.NDArray[np.uint16]
    blur_map: BlurMap


@dataclass(frozen=True)
class TensorBlurMap:
    """BlurMap as tensors: each plane is (1, h, w), or (B, 1, h, w) for a batch, float32."""

    amount: Tensor
    disparity_px: Tensor | None = None
    confidence: Tensor | None = None
    soft: Tensor | None = None
    radius_px: Tensor | None = None


@dataclass(frozen=True)
class TensorDeblurred:
    """Deblurred as tensors on the device of the views.

    sharp: (3, H, W), or (B, 3, H, W) for a batch, float32, not clipped.
    blur_map: what the network was given.
    """

    sharp: Tensor
    blur_map: TensorBlurMap

    def to_uint16(self) -> Tensor:
        """Return the picture clipped to [0, 1] and rounded, torch.uint16, 65535 is white."""
        import torch

        return (self.sharp.clamp(0, 1) * 65535 + 0.5).to(torch.uint16)


def reduced_size(shape: tuple[int, ...], pixels: int) -> tuple[int, int]:
    """Return (width, height) of a picture (H, W, ...) scaled down to about that many pixels; its
    own if it has fewer."""
    height, width = shape[:2]
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


def reduced_picture(picture: Picture, pixels: int) -> Picture:
    """Return a picture scaled down to about that many pixels; as it is if it has fewer."""
    size = reduced_size(picture.shape, pixels)
    if size == (picture.shape[1], picture.shape[0]):
        return picture
    import cv2

    return cast(Picture, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def as_float(picture: Picture) -> FloatArray:
    """Return a picture, or a part of one, as float32 with white at 1; float32 is not copied."""
    if picture.dtype == np.float32:
        return np.asarray(picture, np.float32)
    white = np.float32(255 if picture.dtype == np.uint8 else 65535)
    return picture.astype(np.float32) / white


def to_uint16(picture: FloatArray) -> npt.NDArray[np.uint16]:
    """Clip a picture with white at 1 to [0, 1] and round it, 65535 is white; any shape."""
    levels = np.clip(picture, 0, 1)
    levels *= np.float32(65535)
    levels += np.float32(0.5)
    return levels.astype(np.uint16)
