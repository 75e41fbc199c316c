"""The tags of a DNG file, as tifffile writes them.

Adobe, Digital Negative Specification, version 1.4; depth maps as of 1.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Area = tuple[int, int, int, int]
Tag = tuple[int, int, int, object, bool]
"""Code, type, count, value, and whether it is written once a file."""

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_VERSION, _VERSION_WITH_DEPTH = bytes((1, 4, 0, 0)), bytes((1, 5, 0, 0))
_OLDEST_READER = bytes((1, 1, 0, 0))
_D65 = 21
_SRGB_PREVIEW = 2
_LARGEST_DENOMINATOR = 1_000_000
_INVERSE, _OPTICAL_AXIS = 2, 1
_NOT_KNOWN = (0, 0)
_DEPTH_TAGS: tuple[Tag, ...] = (
    (51177, _SHORT, 1, _INVERSE, True),  # DepthFormat: even steps of one over the distance
    (51178, _RATIONAL, 1, _NOT_KNOWN, True),  # DepthNear, of the value 0
    (51179, _RATIONAL, 1, _NOT_KNOWN, True),  # DepthFar, of the largest value
    (51180, _SHORT, 1, 0, True),  # DepthUnits: not known
    (51181, _SHORT, 1, _OPTICAL_AXIS, True),  # DepthMeasureType
)


@dataclass(frozen=True)
class CameraColor:
    """What an editor needs to turn the camera's numbers into colours.

    make, model: the camera's names, such as "Canon" and "Canon EOS R5", by which editors find its
        profile.
    xyz_to_camera: (3, 3), from XYZ under D65 to the camera's red, green and blue.
    neutral: (3,) what the camera's channels show of a white surface, green 1: one over the gains of
        the white balance.
    baseline_exposure_ev: by how much an editor brightens the file.
    """

    make: str
    model: str
    xyz_to_camera: npt.NDArray[np.float64]
    neutral: npt.NDArray[np.float64]
    baseline_exposure_ev: float = 0.0

    def tags(self, *, with_depth: bool = False) -> list[Tag]:
        """Return the tags of the first directory. with_depth: of a file with a depth map."""
        version = _VERSION_WITH_DEPTH if with_depth else _VERSION
        return [
            _text(271, self.make),
            _text(272, self.model),
            (50706, _BYTE, 4, version, True),
            (50707, _BYTE, 4, _OLDEST_READER, True),
            _text(50708, self.model),  # UniqueCameraModel
            _rationals(50721, self.xyz_to_camera.ravel().round(4), _SRATIONAL),  # ColorMatrix1
            _rationals(50728, self.neutral),  # AsShotNeutral
            _rationals(50730, [self.baseline_exposure_ev], _SRATIONAL),
            (50741, _SHORT, 1, 1, True),  # MakerNoteSafety: its offsets hold in this file
            (50778, _SHORT, 1, _D65, True),  # CalibrationIlluminant1
            (50970, _LONG, 1, _SRGB_PREVIEW, True),
            *(_DEPTH_TAGS if with_depth else ()),
        ]


@dataclass(frozen=True)
class RawLevels:
    """How the stored numbers are to be read.

    active: (top, left, height, width) of what light falls on in the stored pixels.
    black: DN of no light, at the four photosites of a cell of the active area, row by row, or of
        the three colours of a picture.
    white: DN of the brightest light.
    crop: (top, left, height, width) of the picture in the active area; None for all of it.
    """

    active: Area
    black: tuple[float, ...]
    white: int
    crop: Area | None = None

    def tags(self) -> list[Tag]:
        """Return the tags of the directory of the raw pixels."""
        top, left, height, width = self.active
        crop = self.crop or (0, 0, height, width)
        side = 2 if len(self.black) == 4 else 1
        return [
            (50713, _SHORT, 2, (side, side), True),  # BlackLevelRepeatDim
            # BlackLevel; most readers cut fractions off.
            (50714, _SHORT, len(self.black), tuple(round(level) for level in self.black), True),
            (50717, _LONG, len(self.black) if side == 1 else 1, self._white(side), True),
            _rationals(50718, (1, 1)),  # DefaultScale
            (50719, _LONG, 2, (crop[1], crop[0]), True),  # DefaultCropOrigin
            (50720, _LONG, 2, (crop[3], crop[2]), True),  # DefaultCropSize
            (50829, _LONG, 4, (top, left, top + height, left + width), True),  # ActiveArea
        ]

    def _white(self, side: int) -> int | tuple[int, ...]:
        return self.white if side == 2 else (self.white,) * len(self.black)


def cfa_tags(pattern: tuple[int, int, int, int]) -> list[Tag]:
    """Return the tags of a colour filter array.

    pattern: colours of the four photosites of a cell of the active area, row by row: 0 red,
    1 green, 2 blue.
    """
    return [
        (33421, _SHORT, 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, _BYTE, 4, bytes(pattern), True),  # CFAPattern
        (50710, _BYTE, 3, bytes((0, 1, 2)), True),  # CFAPlaneColor
        (50711, _SHORT, 1, 1, True),  # CFALayout: rectangular
    ]


def _text(code: int, text: str) -> Tag:
    return code, _ASCII, 0, text, True


def _rationals(code: int, values: Iterable[float], kind: int = _RATIONAL) -> Tag:
    parts: list[int] = []
    for value in values:
        fraction = Fraction(float(value)).limit_denominator(_LARGEST_DENOMINATOR)
        parts += [fraction.numerator, fraction.denominator]
    return code, kind, len(parts) // 2, tuple(parts), True
