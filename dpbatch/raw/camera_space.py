"""The camera's own colours: what its numbers mean, and how they follow from linear sRGB."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpbatch.raw.checks import Area, Cfa

Matrix = npt.NDArray[np.float64]

# IEC 61966-2-1: from linear sRGB to XYZ under D65, as LibRaw has it.
XYZ_FROM_SRGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)


@dataclass(frozen=True)
class CameraSpace:
    """A raw file's numbers and its colours.

    xyz_to_camera: (3, 3) from XYZ under D65 to the camera's red, green and blue.
    gains: (4,) of the white balance per colour index, the smallest 1.
    cfa: (2, 2) colour index 0 to 3 (R, G, B, second G) of the mosaic's even and odd rows and
        columns.
    black: (4,) DN per colour index.
    white_dn: DN above black, before white balance, that is developed as white.
    active: (top, left, height, width) of the picture in the mosaic.
    """

    xyz_to_camera: Matrix
    gains: npt.NDArray[np.float64]
    cfa: Cfa
    black: npt.NDArray[np.float64]
    white_dn: float
    active: Area

    @property
    def neutral(self) -> npt.NDArray[np.float64]:
        """(3,) what the camera shows of a white surface, green 1."""
        return np.asarray(self.gains[1] / self.gains[:3], np.float64)

    @property
    def balanced_from_srgb(self) -> Matrix:
        """(3, 3) from linear sRGB to the camera's colours after white balance; white stays white.

        A white surface lights the camera's channels unequally; raw converters divide each row by
        what it gives of white, and leave the rest to the white balance.
        """
        matrix = self.xyz_to_camera @ XYZ_FROM_SRGB
        return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float64)

    @property
    def full_dn(self) -> npt.NDArray[np.float64]:
        """(4,) DN above black, per colour index, that white light gives."""
        return np.asarray(self.white_dn / self.gains, np.float64)

    def at(self, row: int, column: int) -> int:
        """Return the colour index of a photosite of the active area's first cell."""
        top, left = self.active[:2]
        return int(self.cfa[(top + row) % 2, (left + column) % 2])
