"""Render training scenes: pieces of photos at random depths, as a dual-pixel camera sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ldp.blur.disparity import DisparityEstimator
from ldp.srgb import decode_srgb
from ldp.types import FloatArray, ViewPair
from training.errors import DataError
from training.pictures import PICTURE_SUFFIXES, picture_files, read_grey, read_rgb8
from training.simulator.camera import sample_camera, simulate_camera, single_crop
from training.simulator.layers import depth_surfaces
from training.simulator.layouts import sample_mask, scene_layout, smooth_field
from training.simulator.optics import KernelShape, LensField
from training.simulator.render import RenderedPair, Surface, render

ON_AXIS_SHARE = 0.5
"""Share of the scenes that are seen as in the middle of the frame."""
_RARE_SHARE = 0.1
ESTIMATOR = DisparityEstimator(search_share=0.04, field_falloff=0.0)
"""For a scene that is cut out of a larger photo and rendered without the lens's falloff."""
DISPARITY, AMOUNT = 9, 10
"""Planes of a stored scene, behind camera.LEFT, RIGHT and SHARP in linear light: disparity_px and
the estimator's blur amount."""
DEPTH_ENDING = ".depth.png"

Photo = npt.NDArray[np.uint8]
"""(H, W, 3) RGB, sRGB-encoded; or (H, W, 4) with the inverse depth, 255 nearest."""
StoredScene = npt.NDArray[np.float16]
"""(planes, H, W); what a worker reads is memory-mapped and read-only."""


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are sampled.

    radius_px: the largest radius of a circle of confusion.
    in_focus_share: share of the scenes that are sharp all over.
    fixed_kernel: every scene has KernelShape's defaults rather than a member of the family.
    noise: whether most crops get some.
    rare_radius_px: the largest radius in a tenth of the scenes instead; 0 for the same in all.
    far_share: of the surfaces, those that are put behind the focus plane, beside the ones that are
        there by chance.
    estimates: whether the estimator makes the blur map; else its amount is 0.
    depths: "random", pieces at any depths before each other, or "scene": subjects about in focus on
        a ground before a far background, see training.simulator.layouts. Photos with a depth map
        keep it.
    """

    side_px: int = 256
    radius_px: float = 12.0
    in_focus_share: float = 0.06
    fixed_kernel: bool = False
    noise: bool = True
    rare_radius_px: float = 0.0
    far_share: float = 0.0
    estimates: bool = True
    depths: str = "random"


def read_photos(folder: Path) -> list[Photo]:
    """Read every photo below a folder, in sorted order, NAME.jpg with the depth of NAME.depth.png.

    A depth map is grey, of 8 or 16 bits, in inverse depth (disparity), white nearest, of any size.
    Eight bits of it are kept: a tenth of a pixel of the largest blur.

    Raises DataError for unreadable ones, and where there are none.
    """
    photos: list[Photo] = []
    for path in picture_files(folder):
        if path.name.endswith(DEPTH_ENDING):
            continue
        planes = read_rgb8(path)
        depth_file = path.with_name(path.stem + DEPTH_ENDING)
        if depth_file.exists():
            planes = np.dstack([planes, _read_depth(depth_file, planes.shape[:2])])
        photos.append(planes)
    if not photos:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise DataError(f"{folder}: no photos; expected a folder with {known} files")
    return photos


def _read_depth(path: Path, size: tuple[int, ...]) -> Photo:
    """Read (H, W) inverse depth, scaled to a photo's size."""
    depth = read_grey(path)
    eight_bit = depth if depth.dtype == np.uint8 else depth.astype(np.uint16) >> 8
    # No depths between those at the two sides of an edge.
    whole = cv2.resize(eight_bit, size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(whole, np.uint8)


def sample_scene(
    rng: np.random.Generator, photos: Sequence[Photo], settings: SceneSettings
) -> RenderedPair:
    """Render one random scene, linear light, without noise.

    Photos are sampled evenly: one with a depth map is a scene by itself, one without is the
    background of a scene of pieces at random depths.
    """
    side = settings.side_px
    shape = sample_kernel_shape(rng)
    if settings.fixed_kernel:
        shape = KernelShape()
    radius_px = settings.radius_px
    if settings.rare_radius_px and rng.random() < _RARE_SHARE:
        radius_px = settings.rare_radius_px
    reach = radius_px * rng.uniform(0.05, 1.0)
    if rng.random() < settings.in_focus_share:
        reach = rng.uniform(0.0, 0.4)
    photo = photos[int(rng.integers(len(photos)))]
    if photo.shape[2] == 4:
        return render(_given_depth(rng, photo, side, reach), shape)
    if settings.depths == "scene":
        layout = scene_layout(rng, side, reach)
        return render([Surface(piece_of_photo(rng, photos, side), *part) for part in layout], shape)
    background = Surface(
        piece_of_photo(rng, photos, side),
        np.ones((side, side), np.float32),
        smooth_radius(rng, side, reach, settings.far_share),
    )
    surfaces = [background]
    floor = float(background.coc_px.max())
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))):
        alpha = sample_mask(rng, side)
        coc = smooth_radius(rng, side, reach, settings.far_share)
        # A nearer surface has the larger signed radius; the list is in the order of depth.
        coc = coc + max(0.0, floor - float(coc.min()))
        if float(coc.max()) > radius_px:
            break
        floor = float(coc.max())
        surfaces.append(Surface(piece_of_photo(rng, photos, side), alpha, coc))
    return render(surfaces, shape)


