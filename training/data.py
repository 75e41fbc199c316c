"""Synthetic training data: photographs given a procedural depth and seen by a dual-pixel camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ldp.blur.disparity import DisparityEstimator
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import ViewPair
from training.optics import Array, KernelShape
from training.render import RenderedPair, Surface, render

POOL_BYTES = 3_200_000_000
"""Memory that a worker spends on rendered scenes; one of 256 px takes 1.3 MB."""
POOL_START = 64
"""Scenes in the pool before any is used twice."""
ESTIMATOR = DisparityEstimator(search_share=0.04, field_falloff=0.0)
"""For a scene that is cut out of a larger photo and rendered without the lens's falloff."""
ESTIMATED_SHARE = 0.6
"""Share of the examples with the estimator's blur map; the others have a spoilt true one, so that
the network does not come to lean on one estimator."""
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}


Photo = npt.NDArray[np.uint8]
Scene = tuple[npt.NDArray[np.float16], ...]
"""Left, right, sharp in linear light, (H, W, 3), and disparity_px and the estimator's blur amount,
(H, W), of a square scene."""


@dataclass(frozen=True)
class SceneSettings:
    """How the scenes are drawn.

    radius_px: the largest radius of a circle of confusion.
    in_focus_share: share of the scenes that are sharp all over.
    """

    side_px: int = 256
    radius_px: float = 12.0
    in_focus_share: float = 0.06


def read_photos(folder: Path) -> list[Photo]:
    """Every photograph below a folder, each (H, W, 3) uint8 RGB, sRGB-encoded, in sorted order.

    Raises ValueError for an unreadable one, and where there are none.
    """
    photos: list[Photo] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES):
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ValueError(f"{path}: not a readable picture; repair or remove it")
        photos.append(np.ascontiguousarray(bgr[..., ::-1], np.uint8))
    if not photos:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ValueError(f"{folder}: no photographs; expected a folder with {known} files")
    return photos


def draw_scene(
    rng: np.random.Generator, photos: Sequence[Photo], settings: SceneSettings
) -> RenderedPair:
    """One random scene as a dual-pixel camera sees it, linear light, without noise."""
    side = settings.side_px
    shape = draw_kernel_shape(rng)
    reach = settings.radius_px * rng.uniform(0.05, 1.0)
    if rng.random() < settings.in_focus_share:
        reach = rng.uniform(0.0, 0.4)
    background = Surface(
        _texture(rng, photos, side),
        np.ones((side, side), np.float32),
        _smooth_coc(rng, side, reach),
    )
    surfaces = [background]
    floor = float(background.coc_px.max())
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))):
        alpha = _mask(rng, side)
        coc = _smooth_coc(rng, side, reach)
        # A nearer surface has the larger signed radius; the list is in the order of depth.
        coc = coc + max(0.0, floor - float(coc.min()))
        if float(coc.max()) > settings.radius_px:
            break
        floor = float(coc.max())
        surfaces.append(Surface(_texture(rng, photos, side), alpha, coc))
    return render(surfaces, shape)


def draw_kernel_shape(rng: np.random.Generator) -> KernelShape:
    """A member of the kernel family; the spans cover what two real Canon cameras show."""
    return KernelShape(
        ramp=float(rng.uniform(0.25, 1.9)),
        rim=float(rng.uniform(-0.4, 2.5)),
        rim_order=int(rng.integers(2, 11)),
        softness_px=float(rng.uniform(0.3, 0.9)),
        aspect=float(rng.uniform(0.85, 1.18)),
    )


def add_camera(
    rng: np.random.Generator, left: Array, right: Array, sharp: Array
) -> tuple[Array, Array, Array]:
    """Shading left over from its correction, noise per photodiode, and the camera's rendering.

    Linear light in; sRGB-encoded float32 out, the views with noise, `sharp` without.
    """
    width = left.shape[1]
    ramp = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] * rng.uniform(-0.04, 0.04)
    gain = np.float32(rng.uniform(0.6, 1.25))
    left, right, sharp = left * (1 + ramp) * gain, right * (1 - ramp) * gain, sharp * gain
    if rng.random() < 0.8:
        shot = np.float32(10 ** rng.uniform(-5.0, -2.9))
        read = np.float32(10 ** rng.uniform(-4.0, -2.5))
        left, right = _noisy(rng, left, shot, read), _noisy(rng, right, shot, read)
    gamma = np.float32(rng.uniform(0.85, 1.15))
    contrast = np.float32(rng.uniform(0.0, 0.5))
    left, right, sharp = (_rendered(x, gamma, contrast) for x in (left, right, sharp))
    if rng.random() < 0.3:
        left, right = _dithered(left), _dithered(right)
    return left, right, sharp


