"""A dual-pixel camera on paper: a picture with its depth, or rendered views in linear light, become
a Dual Pixel RAW file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.errors import AbortError, OutputError, SettingsError
from dpbatch.output.atomic import atomic_file
from ldp.srgb import decode_srgb
from training.simulator.cr2.layout import CameraTags, Rggb
from training.simulator.cr2.writer import write_dpraw_cr2, write_single_cr2
from training.simulator.optics import KernelShape, LensField, circle_of_confusion_px
from training.simulator.render import RenderedPair, Surface, light_shares, render

Picture = npt.NDArray[np.float32]

BLACK_LEVEL = 512
PHOTODIODE_BLACK = 512
WHITE_LEVEL = 16383

# As far as measurements on a 5D Mark IV go: a bright rim and a strong ramp.
EOS_5D_MARK_IV_KERNEL = KernelShape(ramp=1.2, rim=0.8, rim_order=6, softness_px=0.45)
EOS_5D_MARK_IV_FIELD = LensField(
    EOS_5D_MARK_IV_KERNEL, disparity_loss=0.15, shading=-0.35, cats_eye=0.3, light_loss=0.4
)
"""At the frame's side this loses 0.34 of the disparity, of which a part is the cat's eye's, as was
measured, and each view differs there from the other's light by a quarter stop up or down."""

FULL_FRAME_MM = 36.0
MAX_RADIUS_PX = 100.0
"""Beyond it, rendering takes hours, and no network was trained for it."""
MAX_SLICES = 6
SLICE_SPAN_PX = 2.5
MAX_KERNELS = 60
"""For one scene; the more the radius spans, the coarser its steps."""

# XYZ (D65) to the 5D Mark IV's camera space, as in Adobe's DNG profile, and sRGB to XYZ (D65).
_CAMERA_FROM_XYZ = np.array(
    [[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]]
)
_XYZ_FROM_SRGB = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


@dataclass(frozen=True)
class Sensor:
    """How the simulated sensor counts light.

    electrons_per_dn: conversion gain, which sets the shot noise; read_noise_dn: per photodiode.
    shading: left and right gain differ by a ramp of this much from one edge to the other, as real
        photodiodes under one lens do.
    """

    wb_rggb: Rggb = (2.0, 1.0, 1.0, 1.5)
    electrons_per_dn: float = 2.5
    read_noise_dn: float = 2.0
    shading: float = 0.15
    tags: CameraTags = field(default_factory=CameraTags)


@dataclass(frozen=True)
class Lens:
    """A thin lens before the sensor. pixel_pitch_um: None where the picture fills a full frame.

    kernels: for a picture that is the whole frame, whatever its pitch.
    """

    focal_length_mm: float = 50.0
    f_number: float = 1.8
    focus_m: float = 1.5
    pixel_pitch_um: float | None = None
    kernels: LensField = EOS_5D_MARK_IV_FIELD


