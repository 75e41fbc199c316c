"""Two decoded frames become a checked pair: levels, clipping, defects."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dpbatch.errors import DamagedError
from dpbatch.raw.black import find_black
from dpbatch.raw.camera_space import camera_to_srgb
from dpbatch.raw.canon_tags import CanonTags
from dpbatch.raw.checks import Area, Blacks, Cfa, Mosaic, check_pair
from dpbatch.raw.clipping import ClipLevels, measure_clipping
from dpbatch.raw.container import Container
from dpbatch.raw.defects import fill_defects

EXIF_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
"""LibRaw's flip bits (1 mirror, 2 upside down, 4 transpose) as EXIF orientations."""


@dataclass(frozen=True)
class RawPair:
    """Both raw frames of a photo and the levels needed to split them.

    composite, photodiode: (H, W) uint16, the mosaics of the picture, black included; whole 2x2
        cells.
    cfa: (2, 2) int8, colour index 0 to 3 (R, G, B, second G) of the samples at even and odd rows
        and columns.
    composite_black, photodiode_black: (4,) DN per colour index, each measured on that frame's own
        masked columns; LibRaw's value where the columns are not usable.
    composite_clip, photodiode_clip: where the samples of either frame are clipped.
    white_level: DN, black included, that is developed as white; LibRaw's.
    active: (top, left, height, width) of the picture in the whole frame.
    frame_size: (height, width) of the whole frame, with its masked borders.
    camera_wb: (4,) gains of the white balance per colour index, in any scale, all positive.
    daylight_wb: (4,) those for daylight, from LibRaw's table; 0 where it has none.
    camera_to_srgb: (3, 3) from white-balanced camera colours to linear light, sRGB primaries.
    orientation: EXIF orientation, 1 to 8.
    notes: remarks for the user, such as a black level that differs from LibRaw's.
    warnings: what may be wrong with the pixels, see `dpbatch.types.Saved`.
    preview: the largest JPEG that the camera stored in the file; b"" where none was read.
    visible: (top, left, height, width) of what light falls on in the whole frame.
    border: (n,) the samples of the composite's whole frame outside `active`, row by row.
    xyz_to_camera: (3, 3) from XYZ under D65 to the camera's colours; 0 where LibRaw does not know.
    """

    composite: Mosaic
    photodiode: Mosaic
    cfa: Cfa
    composite_black: Blacks
    photodiode_black: Blacks
    composite_clip: ClipLevels
    photodiode_clip: ClipLevels
    white_level: int
    active: Area
    frame_size: tuple[int, int]
    camera_wb: npt.NDArray[np.float64]
    daylight_wb: npt.NDArray[np.float64]
    camera_to_srgb: npt.NDArray[np.float64]
    orientation: int
    make: str
    model: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    preview: bytes = b""
    visible: Area = (0, 0, 0, 0)
    border: Mosaic = field(default_factory=lambda: np.empty(0, np.uint16))
    xyz_to_camera: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))

    @property
    def relative_gains(self) -> npt.NDArray[np.float64]:
        """(4,) of the white balance per colour index, the smallest 1."""
        return np.asarray(self.camera_wb / self.camera_wb.min(), np.float64)

    @property
    def white_dn(self) -> float:
        """DN above black, before white balance, that is developed as white."""
        return float(self.white_level - self.composite_black.max())

    def outside(self) -> npt.NDArray[np.bool_]:
        """Return where the whole frame is not picture, as a mask of its size."""
        return outside(self.frame_size, self.active)


@dataclass(frozen=True)
class Frame:
    """One decoded frame with LibRaw's values for it.

    mosaic: whole, with masked borders; LibRaw's memory, as long as the file is open there.
    picture: a copy of its active area. cfa: of the whole mosaic.
    xyz_to_camera: (3, 3), 0 where LibRaw does not know the camera.
    """

    mosaic: Mosaic
    picture: Mosaic
    cfa: Cfa
    black: Blacks
    white_level: int
    visible: Area
    active: Area
    camera_wb: npt.NDArray[np.float64]
    daylight_wb: npt.NDArray[np.float64]
    xyz_to_camera: npt.NDArray[np.float64]
    flip: int
    preview: bytes = b""

    @property
    def layout(self) -> tuple[tuple[int, ...], Area, list[list[int]]]:
        """What two frames of one photo have in common: shape, visible area and pattern."""
        return self.mosaic.shape, self.visible, self.cfa.tolist()