def estimated_blur_map(rng: np.random.Generator, pair: RenderedPair) -> Array:
    """The blur map that the estimator makes of a scene as a camera takes it, errors included."""
    left, right, _ = add_camera(rng, pair.left, pair.right, pair.sharp)
    return ESTIMATOR.estimate(ViewPair(left, right)).amount


def draw_blur_map(rng: np.random.Generator, disparity_px: Array) -> Array:
    """The blur map as an imperfect estimator gives it: smeared, mis-scaled, with false patches."""
    side = disparity_px.shape[0]
    found = disparity_px * np.float32(rng.uniform(0.7, 1.3))
    found = found + _field(rng, side, 24) * np.float32(rng.uniform(0, 0.4))
    smeared: Array = np.asarray(cv2.GaussianBlur(found, (0, 0), rng.uniform(1, 8)), np.float32)
    if rng.random() < 0.35:
        wrong = np.clip(_field(rng, side, 16) - 1.0, 0, 1)
        smeared = smeared * (1 - wrong) + wrong * np.float32(rng.normal(0, 3))
    return blur_amount(smeared)


def blur_amount(disparity_px: Array) -> Array:
    """ldp's blur amount of a signed disparity."""
    scale_px = np.float32(DisparityEstimator.disparity_scale_px)
    return np.asarray(-np.expm1(-np.abs(disparity_px) / scale_px), np.float32)


def _texture(rng: np.random.Generator, photos: Sequence[Photo], side: int) -> Array:
    """A random piece of a random photograph, linear light, scaled down at least a little."""
    photo = photos[int(rng.integers(len(photos)))]
    shortest = min(photo.shape[:2])
    take = int(min(shortest, side * rng.uniform(1.15, 2.6)))
    y = int(rng.integers(photo.shape[0] - take + 1))
    x = int(rng.integers(photo.shape[1] - take + 1))
    piece = photo[y : y + take, x : x + take].astype(np.float32) / np.float32(255)
    linear = np.asarray(
        cv2.resize(decode_srgb(piece), (side, side), interpolation=cv2.INTER_AREA), np.float32
    )
    if rng.random() < 0.5:
        linear = linear[:, ::-1]
    if rng.random() < 0.5:
        linear = linear[::-1]
    if rng.random() < 0.2:
        linear = _lettered(rng, np.ascontiguousarray(linear))
    tint = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    return np.ascontiguousarray(np.clip(linear * tint, 0, 1), np.float32)


