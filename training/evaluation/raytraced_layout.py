"""Lay out the scenes of the ray-traced test set: what stands where, and the camera's lens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from ldp.srgb import decode_srgb
from ldp.types import FloatArray
from training.errors import DataError
from training.evaluation.raytraced_textures import MADE_UP, SIDE, plain
from training.evaluation.raytracer import AMBIENT, ThinLens
from training.pictures import picture_files, read_rgb8

SEED = 7
RAMP_SLOPES = (0.15, 0.3, 0.5, 0.7, 1.0)
"""Of the scenes in turn: disparities of 0.15 to 0.75 of the radius, as real lenses show."""
FAR_RADII_PX = (2.0, 12.0)
"""Least and largest radius of the blur of what is farthest, in a picture of 768 px."""
MOST_NEAR_PX = 12.0
_ASPECT = 2 / 3
_FIELD_OF_VIEW = 40.0

Texture = Callable[[np.random.Generator], FloatArray]


@dataclass(frozen=True)
class Thing:
    """An object: one of Mitsuba's shapes, with a texture.

    kind: rectangle, cube, sphere or cylinder, all of half the size 1 before `scale`.
    at: the middle, metres to the right, upwards and forwards of the lens. scale: half sizes.
    turn, tilt: degrees about the upright axis, then about the one to the right.
    glossy: whether it reflects the sun, as varnish does. glow: its own light, 0 for none.
    """

    kind: str
    at: tuple[float, float, float]
    scale: tuple[float, float, float]
    texture: FloatArray
    turn: float = 0.0
    tilt: float = 0.0
    glossy: bool = False
    glow: float = 0.0


@dataclass(frozen=True)
class Layout:
    """A scene and its camera. sun: the direction of its light, to the right, up, forwards."""

    lens: ThinLens
    sun: tuple[float, float, float]
    things: tuple[Thing, ...] = field(repr=False)

    def shapes(self, mitsuba: ModuleType) -> dict[str, Any]:
        """Return the scene in the words of raytracer.render_scene."""
        shapes = {
            f"thing{number}": _shape(mitsuba, thing, self.lens.focal_px)
            for number, thing in enumerate(self.things)
        }
        right, up, forwards = self.sun
        irradiance = float(np.pi * (1 - AMBIENT))
        shapes["sun"] = {
            "type": "directional",
            "direction": [-right, up, forwards],
            "irradiance": {"type": "rgb", "value": irradiance},
        }
        return shapes


def sample_layouts(count: int, width: int, photos: Path | None = None) -> dict[str, Layout]:
    """Return scenes by name, the same ones every time.

    width: of the pictures in px; another one changes their scale and nothing in the scenes.
    photos: a folder whose photos are the textures; None for made-up ones.

    Raises DataError for a folder without photos.
    """
    textures: Sequence[Texture] = MADE_UP
    if photos is not None:
        paths = picture_files(photos)
        if not paths:
            raise DataError(f"{photos}: no photos; expected a folder with pictures")
        textures = (partial(_of_photo, paths), plain)
    return {
        f"{number + 1:02d}": sample_layout(
            np.random.default_rng([SEED, number]), number, width, textures
        )
        for number in range(count)
    }


def sample_layout(
    rng: np.random.Generator, number: int, width: int, textures: Sequence[Texture]
) -> Layout:
    """Sample a scene: a floor, a wall far behind, and things between, one of them in focus."""
    focus_m = float(rng.uniform(1.2, 3.5))
    wall_m = focus_m * float(rng.uniform(2, 8))
    reach = np.tan(np.radians(_FIELD_OF_VIEW / 2))
    focal_px = width / 2 / reach
    far_px = float(rng.uniform(*FAR_RADII_PX)) * width / 768
    aperture_m = far_px / focal_px / (1 / focus_m - 1 / wall_m)
    lens = ThinLens(
        width,
        round(width * _ASPECT),
        float(focal_px),
        focus_m,
        float(aperture_m),
        RAMP_SLOPES[number % len(RAMP_SLOPES)],
    )
    # Nothing stands nearer than where the blur is as large as allowed.
    most_near_px = MOST_NEAR_PX * width / 768
    nearest_m = max(0.45 * focus_m, 1 / (1 / focus_m + most_near_px / focal_px / aperture_m))
    floor = -float(rng.uniform(0.25, 0.5)) * focus_m * reach

    def texture() -> FloatArray:
        return textures[int(rng.integers(len(textures)))](rng)

    wall_side = 1.6 * wall_m * reach
    things = [
        Thing("rectangle", (0, floor, wall_m / 2), (wall_side, wall_m, 1), texture(), tilt=90),
        Thing("rectangle", (0, 0, wall_m), (wall_side, wall_side, 1), texture()),
    ]
    depths = [focus_m, focus_m * float(rng.uniform(0.97, 1.05))]
    depths += [float(x) for x in np.exp(rng.uniform(np.log(focus_m), np.log(wall_m * 0.9), 5))]
    if rng.random() < 0.4:
        depths += [
            float(x) for x in rng.uniform(nearest_m, 0.85 * focus_m, int(rng.integers(1, 3)))
        ]
    for depth_m in depths:
        things.append(_standing(rng, depth_m, floor, depth_m * reach, texture()))
    for _ in range(int(rng.integers(0, 7))):
        things.append(_lamp(rng, wall_m, reach))
    sun = (float(rng.uniform(-0.8, 0.8)), -float(rng.uniform(0.5, 1.2)), float(rng.uniform(0.3, 1)))
    return Layout(lens, sun, tuple(things))


def _standing(
    rng: np.random.Generator, depth_m: float, floor: float, reach_m: float, texture: FloatArray
) -> Thing:
    """Sample a thing on the floor; reach_m: half the width that the camera sees at its depth."""
    x = float(rng.uniform(-0.85, 0.85)) * reach_m
    size = float(rng.uniform(0.08, 0.32)) * reach_m
    kind = str(rng.choice(["cube", "sphere", "rectangle", "cylinder", "post"]))
    glossy = bool(rng.random() < 0.3)
    turn, tall = float(rng.uniform(-60, 60)), size * float(rng.uniform(0.7, 2.2))
    if kind == "sphere":
        return Thing(kind, (x, floor + size, depth_m), (size,) * 3, texture, turn, glossy=glossy)
    if kind == "post":
        thin = reach_m * float(rng.uniform(0.006, 0.04))
        scale = (thin, reach_m, thin)
        return Thing("cylinder", (x, floor, depth_m), scale, texture, turn, glossy=glossy)
    return Thing(
        kind,
        (x, floor + tall, depth_m),
        (size, tall, size),
        texture,
        turn,
        tilt=float(rng.uniform(-12, 12)) if kind == "rectangle" else 0.0,
        glossy=glossy,
    )


def _lamp(rng: np.random.Generator, wall_m: float, reach: float) -> Thing:
    """Sample a small light before the wall, several times as bright as white."""
    at = (float(rng.uniform(-0.9, 0.9)), float(rng.uniform(0.1, 0.6)))
    depth_m = wall_m * float(rng.uniform(0.6, 0.95))
    radius_m = depth_m * reach * float(rng.uniform(0.003, 0.012))
    white = np.full((2, 2, 3), 0.8, np.float32)
    place = (at[0] * reach * depth_m, at[1] * reach * depth_m, depth_m)
    return Thing("sphere", place, (radius_m,) * 3, white, glow=float(rng.uniform(4, 20)))


def _shape(mitsuba: ModuleType, thing: Thing, focal_px: float) -> dict[str, Any]:
    """Return Mitsuba's dictionary of a thing."""
    right, up, forwards = thing.at
    # Mitsuba's x is to the left; a rectangle faces forwards before it is turned.
    placed = mitsuba.ScalarTransform4f().translate([-right, up, forwards])
    placed = placed.rotate([0, 1, 0], 180 + thing.turn).rotate([1, 0, 0], -thing.tilt)
    placed = placed.scale(list(thing.scale))
    if thing.kind == "cylinder":
        # Upright, and as high as the others: it goes from 0 to 1 along z.
        placed = placed.rotate([1, 0, 0], -90).translate([0, 0, -1]).scale([1, 1, 2])
    shape: dict[str, Any] = {"type": thing.kind, "to_world": placed}
    if thing.glow:
        emitter = {"type": "rgb", "value": thing.glow}
        # Seen, but no light to the scene: sampling it would add noise.
        shape["emitter"] = {"type": "area", "radiance": emitter, "sampling_weight": 0.0}
        return shape
    # About a texel a pixel.
    pixels = 2 * max(thing.scale[0], thing.scale[1]) * focal_px / max(forwards, 0.3)
    repeats = max(0.25, pixels / SIDE)
    bitmap = {
        "type": "bitmap",
        "bitmap": mitsuba.Bitmap(np.ascontiguousarray(thing.texture)),
        "raw": True,
        "wrap_mode": "mirror",
        "to_uv": mitsuba.ScalarTransform4f().scale([repeats, repeats, 1]),
    }
    material: dict[str, Any] = {"type": "diffuse", "reflectance": bitmap}
    if thing.glossy:
        material = {"type": "roughplastic", "alpha": 0.15, "diffuse_reflectance": bitmap}
    shape["material"] = {"type": "twosided", "inner": material}
    return shape


def _of_photo(paths: Sequence[Path], rng: np.random.Generator) -> FloatArray:
    """Return a square of a photo in linear light, scaled down where it is large."""
    photo = read_rgb8(paths[int(rng.integers(len(paths)))])
    take = min(photo.shape[:2])
    y, x = (int(rng.integers(side - take + 1)) for side in photo.shape[:2])
    light = decode_srgb(photo[y : y + take, x : x + take].astype(np.float32) / np.float32(255))
    scaled = cv2.resize(light, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(scaled, 0.01, 0.95), np.float32)
