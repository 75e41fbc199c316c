"""What a photographer goes on editing with: raw files, and pictures in wide color spaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.output.dng import encode_linear_dng, encode_mosaic_dng, write_dng
from dpbatch.output.dng_tags import Area, CameraColor, RawLevels
from dpbatch.output.images import to_8_bit
from dpbatch.output.light import LARGEST_LIGHT, decode_wide, encode_wide
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written
from dpbatch.output.render import render_srgb, render_wide
from dpbatch.output.tone import ToneCurve, apply_look
from dpbatch.raw.camera_space import CHANNELS
from dpbatch.raw.restored import RestoredRaw
from dpbatch.settings import OutputSettings

if TYPE_CHECKING:
    import torch

    from dpbatch.raw.collector import Collector
    from dpbatch.raw.develop import RawViews
    from dpbatch.raw.frames import RawPair

_PREVIEW_PX = 2048
_ROWS_AT_ONCE = 64


def collector_for(
    pair: RawPair, views: RawViews, settings: OutputSettings, device: torch.device
) -> Collector | None:
    """Return what collects more than the sRGB picture while a photo is restored; None if nothing.

    Linear light is collected for a wide color space, and for a photo with recovered highlights that
    the camera's look rolls off or an EXR holds.
    """
    from dpbatch.raw.collector import Collector, Wanted

    recover = settings.highlights == "recover"
    mosaic = light = False
    if settings.format == "dng":
        mosaic, light = settings.dng == "mosaic", settings.dng == "linear"
    elif settings.color_space != "srgb":
        light = True
    holds_more = settings.layers_in == "exr" or (settings.format != "dng" and _shows(settings))
    if recover and holds_more and not light:
        light = views.recovered(wanted=True).headroom_ev > 0
    if not (mosaic or light):
        return None
    return Collector(
        pair, views, Wanted(mosaic, light, recover, encode_wide, LARGEST_LIGHT), device
    )


def _shows(settings: OutputSettings) -> bool:
    """Return whether a picture is made of the linear light, where that was collected."""
    return settings.color_space != "srgb" or settings.look == "camera"


def finished(
    sharp: npt.NDArray[np.uint16],
    raw: RestoredRaw | None,
    curve: ToneCurve | None,
    look: tuple[ToneCurve | None, float],
    settings: OutputSettings,
) -> npt.NDArray[np.uint16]:
    """Return a picture in the settings' look and color space, in the sensor's orientation.

    sharp: (H, W, 3) uint16, sRGB-encoded. raw: has the light that is taken instead, if any, for the
        camera's look or a wide color space.
    look: what is left to be applied to `sharp`, curve and exposure in EV.
    """
    if raw is not None and raw.light is not None and _shows(settings):
        return render_wide(raw.light, settings.color_space, curve, settings.exposure)
    picture = apply_look(sharp, *look)
    return picture if settings.color_space == "srgb" else render_srgb(picture, settings.color_space)


def write_raw(
    target: Path,
    raw: RestoredRaw,
    preview: npt.NDArray[np.uint8],
    orientation: int,
    settings: OutputSettings,
    *,
    metadata: PhotoMetadata,
    note: ProcessingNote,
    depth: npt.NDArray[np.uint16] | None = None,
) -> Written:
    """Write a DNG. Raises OutputError.

    preview: see `preview_of`. depth: (H, W) in the orientation of the sensor, 65535 the nearest,
    for a depth map.
    """
    camera = raw.camera
    color = CameraColor(
        raw.make,
        raw.model,
        camera.xyz_to_camera,
        camera.neutral,
        raw.headroom_ev + settings.exposure,
    )
    if raw.mosaic is None:
        pixels = camera_rgb(raw)
        levels = RawLevels((0, 0, *pixels.shape[:2]), (0.0, 0.0, 0.0), 65535)
        small = None if depth is None else depth_map(depth, levels)
        encoded = encode_linear_dng(pixels, levels, color, preview, small)
        size = pixels.shape[0], pixels.shape[1]
    else:
        levels, pattern = _levels_and_pattern(raw)
        small = None if depth is None else depth_map(depth, levels)
        encoded = encode_mosaic_dng(raw.mosaic, pattern, levels, color, preview, small)
        size = raw.active[2], raw.active[3]
    return write_dng(target, encoded, size, orientation, metadata, note)


def preview_of(
    sharp: npt.NDArray[np.uint16], curve: ToneCurve | None, exposure_ev: float
) -> npt.NDArray[np.uint8]:
    """Return a smaller picture with a look, (h, w, 3) uint8, sRGB, in the sensor's orientation."""
    scale = min(1.0, _PREVIEW_PX / max(sharp.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in sharp.shape[:2])
    small = np.asarray(cv2.resize(sharp, (width, height), interpolation=cv2.INTER_AREA), np.uint16)
    return to_8_bit(apply_look(small, curve, exposure_ev))


def depth_map(depth: npt.NDArray[np.uint16], levels: RawLevels) -> npt.NDArray[np.uint16]:
    """Return a depth map of the active area at half size, 0 the nearest.

    depth: (H, W) of the picture, 65535 the nearest.
    """
    _, _, height, width = levels.active
    top, left, *size = levels.crop or (0, 0, height, width)
    below, beside = height - top - size[0], width - left - size[1]
    whole = cv2.copyMakeBorder(depth, top, below, left, beside, cv2.BORDER_REPLICATE)
    half = (max(1, width // 2), max(1, height // 2))
    small = np.asarray(cv2.resize(whole, half, interpolation=cv2.INTER_AREA), np.uint16)
    return np.uint16(65535) - small


def camera_rgb(raw: RestoredRaw) -> npt.NDArray[np.uint16]:
    """Return a photo's linear light in the camera's own colours, without white balance, (H, W, 3).

    65535 is the brightest light of a green sample: white, or the headroom above it.
    """
    assert raw.light is not None
    matrix = raw.camera.balanced_from_srgb / raw.camera.gains[:3, None]
    factors = (matrix * (65535 / 2.0**raw.headroom_ev)).T.astype(np.float32)
    result = np.empty(raw.light.shape, np.uint16)
    for start in range(0, len(result), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        camera = decode_wide(raw.light[rows]) @ factors
        np.rint(np.clip(camera, 0, 65535), out=result[rows], casting="unsafe")
    return result


def _levels_and_pattern(raw: RestoredRaw) -> tuple[RawLevels, tuple[int, int, int, int]]:
    """Return levels and pattern of a mosaic from the first sample that light falls on."""
    camera = raw.camera
    area, picture = in_cells(raw.visible, raw.active), raw.active
    shift = (picture[0] - area[0], picture[1] - area[1])
    colors = np.roll(camera.cfa, shift, axis=(0, 1)).ravel()
    a, b, c, d = CHANNELS[colors].tolist()
    black = tuple(camera.black[colors].tolist())
    crop = (*shift, *picture[2:])
    return RawLevels(area, black, raw.ceiling_dn, crop), (a, b, c, d)


def in_cells(visible: Area, picture: Area) -> Area:
    """Return what light falls on in whole 2x2 cells of the picture's, of which it lacks up to one
    row and column at a side: RawTherapee 5.9 crashes on a mosaic with an odd active area.

    Both are (top, left, height, width); `visible` is empty where it is not known.
    """
    if min(visible[2:]) < 2:
        return picture
    (top, height), (left, width) = (
        _even_span(visible[axis], visible[axis + 2], picture[axis]) for axis in (0, 1)
    )
    return top, left, height, width


def _even_span(start: int, length: int, first: int) -> tuple[int, int]:
    """Return start and length of the even numbers of places from `first` on, both ways."""
    shift = (first - start) % 2
    return start + shift, (length - shift) // 2 * 2