def stored_scene(
    rng: np.random.Generator, pair: RenderedPair, noise: bool = True, estimates: bool = True
) -> StoredScene:
    """Return a rendered scene as crops are cut from it: (11, H, W) float16.

    estimates: whether the estimator makes the blur map; else its amount is 0.
    """
    amount = np.zeros_like(pair.disparity_px)
    if estimates:
        amount = estimated_blur_map(rng, pair, noise)
    light = np.concatenate([pair.left, pair.right, pair.sharp], 2).transpose(2, 0, 1)
    return np.concatenate([light, pair.disparity_px[None], amount[None]]).astype(np.float16)


def estimated_blur_map(
    rng: np.random.Generator, pair: RenderedPair, noise: bool = True
) -> FloatArray:
    """Return the estimator's blur map of a scene as a camera sees it, errors included."""
    light = np.concatenate([pair.left, pair.right, pair.sharp], 2).transpose(2, 0, 1)
    planes = np.concatenate([light, np.zeros_like(light[:1])]).astype(np.float16)
    crop = single_crop(planes, sample_camera(rng, noise), int(rng.integers(2**62)))
    views = simulate_camera(crop, torch.device("cpu"))[0][0].permute(1, 2, 0).numpy()
    return ESTIMATOR.estimate(
        ViewPair(np.ascontiguousarray(views[..., :3]), np.ascontiguousarray(views[..., 3:]))
    ).amount


def sample_kernel_shape(rng: np.random.Generator) -> KernelShape:
    """Sample the kernel family over spans that cover what two real Canon cameras show.

    A scene is a small part of a frame, so the kernel at its middle stands for all of it.
    """
    axis = KernelShape(
        ramp=float(rng.uniform(0.25, 1.9)),
        rim=float(rng.uniform(-0.4, 2.5)),
        rim_order=int(rng.integers(2, 11)),
        softness_px=float(rng.uniform(0.3, 0.9)),
        aspect=float(rng.uniform(0.85, 1.18)),
    )
    if rng.random() < ON_AXIS_SHARE:
        return axis
    lens = LensField(
        axis,
        disparity_loss=float(rng.uniform(0.0, 0.65)),
        shading=float(rng.uniform(-0.8, 0.8)),
        cats_eye=float(rng.uniform(-0.5, 0.5)),
    )
    return lens.shape_at(float(rng.uniform(-1, 1)), float(rng.uniform(-2 / 3, 2 / 3)))


