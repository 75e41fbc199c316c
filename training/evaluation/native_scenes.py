"""Scenes at a camera's own resolution, to judge what `--scale` does.

The optics here are written apart from training.simulator on purpose: an iris with blades, and a
dual pixel whose photodiodes divide the aperture by a soft step, so that a network trained on the
simulator's kernels meets others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ldp.srgb import decode_srgb
from ldp.types import FloatArray, ViewPair
from training.pictures import encode_clipped

Photo = npt.NDArray[np.uint8]

SEED = 7_041_776
HELD_OUT_SEED = 90_210_463
FRAME = (4000, 6000)
"""(H, W) of the frames that held-out scenes are parts of: the size of their outlines."""
STEP_WIDTH = 0.3
"""Width of the soft step between the photodiodes' halves, in radii."""
SOFTNESS_PX = 0.5
"""Standard deviation of what lens and demosaic blur in focus too."""
ELECTRONS_AT_WHITE = 15_000
READ_NOISE_ELECTRONS = 3.0
_FINE = 4


@dataclass(frozen=True)
class NativeScene:
    """A scene's layers from the farthest to the nearest.

    radii_px: signed radius of each layer's blur, near of the focus positive. ratio: disparity of
    the views over the radius.
    """

    name: str
    radii_px: tuple[float, ...]
    ratio: float
    held_out: bool = False
    """Whether its seed and outlines are those of the held-out set."""

    @property
    def mixed(self) -> bool:
        """Whether it has more than one depth."""
        return len(self.radii_px) > 1


@dataclass(frozen=True)
class NativePair:
    """views: float32 sRGB-encoded with noise. truth: (H, W, 3) float32 sRGB-encoded, what the lens
    shows in focus. radius_px, disparity_px: (H, W) float32, signed."""

    views: ViewPair
    truth: FloatArray
    radius_px: FloatArray
    disparity_px: FloatArray


def standard_scenes() -> list[NativeScene]:
    """One depth at four radii, and mixed depths, each at both ratios of disparity to radius."""
    mixed = ((-20.0, 0.0, 6.7), (0.0, 12.0, 45.0), (-80.0, -20.0, 0.0))
    scenes = []
    for ratio in (0.15, 0.6):
        for number, radius in enumerate((5.0, 20.0, 45.0, 80.0)):
            signed = radius if number % 2 else -radius
            scenes.append(NativeScene(f"r{radius:.0f}-{ratio:g}", (signed,), ratio))
        for radii in mixed:
            name = "mixed" + "".join(f"{radius:+.0f}" for radius in radii)
            scenes.append(NativeScene(f"{name}-{ratio:g}", radii, ratio))
    return scenes


def held_out_scenes() -> list[NativeScene]:
    """Scenes that no constant was chosen by: the same radii, other mixed depths and outlines."""
    mixed = ((-45.0, 0.0, 20.0), (-20.0, -5.0, 9.0), (0.0, 30.0, 80.0), (-80.0, 0.0, 5.0))
    scenes = []
    for ratio in (0.15, 0.6):
        for number, radius in enumerate((5.0, 20.0, 45.0, 80.0)):
            signed = -radius if number % 2 else radius
            scenes.append(NativeScene(f"r{radius:.0f}-{ratio:g}", (signed,), ratio, True))
    for number, radii in enumerate(mixed):
        ratio = (0.15, 0.6)[number % 2]
        name = "mixed" + "".join(f"{radius:+.0f}" for radius in radii)
        scenes.append(NativeScene(f"{name}-{ratio:g}", radii, ratio, True))
    return scenes


def make_pair(
    scene: NativeScene, photos: Sequence[Photo], size: tuple[int, int], number: int
) -> NativePair:
    """Renders a scene of `size` (H, W) from photographs that are sharp at every pixel; number
    seeds it. Each layer is a mosaic of photographs, so that it is sharp however large it is."""
    rng = np.random.default_rng([HELD_OUT_SEED if scene.held_out else SEED, number])
    outlined = _wavy if scene.held_out else blob_mask
    height, width = size
    blades = int(rng.integers(6, 10))
    left = np.zeros((height, width, 3), np.float32)
    right, sharp = left.copy(), left.copy()
    radius_map = np.zeros((height, width), np.float32)
    for layer, radius in enumerate(scene.radii_px):
        colour = mosaic_of(photos, size, rng)
        alpha = outlined(size, rng) if layer else np.ones(size, np.float32)
        light = np.dstack([colour * alpha[..., None], alpha])
        for view, kernel in zip(
            (left, right), iris_kernels(radius, scene.ratio, blades), strict=True
        ):
            seen = convolved(light, kernel)
            view *= 1 - seen[..., 3:]
            view += seen[..., :3]
        focused = convolved(light, iris_kernels(0.0, scene.ratio, blades)[0])
        sharp = sharp * (1 - focused[..., 3:]) + focused[..., :3]
        radius_map[alpha > 0.5] = radius
    views = ViewPair(_photographed(left, rng), _photographed(right, rng))
    disparity_px = radius_map * np.float32(scene.ratio)
    return NativePair(views, encode_clipped(sharp), radius_map, disparity_px)


