"""Collect a raw photo's restored mosaic and its linear light while it is restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpbatch.raw.camera_space import XYZ_FROM_SRGB, CameraSpace
from dpbatch.raw.remosaic import Remosaic, with_change
from dpbatch.raw.restored import RestoredRaw
from ldp.srgb import decode_srgb_tensor

if TYPE_CHECKING:
    from dpbatch.raw.checks import Mosaic
    from dpbatch.raw.develop import RawViews
    from dpbatch.raw.frames import RawPair

Encode = Callable[[Tensor], Tensor]
"""encode(light) returns linear light, (3, h, w) float32 of sRGB primaries, as uint16."""


@dataclass(frozen=True)
class Wanted:
    """What to collect. recover: whether light above the composite's clipping is wanted.

    largest_light: of the encoded light; white is 1.
    """

    mosaic: bool
    light: bool
    recover: bool
    encode: Encode
    largest_light: float


class Collector:
    """Receives the parts of a restored picture, in any order, some of them more than once."""

    def __init__(
        self, pair: RawPair, views: RawViews, wanted: Wanted, device: torch.device
    ) -> None:
        self._pair, self._views, self._wanted = pair, views, wanted
        self._recovered = views.recovered(wanted.recover)
        self._camera = space_of(pair)
        self._remosaic = Remosaic(self._camera, self._recovered.ceiling_dn, device)
        size = views.size
        self._mosaic, self._light = (
            torch.empty(shape, dtype=torch.uint16, device=device) if is_wanted else None
            for shape, is_wanted in ((size, wanted.mosaic), ((*size, 3), wanted.light))
        )

    def __call__(self, rows: slice, columns: slice, pixels: Tensor) -> None:
        """Take a part of the restored picture, (3, h, w), sRGB-encoded, not clipped."""
        untouched = self._views.untouched(rows, columns)
        # Clipped alike: what a restored picture cannot hold stays as it was.
        restored, unrestored = (
            decode_srgb_tensor(picture.clamp(0, 1)) for picture in (pixels, untouched)
        )
        change = restored - unrestored  # exactly 0 where the network's result is not kept
        if self._mosaic is not None:
            base = self._recovered.samples(rows, columns)
            origin = rows.start, columns.start
            self._mosaic[rows, columns] = self._remosaic.samples(base, change, origin)
        if self._light is not None:
            largest = self._wanted.largest_light if self._wanted.recover else 1.0
            light = self._views.light(rows, columns, largest)
            encoded = self._wanted.encode(with_change(light, change))
            self._light[rows, columns] = encoded.permute(1, 2, 0)

    def result(self) -> RestoredRaw:
        """Return what was collected."""
        pair, recovered = self._pair, self._recovered
        return RestoredRaw(
            mosaic=None if self._mosaic is None else _framed(pair, _on_host(self._mosaic)),
            light=None if self._light is None else _on_host(self._light),
            camera=self._camera,
            visible=pair.visible,
            active=pair.active,
            ceiling_dn=recovered.ceiling_dn,
            headroom_ev=recovered.headroom_ev,
            make=pair.make,
            model=pair.model,
        )


def space_of(pair: RawPair) -> CameraSpace:
    """Return the colours of a photo; those of a camera that LibRaw does not know are sRGB's."""
    balanced = np.asarray(np.linalg.inv(pair.camera_to_srgb), np.float64)
    xyz_to_camera = pair.xyz_to_camera
    if not xyz_to_camera.any():
        xyz_to_camera = np.asarray(balanced @ np.linalg.inv(XYZ_FROM_SRGB), np.float64)
    return CameraSpace(
        xyz_to_camera=xyz_to_camera,
        balanced_from_srgb=balanced,
        gains=pair.relative_gains,
        cfa=pair.cfa,
        black=pair.composite_black,
        white_dn=pair.white_dn,
    )


def _framed(pair: RawPair, picture: Mosaic) -> Mosaic:
    """Return a picture's mosaic within the borders of the camera's frame."""
    top, left, height, width = pair.active
    frame = np.empty(pair.frame_size, np.uint16)
    frame[pair.outside()] = pair.border
    frame[top : top + height, left : left + width] = picture
    return frame


def _on_host(tensor: Tensor) -> npt.NDArray[np.uint16]:
    return np.asarray(tensor.cpu().numpy(), np.uint16)
