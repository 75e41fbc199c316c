"""Render scenes whose outlines the outline network learns, with what a photo's map has of them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

import ldp
from ldp.blur.depth import corrected_map
from ldp.blur.outline_net import COARSE_PLANES, FINE_PLANES
from ldp.blur.outline_planes import OutlinePlanes, outline_planes
from ldp.types import FloatArray, Plane, ViewPair
from training.errors import DataError
from training.evaluation.native_scenes import blob_mask
from training.files import whole_file
from training.pictures import encode_clipped
from training.simulator.layouts import sample_mask, scene_layout, smooth_field
from training.simulator.optics import KernelShape, LensField
from training.simulator.render import RenderedPair, Surface, render
from training.simulator.scenes import (
    Photo,
    piece_of_photo,
    sample_kernel_shape,
    smooth_radius,
)
from training.simulator.textures import drawn_texture, matched_texture

SIDE_PX = 512
RADII_PX = (1.5, 14.0)
"""The largest radius of a scene's blur."""
_LAID_OUT_SHARE = 0.25
_DRAWN_SHARE = 0.25
_MATCHED_SHARE = 0.4
_EVEN_SHARE = 0.1
_LENS_SHARE = 0.15
_PLANES = ("fine", "coarse", "own", "depth")
_DAMAGED = (
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, OSError),
    *(MemoryError, struct.error, zlib.error, zipfile.BadZipFile),
)
_STEPS = 31.75
"""Of a stored plane's values between 0 and 1: eight bits reach from -4 to 4."""


@dataclass(frozen=True)
class OutlineScene:
    """What the network is given of a scene, and what it should find.

    fine, coarse: see ldp.blur.outline_planes.OutlinePlanes, in uint8. own, depth: (h, w) float16,
    of the map and the truth, 0 for the first level and 1 for the last.
    """

    fine: npt.NDArray[np.uint8]
    coarse: npt.NDArray[np.uint8]
    own: npt.NDArray[np.float16]
    depth: npt.NDArray[np.float16]

    def save(self, path: Path) -> None:
        """Write a file of a few MB, which appears when it is complete."""
        planes = {name: getattr(self, name) for name in _PLANES}
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **planes)

    @classmethod
    def load(cls, path: Path) -> OutlineScene:
        """Read what `save` wrote. Raises DataError for all else."""
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                scene = cls(**{name: file[name] for name in _PLANES})
        except _DAMAGED as error:
            raise DataError(
                f"{path}: not a scene, or damaged: {error}; remove it, and it is rendered again"
            ) from error
        height, width = scene.own.shape if scene.own.ndim == 2 else (0, 0)
        shapes = scene.fine.shape, scene.coarse.shape, scene.depth.shape
        half = height // 2, width // 2
        if shapes != ((FINE_PLANES, height, width), (COARSE_PLANES, *half), (height, width)):
            raise DataError(f"{path}: not a scene of this network: its planes have other sizes")
        return scene


def stored_planes(planes: FloatArray) -> npt.NDArray[np.uint8]:
    """Return planes as they are stored."""
    return np.asarray(np.rint(planes * _STEPS + 127.5).clip(0, 255), np.uint8)


def read_planes(stored: npt.NDArray[np.uint8]) -> FloatArray:
    """Return planes as the network is given them."""
    return (stored.astype(np.float32) - np.float32(127.5)) / np.float32(_STEPS)


def make_scene(
    rng: np.random.Generator, photos: Sequence[Photo], model: ldp.Model
) -> OutlineScene | None:
    """Render a scene and let the network restore it; None where its map has one depth alone."""
    pair = _rendered(rng, photos)
    deviation = 0.0 if rng.random() < 0.5 else 10 ** rng.uniform(-3, -1.6)
    left, right = (_photographed(rng, view, deviation) for view in (pair.left, pair.right))
    views = ViewPair(left, right)
    done = model.restore_uint16(views)
    blur_map = corrected_map(done.blur_map, views, model.estimator, done.sharp)
    planes = outline_planes(blur_map, views, done.sharp)
    if planes is None:
        return None
    return OutlineScene(
        stored_planes(planes.fine),
        stored_planes(planes.coarse),
        planes.own.astype(np.float16),
        _share(pair.disparity_px, planes).astype(np.float16),
    )


def _share(disparity_px: Plane, planes: OutlinePlanes) -> Plane:
    span_px = planes.high_px - planes.low_px
    return np.asarray((disparity_px - planes.low_px) / span_px, np.float32)