def iris_kernels(radius_px: float, ratio: float, blades: int) -> tuple[FloatArray, FloatArray]:
    """The kernels of the left and the right view, (k, k) with odd k, each summing to 1.

    The aperture is halfway between a disk and a polygon of `blades` sides, a little brighter in
    rings. ratio: the distance of the two centroids over the radius, 0.1 to 0.7.
    """
    radius = max(abs(radius_px), 0.25)
    reach = int(np.ceil(radius + 3 * SOFTNESS_PX)) + 1
    side = _FINE * (2 * reach + 1)
    axis = ((np.arange(side) + 0.5) / _FINE - reach - 0.5) / radius
    x, y = axis[None, :], axis[:, None]
    rho, angle = np.hypot(x, y), np.arctan2(y, x)
    sector = 2 * np.pi / blades
    polygon = np.cos(sector / 2) / np.cos((angle + 0.4) % sector - sector / 2)
    aperture = (rho <= 0.5 + 0.5 * polygon) * (1 + 0.08 * np.cos(9 * rho * np.pi))
    step = np.broadcast_to(1 / (1 + np.exp(-x / (STEP_WIDTH / 4))), aperture.shape)
    x = np.broadcast_to(x, aperture.shape)

    def distance(leak: float) -> float:
        seen_left = aperture * (leak + (1 - 2 * leak) * step)
        seen_right = aperture - seen_left
        return float(
            (seen_left * x).sum() / seen_left.sum() - (seen_right * x).sum() / seen_right.sum()
        )

    # The distance falls as light leaks to the other photodiode.
    low, high = 0.0, 0.5
    for _ in range(30):
        leak = (low + high) / 2
        low, high = (leak, high) if distance(leak) > ratio else (low, leak)
    seen_left = aperture * (low + (1 - 2 * low) * step)
    kernels = []
    for fine in (seen_left, aperture - seen_left):
        coarse = fine.reshape(2 * reach + 1, _FINE, 2 * reach + 1, _FINE).sum((1, 3))
        if radius_px < 0:
            coarse = coarse[::-1, ::-1]
        soft = cv2.GaussianBlur(coarse, (0, 0), SOFTNESS_PX, borderType=cv2.BORDER_CONSTANT)
        kernels.append(np.ascontiguousarray(soft / soft.sum(), np.float32))
    return kernels[0], kernels[1]


def convolved(picture: FloatArray, kernel: FloatArray) -> FloatArray:
    """The picture convolved with the kernel, mirrored at its border."""
    flipped = np.ascontiguousarray(kernel[::-1, ::-1])
    planes = [
        cv2.filter2D(
            np.ascontiguousarray(plane), cv2.CV_32F, flipped, borderType=cv2.BORDER_REFLECT
        )
        for plane in np.moveaxis(picture, 2, 0)
    ]
    return np.asarray(np.dstack(planes), np.float32)


def mosaic_of(
    photos: Sequence[Photo], size: tuple[int, int], rng: np.random.Generator
) -> FloatArray:
    """Photographs side by side in random order and flips, (H, W, 3) linear light."""
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    top = 0
    while top < height:
        left, row_height = 0, min(photo.shape[0] for photo in photos)
        while left < width:
            photo = photos[int(rng.integers(len(photos)))][..., :3]
            photo = photo[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
            part = photo[: min(row_height, height - top), : width - left]
            picture[top : top + part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1]
        top += row_height
    return decode_srgb(picture.astype(np.float32) / np.float32(255))


def shrunk(photos: Sequence[Photo], factor: float) -> list[Photo]:
    """Photographs made sharp at every pixel by scaling them down, 1 or less."""
    if factor == 1:
        return list(photos)
    return [
        np.asarray(
            cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
        )
        for photo in photos
    ]


def blob_mask(
    size: tuple[int, int],
    rng: np.random.Generator,
    bump_grid: tuple[int, int] = (4, 6),
    empty_share: float = 0.64,
) -> FloatArray:
    """Sample a coverage of `size` (H, W) with smooth antialiased outlines.

    bump_grid: rows and columns of the random heights between which the outlines run. empty_share:
        of the picture, what is not covered.
    """
    height, width = size
    bumps = cv2.resize(
        rng.normal(size=bump_grid), (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC
    )
    mask = (bumps > np.quantile(bumps, empty_share)).astype(np.float32)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _wavy(size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Coverage of about two fifths of a part of FRAME: large bodies with finer waves along them."""
    height, width = size
    y, x = np.ogrid[:height, :width]
    field = np.zeros(size, np.float32)
    for share, strength in ((0.5, 1.0), (0.23, 0.5), (0.04, 0.06), (0.012, 0.015)):
        for _ in range(2):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            waves = 2 * np.pi / (share * max(FRAME))
            along = np.cos(angle) * x + np.sin(angle) * y
            field += np.float32(strength) * np.sin(waves * along + phase).astype(np.float32)
    field -= np.quantile(field[::4, ::4], 0.6)
    slope = np.hypot(*np.gradient(field))
    return np.asarray(np.clip(field / np.maximum(slope, 1e-6) + 0.5, 0, 1), np.float32)


def _photographed(linear: FloatArray, rng: np.random.Generator) -> FloatArray:
    electrons = np.maximum(linear, 0) * ELECTRONS_AT_WHITE
    deviation = np.sqrt(electrons + READ_NOISE_ELECTRONS**2)
    noisy = electrons + deviation * rng.standard_normal(linear.shape, np.float32)
    return encode_clipped(np.asarray(noisy / ELECTRONS_AT_WHITE, np.float32))
