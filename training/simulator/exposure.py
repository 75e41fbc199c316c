"""Simulate an exposure: a sharp picture and its depth map through a thin lens, onto a sensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ldp.srgb import decode_srgb
from ldp.types import FloatArray
from training.errors import DataError, OpticsError
from training.pictures import StoredPicture, read_grey, read_rgb
from training.simulator.cr2.layout import CameraTags
from training.simulator.filling import fill_unknown
from training.simulator.layers import slice_edges, slice_surfaces
from training.simulator.optics import EOS_5D_MARK_IV_FIELD, LensField, circle_of_confusion_px
from training.simulator.render import RenderedPair, light_shares, render
from training.simulator.sensor import Sensor, sensor_at

FULL_FRAME_MM = 36.0
MAX_RADIUS_PX = 100.0
"""Beyond it, rendering takes hours, and no network was trained for it."""
MIN_DEPTH_M, MAX_DEPTH_M = 1e-6, 1e6
"""Single precision holds these and their products with 16-bit grey values."""
MAX_KERNELS = 60
"""For one scene; the more the radius spans, the coarser its steps."""


@dataclass(frozen=True)
class Lens:
    """A thin lens before the sensor.

    pixel_pitch_um: None where the picture fills a full frame. kernels: for a picture that is the
    whole frame, whatever its pitch.
    """

    focal_length_mm: float = 50.0
    f_number: float = 1.8
    focus_m: float = 1.5
    pixel_pitch_um: float | None = None
    kernels: LensField = EOS_5D_MARK_IV_FIELD


@dataclass(frozen=True)
class DepthScale:
    """The meaning of a depth map's grey values.

    near_m, far_m: the depth of its black and of its white, linear between them; near_m may be the
        larger one. Or unit_m: metres a step of the stored integers, 0 where the depth is unknown.

    Raises OpticsError unless near_m and far_m, or unit_m alone, are given, all between MIN_DEPTH_M
    and MAX_DEPTH_M.
    """

    near_m: float | None = None
    far_m: float | None = None
    unit_m: float | None = None

    def __post_init__(self) -> None:
        ends = [value for value in (self.near_m, self.far_m) if value is not None]
        given = ends if self.unit_m is None else [*ends, self.unit_m]
        if len(ends) != (2 if self.unit_m is None else 0):
            raise OpticsError("give either near_m with far_m, or unit_m")
        if min(given) <= 0:
            raise OpticsError(f"a depth of {min(given)} m: expected more than 0")
        for value in given:
            if not MIN_DEPTH_M <= value <= MAX_DEPTH_M:
                raise OpticsError(
                    f"a depth of {value:g} m: expected {MIN_DEPTH_M:g} to {MAX_DEPTH_M:g} m"
                )

    def metres(self, stored: StoredPicture) -> FloatArray:
        """Return the depth of every pixel in m; NaN where it is unknown."""
        if self.unit_m is not None:
            depth = stored.astype(np.float32) * np.float32(self.unit_m)
            return np.where(stored == 0, np.float32(np.nan), depth)
        assert self.near_m is not None
        assert self.far_m is not None
        share = stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
        return np.asarray(self.near_m + share * (self.far_m - self.near_m), np.float32)


@dataclass(frozen=True)
class Exposure:
    """What write_dual_pixel_raw makes a file of, and the truth behind it.

    left, right: (H, W, 3) float32 linear light as it falls on the photodiodes, less at the sides.
    pair: what was rendered, before light falls off; in the sensor's orientation, like the views.
    """

    left: FloatArray
    right: FloatArray
    sensor: Sensor
    pair: RenderedPair


def expose_scene(picture: Path, depth: Path, scale: DepthScale, lens: Lens, iso: int) -> Exposure:
    """Return what a sensor behind `lens` sees of a sharp picture with a depth map.

    picture: 8 or 16 bit, sRGB. depth: 8 or 16 bit, grey, of the same shape; its size may differ.
    A picture that is higher than wide lies on its side on the sensor, with an EXIF orientation.

    Raises DataError where the files, OpticsError where the optics cannot be used.
    """
    colour, metres = _read_scene(picture, depth, scale)
    upright = colour.shape[1] >= colour.shape[0]
    if not upright:
        colour, metres = (np.ascontiguousarray(np.rot90(plane, 1)) for plane in (colour, metres))
    height, width = colour.shape[0] // 2 * 2, colour.shape[1] // 4 * 4
    colour, metres = np.ascontiguousarray(colour[:height, :width]), metres[:height, :width]
    coc = _circle_px(metres, lens)
    surfaces = slice_surfaces(colour, coc, slice_edges(coc))
    step_px = max(0.7, float(np.ptp(coc)) / MAX_KERNELS)
    pair = render(surfaces, lens.kernels, step_px)
    shares = light_shares(height, width, lens.kernels)
    left, right = (
        view * (2 * share)[..., None]
        for view, share in zip((pair.left, pair.right), shares, strict=True)
    )
    tags = CameraTags(
        orientation=1 if upright else 6,
        f_number=lens.f_number,
        iso=iso,
        focal_length_mm=lens.focal_length_mm,
    )
    # The views carry the lens's shading already.
    return Exposure(left, right, replace(sensor_at(iso, tags), shading=0), pair)


def _circle_px(metres: FloatArray, lens: Lens) -> FloatArray:
    pitch_um = lens.pixel_pitch_um
    if pitch_um is None:
        pitch_um = FULL_FRAME_MM * 1000 / metres.shape[1]
    if min(lens.focal_length_mm, lens.f_number, lens.focus_m, pitch_um) <= 0:
        raise OpticsError(
            "focal length, f-number, focus distance and pixel pitch: expected more than 0"
        )
    if lens.focus_m * 1000 <= lens.focal_length_mm:
        raise OpticsError(
            f"a lens of {lens.focal_length_mm:g} mm cannot focus at {lens.focus_m:g} m; the "
            "distance is measured from the lens and must exceed the focal length"
        )
    coc = circle_of_confusion_px(
        metres, lens.focus_m, lens.focal_length_mm, lens.f_number, pitch_um
    )
    strongest = np.unravel_index(np.argmax(np.abs(coc)), coc.shape)
    if abs(float(coc[strongest])) > MAX_RADIUS_PX:
        raise OpticsError(
            f"at {float(metres[strongest]):.3g} m a point would become a disk of radius "
            f"{abs(float(coc[strongest])):.0f} px, expected at most {MAX_RADIUS_PX:.0f}; close the "
            "aperture, focus elsewhere, check the depth's scale, or take a smaller picture"
        )
    return coc


def _read_scene(picture: Path, depth: Path, scale: DepthScale) -> tuple[FloatArray, FloatArray]:
    """Return (H, W, 3) linear light and (H, W) depth in m, known everywhere."""
    encoded, stored = read_rgb(picture), read_grey(depth)
    height, width = encoded.shape[:2]
    if abs(stored.shape[1] / stored.shape[0] * height / width - 1) > 0.02:
        raise DataError(
            f"{depth} is {stored.shape[1]}x{stored.shape[0]}, {picture} {width}x{height}: "
            "expected the same shape"
        )
    metres = scale.metres(stored)
    known = np.isfinite(metres)
    if not known.any():
        raise DataError(f"{depth}: the depth is unknown (0) everywhere")
    if not known.all():
        metres = np.where(known, metres, fill_unknown(metres))
        metres[metres <= 0] = np.median(metres[known])
    # Nearest: a mean of near and far would be a depth at which nothing lies.
    sized = cv2.resize(metres, (width, height), interpolation=cv2.INTER_NEAREST)
    light = encoded.astype(np.float32) / np.float32(np.iinfo(encoded.dtype).max)
    return decode_srgb(np.ascontiguousarray(light)), np.asarray(sized, np.float32)