def pair_of(
    first: Frame, second: Frame, name: str, container: Container, tags: CanonTags
) -> RawPair:
    """Measure both frames, check that they belong together and fill their defects, in place.

    first: the composite. name: the file's, for messages. Raises DamagedError where they cannot be
    a composite and one of its photodiodes, UnreadableError where no black level is known.
    """
    if first.layout != second.layout:
        raise DamagedError(
            f"{name}: the raw frames are laid out {first.layout} and {second.layout}, "
            "expected alike"
        )
    if np.array_equal(first.mosaic, second.mosaic):  # their borders differ even in darkness
        raise DamagedError(
            f"{name}: both raw frames hold the same picture, expected a composite and one view"
        )
    if min(first.active[2:]) < 2:
        raise DamagedError(f"{name}: the picture area {first.active} is empty")
    masked = _right_of_masked(first.visible, tags.first_lit_column)
    black, second_black = (
        find_black(frame.mosaic, frame.cfa, masked, stated=frame.black, which=which, name=name)
        for frame, which in ((first, "composite"), (second, "photodiode"))
    )
    if not black.level.max() < first.white_level:
        raise DamagedError(f"{name}: black {black.level} is not below white {first.white_level}")
    top, left, _, _ = first.active
    cfa = np.roll(first.cfa, (-top, -left), axis=(0, 1))
    clipping = measure_clipping(
        first.picture,
        second.picture,
        cfa=cfa,
        blacks=(black.level, second_black.level),
        white_level=first.white_level,
    )
    noise_dn = float(np.hypot(black.noise_dn, second_black.noise_dn))
    check_pair(
        first.picture,
        second.picture,
        cfa=cfa,
        composite_black=black.level,
        photodiode_black=second_black.level,
        clipping=clipping,
        noise_dn=noise_dn,
        name=name,
    )
    defects = fill_defects(
        first.picture,
        second.picture,
        black_dn=float(black.level.max()),
        noise_dn=noise_dn,
        clip_dn=float(clipping[0].start.min()),
    )
    return RawPair(
        composite=first.picture,
        photodiode=second.picture,
        cfa=cfa,
        composite_black=black.level,
        photodiode_black=second_black.level,
        composite_clip=clipping[0],
        photodiode_clip=clipping[1],
        white_level=first.white_level,
        active=first.active,
        frame_size=(first.mosaic.shape[0], first.mosaic.shape[1]),
        camera_wb=first.camera_wb,
        daylight_wb=first.daylight_wb,
        camera_to_srgb=camera_to_srgb(first.xyz_to_camera),
        orientation=EXIF_ORIENTATION.get(first.flip, 1),
        make=container.make,
        model=container.model,
        notes=black.notes + second_black.notes + defects.notes,
        warnings=black.warnings + second_black.warnings,
        preview=first.preview,
        visible=first.visible,
        border=first.mosaic[outside(first.mosaic.shape, first.active)],
        xyz_to_camera=first.xyz_to_camera,
    )


def outside(frame_size: tuple[int, ...], active: Area) -> npt.NDArray[np.bool_]:
    """Return where a frame is not picture, as a mask of its size."""
    top, left, height, width = active
    mask: npt.NDArray[np.bool_] = np.ones(frame_size, np.bool_)
    mask[top : top + height, left : left + width] = False
    return mask


def _right_of_masked(visible: Area, first_lit_column: int) -> Area:
    """Return the visible area from the first lit column on, by LibRaw or by Canon's metadata.

    LibRaw's margin is 0 for a body that it does not know, and the crop instead of the active area
    for some that it does: the lower of both is right.
    """
    top, left, height, width = visible
    known = [column for column in (left, first_lit_column) if column > 0]
    start = min(known, default=0)
    return top, start, height, left + width - start
