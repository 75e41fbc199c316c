"""A restored photo as raw editors and wide color spaces need it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpbatch.raw.camera_space import CameraSpace
from dpbatch.raw.checks import Area, Mosaic


@dataclass(frozen=True)
class RestoredRaw:
    """A restored photo as a raw editor reads it.

    mosaic: (H, W) uint16, the whole frame with its borders; None where it is not wanted.
    light: (H, W, 3) uint16, the picture's linear light as `Wanted.encode` has it; or None.
    camera: the colours of the mosaic, whose `cfa` begins at the picture.
    visible: (top, left, height, width) of what light falls on, active: of the picture.
    ceiling_dn: the mosaic's brightest light. headroom_ev: how far it lies above the composite's
        own clipping.
    """

    mosaic: Mosaic | None
    light: npt.NDArray[np.uint16] | None
    camera: CameraSpace
    visible: Area
    active: Area
    ceiling_dn: int
    headroom_ev: float
    make: str
    model: str