def _lettered(rng: np.random.Generator, linear: Array) -> Array:
    """Words and frames drawn on a texture: print and signs are what people notice most."""
    side = linear.shape[0]
    drawn = np.zeros((side, side), np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        letters = "".join(
            chr(int(code)) for code in rng.integers(33, 123, int(rng.integers(1, 14)))
        )
        at = (int(rng.integers(-20, side)), int(rng.integers(0, side)))
        size = float(rng.uniform(0.3, 2.2))
        font = int(rng.integers(0, 8))
        cv2.putText(drawn, letters, at, font, size, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
    if rng.random() < 0.4:
        corners = rng.integers(0, side, (2, 2)).tolist()
        thickness = int(rng.integers(1, 5))
        cv2.rectangle(drawn, corners[0], corners[1], 255, thickness, cv2.LINE_AA)
    ink = drawn.astype(np.float32) / 255
    colour = np.float32(rng.uniform(0, 1)) * rng.uniform(0.7, 1, 3).astype(np.float32)
    return np.asarray(linear * (1 - ink[..., None]) + colour * ink[..., None], np.float32)


def _smooth_coc(rng: np.random.Generator, side: int, reach_px: float) -> Array:
    """A plane, a ramp or a gently waved field of signed radii within +-reach_px."""
    centre = rng.uniform(-reach_px, reach_px)
    kind = rng.random()
    if kind < 0.3:
        field = np.zeros((side, side), np.float32)
    elif kind < 0.7:
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
        field = (np.cos(angle) * x + np.sin(angle) * y) / np.float32(np.sqrt(2))
        field = field * np.float32(rng.uniform(0, min(4.0, reach_px)))
    else:
        field = _field(rng, side, 48) * np.float32(rng.uniform(0, min(1.5, reach_px)))
    return np.asarray(np.clip(centre + field, -reach_px, reach_px), np.float32)


def _field(rng: np.random.Generator, side: int, sigma_px: float) -> Array:
    """Smooth random field with a standard deviation of about 1."""
    small = max(2, int(np.ceil(side / sigma_px)) + 1)
    noise = rng.normal(size=(small, small)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def _mask(rng: np.random.Generator, side: int) -> Array:
    """Coverage of an occluder: blobs, polygons or thin lines, with antialiased edges."""
    fine = 2 * side
    mask = np.zeros((fine, fine), np.uint8)
    kind = rng.random()
    if kind < 0.35:
        field = _field(rng, fine, rng.uniform(40, 160))
        mask[field > rng.uniform(0.2, 1.0)] = 255
    elif kind < 0.7:
        for _ in range(int(rng.integers(1, 4))):
            centre = rng.uniform(0, fine, 2)
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            radii = rng.uniform(0.08, 0.5, angles.size) * fine
            points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
            cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    else:
        for _ in range(int(rng.integers(1, 7))):
            ends = rng.uniform(-0.2 * fine, 1.2 * fine, (2, 2)).astype(int)
            thickness = int(rng.integers(2, 26))
            cv2.line(mask, ends[0].tolist(), ends[1].tolist(), 255, thickness)
    small = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def _noisy(rng: np.random.Generator, linear: Array, shot: np.float32, read: np.float32) -> Array:
    deviation = np.sqrt(np.maximum(linear, 0) * shot + read * read)
    return np.asarray(linear + deviation * rng.standard_normal(linear.shape, np.float32))


def _rendered(linear: Array, gamma: np.float32, contrast: np.float32) -> Array:
    """sRGB encoding, then a gamma and an S-curve as picture styles have them; clipped at white."""
    encoded = np.clip(encode_srgb(linear.copy()), 0, 1) ** gamma
    curve = encoded * (1 - encoded) * (encoded - np.float32(0.5)) * 2
    return np.asarray(encoded + contrast * curve, np.float32)


def _dithered(encoded: Array) -> Array:
    """As a 256-colour picture: much of what people have of published pairs went through one."""
    from PIL import Image

    picture = Image.fromarray(np.uint8(np.clip(encoded, 0, 1) * 255 + 0.5))
    return np.asarray(picture.quantize(256).convert("RGB"), np.float32) / np.float32(255)


class SyntheticCrops(IterableDataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Endless crops of rendered scenes: views (6, S, S), blur map (1, S, S), sharp (3, S, S).

    A scene takes longer to render than a step to train, so each worker keeps a pool of scenes,
    draws several crops of each (with new noise, rendering and flips every time) and keeps renewing
    it. The same seed gives the same crops.
    """

    def __init__(self, photos: Path, crop_px: int, seed: int, settings: SceneSettings) -> None:
        self.photos = photos
        self.crop_px = crop_px
        self.seed = seed
        self.settings = settings

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        if worker:
            cv2.setNumThreads(1)
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        photos = read_photos(self.photos)
        pool: list[Scene] = []
        most = max(POOL_START, POOL_BYTES // (self.settings.side_px**2 * 11 * 2))
        while True:
            filling = len(pool) < most
            if len(pool) < POOL_START or rng.random() < (0.15 if filling else 0.03):
                scene = stored(rng, draw_scene(rng, photos, self.settings))
                if filling:
                    pool.append(scene)
                else:
                    pool[int(rng.integers(len(pool)))] = scene
            yield draw_crop(rng, pool[int(rng.integers(len(pool)))], self.crop_px)


def stored(rng: np.random.Generator, pair: RenderedPair) -> Scene:
    """A rendered scene as the pool keeps it, with the estimator's blur map of it."""
    amount = estimated_blur_map(rng, pair)
    planes = (pair.left, pair.right, pair.sharp, pair.disparity_px, amount)
    return tuple(plane.astype(np.float16) for plane in planes)


def draw_crop(
    rng: np.random.Generator, scene: Scene, crop_px: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One training example of a scene: views (6, S, S), blur map (1, S, S), sharp (3, S, S)."""
    side = scene[0].shape[0]
    y, x = rng.integers(0, side - crop_px + 1, 2)
    crop = tuple(plane[y : y + crop_px, x : x + crop_px] for plane in scene)
    if rng.random() < 0.5:
        crop = tuple(plane[::-1] for plane in crop)
    if rng.random() < 0.5:
        crop = mirrored(crop)
    left, right, sharp, disparity, amount = (plane.astype(np.float32) for plane in crop)
    left, right, sharp = add_camera(rng, left, right, sharp)
    if rng.random() >= ESTIMATED_SHARE:
        amount = draw_blur_map(rng, np.ascontiguousarray(disparity))
    views = np.concatenate([left, right], 2).transpose(2, 0, 1)
    return (
        torch.from_numpy(np.ascontiguousarray(views, np.float32)),
        torch.from_numpy(np.ascontiguousarray(amount[None])),
        torch.from_numpy(np.ascontiguousarray(sharp.transpose(2, 0, 1), np.float32)),
    )


def mirrored(scene: Scene) -> Scene:
    """The scene with left and right exchanged.

    In a mirror the left photodiode's view is the right one's. The disparity's sign stays, since
    both the direction and the views change.
    """
    left, right, *others = (plane[:, ::-1] for plane in scene)
    return right, left, *others
