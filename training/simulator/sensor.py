"""A dual-pixel sensor: views in linear light become a Dual Pixel RAW file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ldp.types import FloatArray
from training.simulator.cr2.layout import CameraTags, Rggb
from training.simulator.cr2.writer import write_dpraw_cr2, write_single_cr2

BLACK_LEVEL = 512
PHOTODIODE_BLACK = 512
WHITE_LEVEL = 16383

# XYZ (D65) to the 5D Mark IV's camera space, as in Adobe's DNG profile, and sRGB to XYZ (D65).
_CAMERA_FROM_XYZ = np.array(
    [[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]]
)
_XYZ_FROM_SRGB = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


@dataclass(frozen=True)
class Sensor:
    """The gains and the noise of a simulated sensor.

    electrons_per_dn: conversion gain, which sets the shot noise. read_noise_dn: per photodiode.
    shading: the gains of left and right differ by a ramp of this much from edge to edge, as those
        of real photodiodes under one lens do.
    """

    wb_rggb: Rggb = (2.0, 1.0, 1.0, 1.5)
    electrons_per_dn: float = 2.5
    read_noise_dn: float = 2.0
    shading: float = 0.15
    tags: CameraTags = field(default_factory=CameraTags)


def sensor_at(iso: int, tags: CameraTags) -> Sensor:
    """Return a full-frame sensor at `iso`; at ISO 100 it holds 70,000 electrons a pixel."""
    electrons_per_dn = 4.4 * 100 / iso
    return Sensor(
        electrons_per_dn=electrons_per_dn,
        read_noise_dn=float(np.hypot(1.5, 1.5 / electrons_per_dn)),
        tags=tags,
    )


def write_dual_pixel_raw(
    path: Path, left: FloatArray, right: FloatArray, sensor: Sensor, seed: int, noise: bool = True
) -> None:
    """Write the views of one exposure as a Dual Pixel RAW CR2.

    left, right: (H, W, 3) float32 linear light, sRGB primaries, each at the composite's brightness;
    1 is where the composite's green saturates, more is clipped. H even, W a multiple of 4.
    seed: of the noise. noise: whether photodiodes have any.

    Raises ValueError for a size that write_dpraw_cr2 cannot write, OSError where it cannot write.
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


def write_ordinary_raw(path: Path, picture: FloatArray, sensor: Sensor) -> None:
    """Write a picture, (H, W, 3) as write_dual_pixel_raw takes it, as a CR2 with one raw frame."""
    signal = _mosaic(picture, sensor.wb_rggb) * (WHITE_LEVEL - BLACK_LEVEL)
    write_single_cr2(path, signal, tags=sensor.tags, wb_rggb=sensor.wb_rggb)


def camera_from_srgb() -> FloatArray:
    """Return the (3, 3) matrix from linear sRGB to the sensor's white-balanced colours.

    Raw converters scale each row so that neutral light is neutral after white balance.
    """
    matrix = _CAMERA_FROM_XYZ @ _XYZ_FROM_SRGB
    scaled: FloatArray = (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    return scaled


def _mosaic(linear: FloatArray, wb_rggb: Rggb) -> FloatArray:
    """Return (H, W) RGGB samples in camera space, before white balance."""
    camera = linear @ camera_from_srgb().T
    mosaic = np.empty(linear.shape[:2], np.float32)
    for index, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        channel = (0, 1, 1, 2)[index]
        mosaic[row::2, column::2] = camera[row::2, column::2, channel] / np.float32(wb_rggb[index])
    return mosaic
