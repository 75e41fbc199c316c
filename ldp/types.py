"""What passes between the stages of the model library: views, blur map, restored picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
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
        if self.left.ndim != 3 or self.left.shape[2] != 3:
            raise ValueError(f"a view is (H, W, 3) RGB, found {self.left.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.left.shape[0], self.left.shape[1]


@dataclass(frozen=True)
class BlurMap:
    """Where a photo is out of focus, and to which side.

    Each plane is (h, w) float32 and covers the whole view; it may be coarser than the view (a map
    of a 45 MP photo has fewer values than pixels).

    amount: in [0, 1], 0 sharp.
    disparity_px: x_left - x_right of the same detail in pixels of the full-size view, near of the
        focus plane positive; None where the estimator knows no sign. An estimator may even it over
        the frame, so that one depth reads alike everywhere (DisparityEstimator does).
    confidence: in [0, 1], how far the value stands on measured texture rather than on filling.
    soft: in (0, 1), the map M of LDP's paper as its equations give it, without the stretching that
        makes an amount of it; None where the estimator has no such values.
    """

    amount: Plane
    disparity_px: Plane | None = None
    confidence: Plane | None = None
    soft: Plane | None = None


@dataclass(frozen=True)
class Deblurred:
    """sharp: (H, W, 3) uint16 RGB, sRGB-encoded, 65535 is white, in the views' orientation."""

    sharp: npt.NDArray[np.uint16]
    blur_map: BlurMap


def as_float(picture: Picture) -> npt.NDArray[np.float32]:
    """A picture, or a part of one, as float32 with white at 1; float32 comes back as it is."""
    if picture.dtype == np.float32:
        return np.asarray(picture, np.float32)
    white = np.float32(255 if picture.dtype == np.uint8 else 65535)
    return picture.astype(np.float32) / white
