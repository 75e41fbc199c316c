"""The camera's own colours: what its numbers mean to a raw editor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

XYZ_FROM_SRGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
"""From linear sRGB to XYZ: ITU-R BT.709 primaries, D65, as LibRaw has it."""
CHANNELS = np.array([0, 1, 2, 1])
"""Of each colour index: red, green, blue, and the second green."""


@dataclass(frozen=True)
class CameraSpace:
    """The colours of a photo's mosaic.

    xyz_to_camera: (3, 3) from XYZ under D65 to the camera's red, green and blue.
    balanced_from_srgb: (3, 3) from linear sRGB to the camera's colours after white balance.
    gains: (4,) of the white balance per colour index, the smallest 1.
    cfa: (2, 2) colour index 0 to 3 (R, G, B, second G) of even and odd rows and columns.
    black: (4,) DN per colour index.
    white_dn: DN above black, before white balance, that is developed as white.
    """

    xyz_to_camera: Matrix
    balanced_from_srgb: Matrix
    gains: npt.NDArray[np.float64]
    cfa: npt.NDArray[np.int8]
    black: npt.NDArray[np.float64]
    white_dn: float

    @property
    def neutral(self) -> npt.NDArray[np.float64]:
        """(3,) what the camera shows of a white surface, green 1."""
        return np.asarray(self.gains[1] / self.gains[:3], np.float64)

    @property
    def full_dn(self) -> npt.NDArray[np.float64]:
        """(4,) DN above black, per colour index, that white light gives."""
        return np.asarray(self.white_dn / self.gains, np.float64)


def camera_to_srgb(xyz_to_camera: Matrix) -> Matrix:
    """Return the matrix from white-balanced camera colours to linear sRGB, as dcraw makes it.

    xyz_to_camera: (3, 3), for daylight of D65; 0 gives the identity. White stays white.
    """
    if not xyz_to_camera.any():
        return np.eye(3)
    srgb_to_camera = xyz_to_camera @ XYZ_FROM_SRGB
    srgb_to_camera /= srgb_to_camera.sum(axis=1, keepdims=True)
    return np.asarray(np.linalg.inv(srgb_to_camera), np.float64)
