"""Render the four scenes of the demo from photographs of scikit-image and their depth.

A scene is built in the orientation of the sensor, along whose x the views differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.errors import AbortError
from ldp.srgb import decode_srgb
from ldp.types import FloatArray
from training.simulator.cr2.layout import CameraTags
from training.simulator.filling import fill_unknown
from training.simulator.layers import slice_surfaces
from training.simulator.optics import EOS_5D_MARK_IV_KERNEL
from training.simulator.render import RenderedPair, Surface, render


@dataclass(frozen=True)
class DemoScene:
    """name: stem of the file. pair: linear light on the sensor. exposure: gain on it."""

    name: str
    what: str
    pair: RenderedPair
    tags: CameraTags
    exposure: float = 1.0


def demo_scenes() -> list[DemoScene]:
    """Return motorcycle (measured depth), coffee (a table through the focus plane), rocket (clipped
    lamps behind a fence) and a portrait (camera turned)."""
    makers: tuple[Callable[[], DemoScene], ...] = (_motorcycle, _coffee, _rocket, _portrait)
    return [make() for make in makers]


def ordinary_scene() -> DemoScene:
    """Return a workshop for the file without dual pixels, out of focus towards the right.

    A photograph that is sharp all over: what is soft in the truth would count against sharpening.
    """
    colour = _linear(_shipped("stereo_motorcycle")[1])
    height, width = colour.shape[:2]
    coc = np.repeat(np.linspace(-1.0, -5.0, width, dtype=np.float32)[None, :], height, 0)
    surface = Surface(colour, np.ones((height, width), np.float32), coc)
    pair = render([surface], EOS_5D_MARK_IV_KERNEL)
    return DemoScene("IMG_0005", "workshop, without dual pixels", pair, CameraTags())


def _motorcycle() -> DemoScene:
    """Return Middlebury's motorcycle with its measured depth, the front of the engine in focus."""
    photo, _, stereo_disparity = _shipped("stereo_motorcycle")
    colour = _linear(photo)
    nearness = fill_unknown(
        stereo_disparity[: colour.shape[0], : colour.shape[1]].astype(np.float32)
    )
    coc = np.clip((nearness - np.float32(41.0)) * np.float32(0.32), -6.5, 5.0)
    surfaces = slice_surfaces(colour, coc, edges=(-3.5, -1.0, 1.5))
    pair = render(surfaces, EOS_5D_MARK_IV_KERNEL)
    return DemoScene("IMG_0001", "motorcycle, measured depth", pair, CameraTags())


def _coffee() -> DemoScene:
    """Return a table through the focus plane: near below, far above."""
    colour = _linear(_shipped("coffee"))
    height, width = colour.shape[:2]
    coc = np.repeat(np.linspace(-5.5, 4.5, height, dtype=np.float32)[:, None], width, 1)
    surface = Surface(colour, np.ones((height, width), np.float32), coc)
    tags = CameraTags(f_number=1.8, gps=(48.2082, 16.3738))
    pair = render([surface], EOS_5D_MARK_IV_KERNEL)
    return DemoScene("IMG_0002", "coffee, a table through the focus plane", pair, tags)


def _rocket() -> DemoScene:
    """Return a far scene with clipped lamps, out of focus behind a fence in focus."""
    colour = _linear(_shipped("rocket"))
    height, width = colour.shape[:2]
    far = Surface(
        colour, np.ones((height, width), np.float32), np.full((height, width), -4.5, np.float32)
    )
    mask = np.zeros((2 * height, 2 * width), np.uint8)
    for x in range(-2 * height, 2 * width, 260):
        for direction in (1, -1):
            start = (x, 0) if direction > 0 else (x + 2 * height, 0)
            end = (start[0] + direction * 2 * height, 2 * height)
            cv2.line(mask, start, end, 255, 9, cv2.LINE_AA)
    alpha = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    wire = np.full((height, width, 3), 0.06, np.float32)
    near = Surface(
        wire, alpha.astype(np.float32) / np.float32(255), np.full((height, width), 0.2, np.float32)
    )
    pair = render([far, near], EOS_5D_MARK_IV_KERNEL)
    tags = CameraTags(exposure_time_s=1 / 1000, focal_length_mm=200.0)
    return DemoScene("IMG_0003", "rocket behind a fence, clipped lamps", pair, tags, exposure=1.8)


def _portrait() -> DemoScene:
    """Return a person in portrait orientation, on the sensor turned by 90 degrees."""
    upright = _linear(_shipped("astronaut"))[:, 64:448]
    colour = np.ascontiguousarray(np.rot90(upright, 1))
    height, width = colour.shape[:2]
    across = np.linspace(1.0, 4.5, width, dtype=np.float32)[None, :]
    coc = np.repeat(across, height, 0)
    surface = Surface(colour, np.ones((height, width), np.float32), coc)
    pair = render([surface], EOS_5D_MARK_IV_KERNEL)
    return DemoScene("IMG_0004", "portrait, camera turned", pair, CameraTags(orientation=6))


def _shipped(name: str) -> Any:
    """Return a picture from the package of scikit-image; nothing is downloaded."""
    try:
        from skimage import data
    except ImportError as error:
        raise AbortError(
            "the demo's pictures come with scikit-image, which is not installed; "
            "run: pip install scikit-image"
        ) from error
    return getattr(data, name)()


def _linear(photo: npt.NDArray[np.uint8]) -> FloatArray:
    """Return linear light of an 8-bit sRGB photograph, cropped to a size that a raw can have."""
    height, width = photo.shape[0] // 2 * 2, photo.shape[1] // 4 * 4
    return decode_srgb(np.ascontiguousarray(photo[:height, :width], np.float32) / np.float32(255))
