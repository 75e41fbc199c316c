"""Whether what was read as a kept restoration is one: other programs and bad disks write files too.

Only what costs little is looked at: types, sizes, and the values of all but the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dpbatch.photo import RestoredPhoto

if TYPE_CHECKING:
    from dpbatch.output.tone import ToneCurve
    from dpbatch.raw.camera_space import CameraSpace
    from dpbatch.raw.restored import RestoredRaw
    from ldp.types import BlurMap

_CAMERA_SHAPES = {
    "xyz_to_camera": (3, 3),
    "balanced_from_srgb": (3, 3),
    "gains": (4,),
    "cfa": (2, 2),
    "black": (4,),
}


def is_restoration(photo: RestoredPhoto) -> bool:
    """Return whether a photo's pictures, map, curve and raw data fit each other.

    Its fields may be of any type; for some wrong ones TypeError, ValueError or AttributeError is
    raised.
    """
    shape = photo.sharp.shape
    raws = (photo.raw, photo.original_raw)
    return (
        _is_picture(photo.sharp, shape)
        and _is_picture(photo.original, shape)
        and type(photo.orientation) is int
        and 1 <= photo.orientation <= 8
        and all(isinstance(warning, str) for warning in photo.warnings)
        and _is_map(photo.blur_map)
        and (photo.curve is None or _is_curve(photo.curve))
        and (raws == (None, None) or all(_is_raw(raw, shape) for raw in raws))
    )


def _is_picture(pixels: Any, shape: tuple[int, ...]) -> bool:
    is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0
    return bool(is_rgb and pixels.dtype == np.uint16 and pixels.shape == shape)


def _is_map(blur_map: BlurMap | None) -> bool:
    if blur_map is None:
        return False
    corrected_px = blur_map.corrected_px  # NaN where nothing is to be corrected
    return (
        _are_planes(blur_map.amount, blur_map.disparity_px, blur_map.confidence)
        and _are_planes(blur_map.radius_px, blur_map.radius_confidence)
        and _are_planes(blur_map.placed_px, blur_map.placed_amount)
        and (corrected_px is None or (_is_plane(corrected_px) and not np.isinf(corrected_px).any()))
    )


def _are_planes(*planes: Any) -> bool:
    """Return whether those of several planes that there are have one size and finite values."""
    found = [plane for plane in planes if plane is not None]
    is_good = all(_is_plane(plane) and np.isfinite(plane).all() for plane in found)
    return is_good and len({plane.shape for plane in found}) <= 1


def _is_plane(plane: Any) -> bool:
    return bool(plane.dtype == np.float32 and plane.ndim == 2 and plane.size > 0)


def _is_curve(curve: ToneCurve) -> bool:
    return (
        len(curve.x) == len(curve.y)
        and len(curve.x) >= 2
        and all(0 <= value <= 1 for value in (*curve.x, *curve.y))  # false for NaN too
        and all(one < other for one, other in pairwise(curve.x))
        and all(one <= other for one, other in pairwise(curve.y))
    )


def _is_raw(raw: RestoredRaw | None, shape: tuple[int, ...]) -> bool:
    """Return whether a photo for editors fits its picture, whose shape is (H, W, 3)."""
    if raw is None:
        return False
    return (
        _is_camera(raw.camera)
        and all(0 < value <= 65535 for value in (raw.ceiling_dn, 2.0**raw.headroom_ev))
        and all(isinstance(name, str) for name in (raw.make, raw.model))
        and (raw.light is None or _is_picture(raw.light, shape))
        and (raw.mosaic is None or _is_framed(raw.mosaic, raw, shape))
    )


def _is_camera(camera: CameraSpace) -> bool:
    values = {name: getattr(camera, name) for name in _CAMERA_SHAPES}
    return (
        all(value.shape == _CAMERA_SHAPES[name] for name, value in values.items())
        and all(np.isfinite(value).all() for value in values.values())
        and bool(0 <= camera.cfa.min() <= camera.cfa.max() <= 3 and camera.gains.min() > 0)
        and 0 < camera.white_dn <= 65535
    )


def _is_framed(mosaic: Any, raw: RestoredRaw, shape: Sequence[int]) -> bool:
    """Return whether a mosaic has a picture of this shape in it."""
    if not all(type(side) is int and side >= 0 for side in (*raw.active, *raw.visible)):
        return False
    top, left, height, width = raw.active
    return bool(
        mosaic.dtype == np.uint16
        and mosaic.ndim == 2
        and (height, width) == tuple(shape[:2])
        and top + height <= mosaic.shape[0]
        and left + width <= mosaic.shape[1]
    )