@dataclass(frozen=True)
class DepthScale:
    """What a depth map's grey values mean.

    near_m and far_m: the depth of its black and of its white, straight between them; near_m may be
    the larger one. Or unit_m: metres a step of the stored integers, 0 where the depth is unknown.
    """

    near_m: float | None = None
    far_m: float | None = None
    unit_m: float | None = None

    def __post_init__(self) -> None:
        ends = [value for value in (self.near_m, self.far_m) if value is not None]
        given = ends if self.unit_m is None else [*ends, self.unit_m]
        if len(ends) != (2 if self.unit_m is None else 0):
            raise SettingsError("give either --near-m with --far-m, or --depth-scale")
        if min(given) <= 0:
            raise SettingsError(f"a depth of {min(given)} m: expected more than 0")

    def metres(self, stored: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Picture:
        """The depth of every pixel; NaN where it is unknown."""
        if self.unit_m is not None:
            depth = stored.astype(np.float32) * np.float32(self.unit_m)
            return np.where(stored == 0, np.float32(np.nan), depth)
        assert self.near_m is not None
        assert self.far_m is not None
        share = stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
        return np.asarray(self.near_m + share * (self.far_m - self.near_m), np.float32)


def sensor_at(iso: int, tags: CameraTags) -> Sensor:
    """A full-frame sensor of about 70,000 electrons a pixel at ISO 100, with its noise at `iso`."""
    electrons_per_dn = 4.4 * 100 / iso
    return Sensor(
        electrons_per_dn=electrons_per_dn,
        read_noise_dn=float(np.hypot(1.5, 1.5 / electrons_per_dn)),
        tags=tags,
    )


def photograph_scene(
    out: Path, picture: Path, depth: Path, scale: DepthScale, lens: Lens, iso: int, seed: int
) -> RenderedPair:
    """Writes the Dual Pixel RAW file that `lens` would give of a sharp picture with a depth map.

    picture: 8 or 16 bit, sRGB. depth: 8 or 16 bit, grey, of the same shape; its size may differ.
    A picture that is higher than wide lies on its side on the sensor, with an EXIF orientation.
    Returns what was rendered, in the sensor's orientation and before light falls off to the sides:
    what a photodiode gets less there is in the file only, as a camera leaves it in its own.

    Raises SettingsError where the files or the optics cannot be used, AbortError where the result
    cannot be written.
    """
    colour, metres = _read_scene(picture, depth, scale)
    upright = colour.shape[1] >= colour.shape[0]
    if not upright:
        colour, metres = (np.ascontiguousarray(np.rot90(plane, 1)) for plane in (colour, metres))
    height, width = colour.shape[0] // 2 * 2, colour.shape[1] // 4 * 4
    colour, metres = np.ascontiguousarray(colour[:height, :width]), metres[:height, :width]
    coc = _circle_px(metres, lens)
    surfaces = sliced(colour, coc, slice_edges(coc))
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
    try:
        with atomic_file(out) as temporary:
            photograph(temporary, left, right, replace(sensor_at(iso, tags), shading=0), seed)
    except ValueError as error:
        raise SettingsError(f"{picture}: {error}") from error
    except OutputError as error:
        raise AbortError(str(error)) from error
    return pair


def slice_edges(coc_px: Picture) -> tuple[float, ...]:
    """Where to cut a scene in depth: a few px apart, each cut at a depth where little lies."""
    lowest, highest = float(coc_px.min()), float(coc_px.max())
    count = min(MAX_SLICES, int((highest - lowest) / SLICE_SPAN_PX) + 1)
    spacing = (highest - lowest) / count
    edges = []
    for index in range(1, count):
        around = lowest + index * spacing + spacing * np.array([-0.3, 0.3])
        filling, places = np.histogram(coc_px, 12, (float(around[0]), float(around[1])))
        emptiest = int(np.argmin(filling))
        edges.append(float(places[emptiest : emptiest + 2].mean()))
    return tuple(edges)


def _circle_px(metres: Picture, lens: Lens) -> Picture:
    pitch_um = lens.pixel_pitch_um
    if pitch_um is None:
        pitch_um = FULL_FRAME_MM * 1000 / metres.shape[1]
    if min(lens.focal_length_mm, lens.f_number, lens.focus_m, pitch_um) <= 0:
        raise SettingsError(
            "focal length, f-number, focus distance and pixel pitch: expected more than 0"
        )
    if lens.focus_m * 1000 <= lens.focal_length_mm:
        raise SettingsError(
            f"a lens of {lens.focal_length_mm:g} mm cannot focus at {lens.focus_m:g} m; the "
            "distance is measured from the lens and must exceed the focal length"
        )
    coc = circle_of_confusion_px(
        metres, lens.focus_m, lens.focal_length_mm, lens.f_number, pitch_um
    )
    strongest = np.unravel_index(np.argmax(np.abs(coc)), coc.shape)
    if abs(float(coc[strongest])) > MAX_RADIUS_PX:
        raise SettingsError(
            f"at {float(metres[strongest]):.3g} m a point would become a disk of radius "
            f"{abs(float(coc[strongest])):.0f} px, expected at most {MAX_RADIUS_PX:.0f}; close the "
            "aperture, focus elsewhere, check the depth's scale, or take a smaller picture"
        )
    return coc


def _read_scene(picture: Path, depth: Path, scale: DepthScale) -> tuple[Picture, Picture]:
    """(H, W, 3) linear light and (H, W) depth in m, known everywhere."""
    encoded = _read(picture, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    stored = _read(depth, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 3:
        if not (stored[..., :1] == stored[..., :3]).all():
            raise SettingsError(f"{depth}: in colour, expected a grey depth map")
        stored = stored[..., 0]
    height, width = encoded.shape[:2]
    if abs(stored.shape[1] / stored.shape[0] * height / width - 1) > 0.02:
        raise SettingsError(
            f"{depth} is {stored.shape[1]}x{stored.shape[0]}, {picture} {width}x{height}: "
            "expected the same shape"
        )
    metres = scale.metres(stored)
    known = np.isfinite(metres)
    if not known.any():
        raise SettingsError(f"{depth}: the depth is unknown (0) everywhere")
    if not known.all():
        metres = np.where(known, metres, filled(metres))
        metres[metres <= 0] = np.median(metres[known])
    # Nearest: a mean of near and far would be a depth at which nothing lies.
    sized = cv2.resize(metres, (width, height), interpolation=cv2.INTER_NEAREST)
    light = encoded[..., ::-1].astype(np.float32) / np.float32(np.iinfo(encoded.dtype).max)
    return decode_srgb(np.ascontiguousarray(light)), np.asarray(sized, np.float32)


def _read(path: Path, how: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    stored = cv2.imread(str(path), how)
    if stored is None or stored.dtype not in (np.uint8, np.uint16):
        raise SettingsError(f"{path}: missing, or not a readable picture of 8 or 16 bit")
    return stored  # type: ignore[return-value]


def photograph(
    path: Path, left: Picture, right: Picture, sensor: Sensor, seed: int, noise: bool = True
) -> None:
    """Writes the views of one exposure as a Dual Pixel RAW CR2.

    left, right: (H, W, 3) linear light, sRGB primaries, each at the composite's brightness; 1 is
    where the composite's green saturates, more is clipped. H even, W a multiple of 4.
    """
    rng = np.random.default_rng(seed)
    across = np.linspace(-0.5, 0.5, left.shape[1], dtype=np.float32)[None, :] * sensor.shading
    mosaics = []
    for view, sign in ((left, 1), (right, -1)):
        signal = (
            _mosaic(view, sensor.wb_rggb) * (WHITE_LEVEL - BLACK_LEVEL) / 2 * (1 + sign * across)
        )
        if noise:
            variance = np.maximum(signal, 0) / sensor.electrons_per_dn + sensor.read_noise_dn**2
            signal = signal + rng.standard_normal(signal.shape, np.float32) * np.sqrt(variance)
        mosaics.append(signal)
    write_dpraw_cr2(
        path,
        mosaics[0],
        mosaics[1],
        tags=sensor.tags,
        wb_rggb=sensor.wb_rggb,
        black_level=BLACK_LEVEL,
        photodiode_black=PHOTODIODE_BLACK,
        white_level=WHITE_LEVEL,
        seed=seed,
    )


def photograph_ordinary(path: Path, picture: Picture, sensor: Sensor) -> None:
    """Writes a picture, as `photograph` takes it, as an ordinary CR2 with one raw frame."""
    signal = _mosaic(picture, sensor.wb_rggb) * (WHITE_LEVEL - BLACK_LEVEL)
    write_single_cr2(path, signal, tags=sensor.tags, wb_rggb=sensor.wb_rggb)


def _mosaic(linear: Picture, wb_rggb: Rggb) -> Picture:
    """(H, W) RGGB samples in camera space, before white balance."""
    matrix = _CAMERA_FROM_XYZ @ _XYZ_FROM_SRGB
    # Raw converters scale each row so that neutral light is neutral after white balance.
    matrix = (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    camera = linear @ matrix.T
    mosaic = np.empty(linear.shape[:2], np.float32)
    for index, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        channel = (0, 1, 1, 2)[index]
        mosaic[row::2, column::2] = camera[row::2, column::2, channel] / np.float32(wb_rggb[index])
    return mosaic


def filled(values: Picture) -> Picture:
    """NaN and infinity replaced by the smoothed values around them."""
    found = np.where(np.isfinite(values), values, 0).astype(np.float32)
    known = np.isfinite(values).astype(np.float32)
    height, width = values.shape
    for step in (1, 4, 16, 64):
        # Each round reaches four times as far as the last, on a picture that much smaller.
        coarse = (max(1, width // step), max(1, height // step))
        light, share = (
            cv2.resize(
                cv2.GaussianBlur(
                    cv2.resize(plane, coarse, interpolation=cv2.INTER_AREA), (0, 0), 2.0
                ),
                (width, height),
                interpolation=cv2.INTER_LINEAR,
            )
            for plane in (found * known, known)
        )
        grown = (known == 0) & (share > 1e-3)
        found[grown] = light[grown] / share[grown]
        known[grown] = 1
    return np.asarray(cv2.medianBlur(found, 5), np.float32)


def sliced(colour: Picture, coc_px: Picture, edges: tuple[float, ...]) -> list[Surface]:
    """One surface for each range of depth, from far to near; behind a nearer surface's edge the
    farther one is continued, as it is in the world."""
    surfaces = []
    limits = (-np.inf, *edges, np.inf)
    for low, high in itertools.pairwise(limits):
        hidden = cv2.dilate((coc_px >= high).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        planes = [*np.moveaxis(colour, 2, 0), coc_px]
        if hidden.any():
            planes = [filled(np.where(hidden, np.nan, plane)) for plane in planes]
        alpha = cv2.GaussianBlur((coc_px >= low).astype(np.float32), (0, 0), 0.6)
        coverage = np.asarray(alpha, np.float32)
        surfaces.append(Surface(np.dstack(planes[:3]), coverage, np.maximum(planes[3], low)))
    return surfaces