def _rendered(rng: np.random.Generator, photos: Sequence[Photo]) -> RenderedPair:
    reach_px = float(np.exp(rng.uniform(*np.log(RADII_PX))))
    lens: KernelShape | LensField = sample_kernel_shape(rng)
    if rng.random() < _LENS_SHARE:
        axis = KernelShape(ramp=float(rng.uniform(0.4, 1.8)), rim=float(rng.uniform(0, 2)))
        lens = LensField(axis, disparity_loss=float(rng.uniform(0.2, 0.6)))
    if rng.random() < _LAID_OUT_SHARE:
        parts = scene_layout(rng, SIDE_PX, reach_px)
        return render([Surface(_texture(rng, photos), *part) for part in parts], lens)
    depths_px = _depths_px(rng, reach_px)
    least_gap_px = min(after - before for before, after in pairwise(depths_px))
    surfaces: list[Surface] = []
    floor_px = -np.inf
    for depth_px in depths_px:
        coc_px = np.full((SIDE_PX, SIDE_PX), depth_px, np.float32)
        if rng.random() < 0.5:
            slope = smooth_radius(rng, SIDE_PX, 1.0)
            coc_px += (slope - slope.mean()) * np.float32(0.3 * max(least_gap_px, 0.2))
        coc_px += np.float32(max(0.0, floor_px - float(coc_px.min())))
        floor_px = float(coc_px.max())
        colour, alpha = _texture(rng, photos), np.ones_like(coc_px)
        if surfaces:
            colour, alpha = _in_front(rng, colour, surfaces[0].colour), _mask(rng)
        surfaces.append(Surface(colour, alpha, coc_px))
    return render(surfaces, lens)


def _depths_px(rng: np.random.Generator, reach_px: float) -> list[float]:
    """Sample the radii of two to four depths, rising; half of the scenes have one in focus."""
    depths = np.sort(rng.uniform(-1, 1, 1 + int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))))
    focus = rng.random()
    if focus < 0.5:
        depths -= depths[0] if focus < 0.3 else depths[-1]
    scaled: list[float] = (depths * (reach_px / max(np.abs(depths).max(), 1e-3))).tolist()
    return scaled


def _texture(rng: np.random.Generator, photos: Sequence[Photo]) -> FloatArray:
    if rng.random() < _DRAWN_SHARE:
        return drawn_texture(rng, SIDE_PX)
    return piece_of_photo(rng, photos, SIDE_PX)


def _in_front(rng: np.random.Generator, colour: FloatArray, behind: FloatArray) -> FloatArray:
    """Make a texture that is like what is behind it, or even, or leave it."""
    kind = rng.random()
    if kind < _MATCHED_SHARE:
        return matched_texture(rng, colour, behind)
    if kind < _MATCHED_SHARE + _EVEN_SHARE:
        return np.asarray(cv2.GaussianBlur(colour, (0, 0), rng.uniform(5, 60)), np.float32)
    return colour


def _mask(rng: np.random.Generator) -> FloatArray:
    """Sample the coverage of what is in front: bodies, a half plane, thin things."""
    kind = rng.random()
    if kind < 0.5:
        grid = int(rng.integers(3, 9)), int(rng.integers(3, 9))
        return blob_mask((SIDE_PX, SIDE_PX), rng, grid, float(rng.uniform(0.55, 0.9)))
    if kind < 0.6:
        y, x = np.mgrid[-1 : 1 : SIDE_PX * 1j, -1 : 1 : SIDE_PX * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        across = (np.cos(angle) * x + np.sin(angle) * y - rng.uniform(-0.5, 0.5)) * SIDE_PX / 2
        across += smooth_field(rng, SIDE_PX, rng.uniform(5, 60)) * rng.uniform(0, 8)
        return np.asarray(np.clip(across + 0.5, 0, 1), np.float32)
    return sample_mask(rng, SIDE_PX)


def _photographed(
    rng: np.random.Generator, view: FloatArray, deviation: float
) -> npt.NDArray[np.uint16]:
    """Encode a view and add noise, white at 1."""
    noise = np.float32(deviation) * rng.standard_normal(view.shape, np.float32)
    encoded = (encode_clipped(view) + noise).clip(0, 1)
    return np.asarray(np.rint(encoded * 65535), np.uint16)