def _given_depth(
    rng: np.random.Generator, photo: Photo, side: int, reach_px: float
) -> list[Surface]:
    """Return surfaces of a piece of a photo with a depth map, in focus at one of its depths."""
    piece = _piece(rng, photo, side)
    linear = _linear(piece[..., :3], side)
    nearness = piece[..., 3].astype(np.float32)
    lowest, highest = float(nearness.min()), float(nearness.max())
    # The radius is proportional to the distance from the focus in inverse depth.
    from_focus = nearness - np.float32(rng.uniform(lowest, highest))
    scale = np.float32(reach_px / max(1.0, float(np.abs(from_focus).max())))
    coc = cv2.resize(from_focus * scale, (side, side), interpolation=cv2.INTER_AREA)
    return depth_surfaces(linear, np.asarray(coc, np.float32))


def piece_of_photo(rng: np.random.Generator, photos: Sequence[Photo], side: int) -> FloatArray:
    """Return a random piece of a random photo, linear light, scaled down at least a little."""
    photo = photos[int(rng.integers(len(photos)))]
    linear = _linear(_piece(rng, photo, side)[..., :3], side)
    if rng.random() < 0.2:
        linear = _lettered(rng, np.ascontiguousarray(linear))
    tint = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    return np.ascontiguousarray(np.clip(linear * tint, 0, 1), np.float32)


def _piece(rng: np.random.Generator, photo: Photo, side: int) -> Photo:
    """Cut a square of a photo, larger than `side` where the photo allows, flipped or not."""
    shortest = min(photo.shape[:2])
    take = int(min(shortest, side * rng.uniform(1.15, 2.6)))
    y = int(rng.integers(photo.shape[0] - take + 1))
    x = int(rng.integers(photo.shape[1] - take + 1))
    piece = photo[y : y + take, x : x + take]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.5:
        piece = piece[::-1]
    return piece


def _linear(piece: Photo, side: int) -> FloatArray:
    """Decode sRGB to linear light and scale to (side, side)."""
    light = decode_srgb(np.ascontiguousarray(piece).astype(np.float32) / np.float32(255))
    return np.asarray(cv2.resize(light, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _lettered(rng: np.random.Generator, linear: FloatArray) -> FloatArray:
    """Put letters and frames on a texture, since print and signs are where errors show most."""
    side = linear.shape[0]
    mask = np.zeros((side, side), np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        letters = "".join(
            chr(int(code)) for code in rng.integers(33, 123, int(rng.integers(1, 14)))
        )
        at = (int(rng.integers(-20, side)), int(rng.integers(0, side)))
        size = float(rng.uniform(0.3, 2.2))
        font = int(rng.integers(0, 8))
        cv2.putText(mask, letters, at, font, size, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
    if rng.random() < 0.4:
        corners = rng.integers(0, side, (2, 2)).tolist()
        thickness = int(rng.integers(1, 5))
        cv2.rectangle(mask, corners[0], corners[1], 255, thickness, cv2.LINE_AA)
    ink = mask.astype(np.float32) / 255
    colour = np.float32(rng.uniform(0, 1)) * rng.uniform(0.7, 1, 3).astype(np.float32)
    return np.asarray(linear * (1 - ink[..., None]) + colour * ink[..., None], np.float32)


def smooth_radius(
    rng: np.random.Generator, side: int, reach_px: float, far_share: float = 0.0
) -> FloatArray:
    """Sample a plane, a ramp or a gently waved field of signed radii within +-reach_px."""
    centre = rng.uniform(-reach_px, reach_px)
    if far_share and rng.random() < far_share:
        centre = -abs(centre)
    kind = rng.random()
    if kind < 0.3:
        field = np.zeros((side, side), np.float32)
    elif kind < 0.7:
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
        field = (np.cos(angle) * x + np.sin(angle) * y) / np.float32(np.sqrt(2))
        field = field * np.float32(rng.uniform(0, min(4.0, reach_px)))
    else:
        field = smooth_field(rng, side, 48) * np.float32(rng.uniform(0, min(1.5, reach_px)))
    return np.asarray(np.clip(centre + field, -reach_px, reach_px), np.float32)
