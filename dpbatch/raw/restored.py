"""A restored photo as raw editors and wide color spaces need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dpbatch.raw.camera_space import CameraSpace
from dpbatch.raw.checks import Area, Mosaic

RAW_PLANES = ("mosaic", "light")
"""The pixels of a RestoredRaw."""


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

    def planes(self) -> dict[str, npt.NDArray[np.uint16]]:
        """Return the pixels that there are, by name."""
        planes = {name: getattr(self, name) for name in RAW_PLANES}
        return {name: plane for name, plane in planes.items() if plane is not None}

    def about(self) -> dict[str, Any]:
        """Return all besides the pixels, for JSON."""
        about = {field.name: getattr(self, field.name) for field in fields(self)}
        about["camera"] = {
            field.name: np.asarray(getattr(self.camera, field.name)).tolist()
            for field in fields(self.camera)
        }
        return {name: value for name, value in about.items() if name not in RAW_PLANES}

    @classmethod
    def of(
        cls, about: Mapping[str, Any], planes: Mapping[str, npt.NDArray[np.uint16]]
    ) -> RestoredRaw:
        """Return what `about` and `planes` were made from."""
        found: dict[str, Any] = dict.fromkeys(RAW_PLANES) | dict(about) | dict(planes)
        for name in ("visible", "active"):
            found[name] = tuple(about[name])
        camera: dict[str, Any] = {
            name: np.asarray(value) for name, value in found["camera"].items()
        }
        camera["cfa"] = camera["cfa"].astype(np.int8)
        camera["white_dn"] = float(camera["white_dn"])
        return cls(**(found | {"camera": CameraSpace(**camera)}))
