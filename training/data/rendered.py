"""Cut training crops from rendered scenes, each a function of the seed and the step."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ldp import srgb
from ldp.blur import disparity, matching
from ldp.blur import filling as guided_filling
from ldp.blur.disparity import DisparityEstimator
from ldp.types import FloatArray
from training.data.cache import PoolSettings, SceneCache, ScenePool
from training.settings import TrainSettings
from training.simulator import camera, layers, layouts, optics, render, scenes
from training.simulator import filling as hole_filling
from training.simulator.camera import (
    LinearCrops,
    collate,
    sample_camera,
    simulate_camera,
    single_crop,
)
from training.simulator.composite import simulate_composite
from training.simulator.layouts import smooth_field
from training.simulator.scenes import (
    AMOUNT,
    DISPARITY,
    ESTIMATOR,
    Photo,
    SceneSettings,
    StoredScene,
    sample_scene,
    stored_scene,
)

ESTIMATED_SHARE = 0.6
"""Share of the examples with the estimator's blur map; the others have a distorted true one, so
that the network does not depend on the errors of one estimator."""
# Random values of each kind come from generators of their own, seeded with these.
_OF_SCENES, _OF_CROPS, _OF_VALIDATION, _OF_SIZES = 1, 2, 3, 4

_SCENE_MODULES = (
    scenes,
    layouts,
    layers,
    hole_filling,
    render,
    optics,
    camera,
    disparity,
    matching,
    guided_filling,
    srgb,
)
"""Modules that a stored scene depends on."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Views (B, 6, S, S), the planes of the blur map that the network reads (B, 1 or 2, S, S), the
amount first, and sharp pictures (B, 3, S, S); float32, sRGB-encoded. For one view: composites
(B, 3, S, S), noise levels (B, 1, S, S) and sharp pictures."""
HalfPlanes = npt.NDArray[np.float16]
"""(planes, h, w), cut out of a StoredScene."""


@dataclass(frozen=True)
class CropSettings:
    """Which crops are cut: a function of these, the stage, the step and the index in the batch.

    batch: crops of crop_px a step. mosaic_share, noise_stops, jpeg_share: see camera.sample_camera.
    sizes_px: sides of which each step takes one, with as many crops as have about the same pixels;
    none: always crop_px. views: 2, or 1 for the composite.
    """

    seed: int
    crop_px: int
    batch: int
    scenes: SceneSettings
    pool: PoolSettings = field(default_factory=PoolSettings)
    mosaic_share: float = 0.0
    sizes_px: tuple[int, ...] = ()
    noise_stops: float = 0.0
    jpeg_share: float = 0.0
    views: int = 2

    def simulate(self, crops: LinearCrops, device: torch.device) -> Batch:
        """Return what a camera makes of crops in linear light, on the device."""
        return (simulate_composite if self.views == 1 else simulate_camera)(crops, device)

    def at(self, stage: int, step: int) -> CropSettings:
        """Return the settings of a step, with its own size and number of crops."""
        if not self.sizes_px:
            return self
        rng = np.random.default_rng([_OF_SIZES, self.seed, stage, step])
        return replace(self, crop_px=int(rng.choice(self.sizes_px)), sizes_px=())

    def part(self, passes: int, whole: CropSettings) -> int:
        """Return the crops of one of `passes`, of which `whole` has batch / passes."""
        pixels = whole.batch // passes * (whole.crop_px / self.crop_px) ** 2
        return max(1, round(pixels))


def crop_settings(settings: TrainSettings) -> CropSettings:
    """Return what a recipe says about rendered pairs. A scene holds four of the largest crops."""
    scenes = SceneSettings(
        side_px=2 * max(settings.crop_px, *settings.crop_sizes_px, 0),
        radius_px=settings.radius_px,
        fixed_kernel=settings.kernels == "fixed",
        noise=settings.noise,
        in_focus_share=settings.in_focus_share,
        rare_radius_px=settings.rare_radius_px,
        far_share=settings.far_share,
        estimates=settings.views == 2,
        depths=settings.depths,
    )
    pool = PoolSettings(settings.start_scenes, settings.pool_scenes, settings.scene_every)
    return CropSettings(
        settings.seed,
        settings.crop_px,
        settings.batch,
        scenes,
        pool,
        settings.mosaic_share,
        settings.crop_sizes_px,
        settings.noise_stops,
        settings.jpeg_share,
        settings.views,
    )


@dataclass(frozen=True)
class BatchRange:
    """The batches of one process: from a step of a stage on, of `accumulate` passes a step.

    rank, processes: which process of how many that share every pass.
    """

    stage: int = 0
    step: int = 0
    steps: int = 2**62
    accumulate: int = 1
    rank: int = 0
    processes: int = 1


def synthetic_batches(
    photos: Sequence[Photo],
    settings: CropSettings,
    share: BatchRange,
    cache: Path,
    workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield the batches of camera.simulate_camera, the same bits on one device for any workers.

    cache: folder for rendered scenes, the same one for all processes. workers: processes that cut
    the crops and render scenes ahead; 0: this one does both when a crop needs it.
    """
    # The camera runs on a GPU; without one, in the workers, beside the training's cores.
    on_gpu = device.type == "cuda"
    crops = SyntheticCrops(photos, settings, share, cache, None if on_gpu else device)
    if workers:
        # Here, not in the workers: a forked process waits for ever for OpenCV's threads, which
        # stayed behind in this one.
        cv2.setNumThreads(1)
    loader = DataLoader(
        crops,
        batch_size=None,
        num_workers=workers,
        pin_memory=on_gpu,
    )
    for batch in loader:
        yield settings.simulate(batch, device) if on_gpu else batch


def validation_pairs(
    photos: Sequence[Photo], settings: CropSettings, count: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return fixed examples to validate on: views (6, S, S), blur map (1, S, S), sharp (3, S, S).

    They depend on the photos and on settings.crop_px and .scenes alone, not on the seed; each
    is a scene of its own, with the estimator's blur map, on the CPU.
    """
    own = replace(settings.scenes, side_px=settings.crop_px)
    pairs = []
    for number in range(count):
        rng = np.random.default_rng([_OF_VALIDATION, number])
        scene = stored_scene(rng, sample_scene(rng, photos, own), own.noise, own.estimates)
        planes = np.concatenate([scene[:DISPARITY], scene[AMOUNT:]])
        crops = collate([_with_camera(rng, planes, settings)])
        views, amount, sharp = settings.simulate(crops, torch.device("cpu"))
        pairs.append((views[0], amount[0], sharp[0]))
    return pairs


class SyntheticCrops(IterableDataset[LinearCrops | Batch]):
    """The batches of synthetic_batches; a worker makes every workers-th of them.

    device: where the camera is simulated; None leaves that to the caller.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        settings: CropSettings,
        share: BatchRange,
        cache: Path,
        device: torch.device | None,
    ) -> None:
        self.settings, self.share, self.device = settings, share, device
        folder = cache / f"scenes-{_identity(photos, settings)}"
        render_scene = partial(numbered_scene, photos, settings)
        self.cache = SceneCache(folder, render_scene)

    def __iter__(self) -> Iterator[LinearCrops | Batch]:
        settings, share = self.settings, self.share
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        pool = ScenePool(
            self.cache,
            settings.pool,
            mine + workers * share.rank,
            workers * share.processes,
            alone=worker is None,
        )
        for step in range(share.step, share.steps):
            own = settings.at(share.stage, step)
            part = own.part(share.accumulate * share.processes, settings)
            for turn in range(share.accumulate):
                if ((step - share.step) * share.accumulate + turn) % workers != mine:
                    continue
                numbers = pool.advance(step)
                first = (turn * share.processes + share.rank) * part
                batch = collate(
                    [
                        numbered_crop(pool, numbers, own, (share.stage, step, first + index))
                        for index in range(part)
                    ]
                )
                yield batch if self.device is None else settings.simulate(batch, self.device)


def numbered_scene(photos: Sequence[Photo], settings: CropSettings, number: int) -> StoredScene:
    """Render the scene of a number: the same bits every time."""
    rng = np.random.default_rng([_OF_SCENES, settings.seed, number])
    scenes = settings.scenes
    return stored_scene(rng, sample_scene(rng, photos, scenes), scenes.noise, scenes.estimates)


def numbered_crop(
    pool: ScenePool, numbers: range, settings: CropSettings, index: tuple[int, int, int]
) -> LinearCrops:
    """Cut the crop of a (stage, step, index in the batch) out of the pool's scenes."""
    rng = np.random.default_rng([_OF_CROPS, settings.seed, *index])
    scene = pool.scene(int(rng.integers(numbers.start, numbers.stop)))
    return _with_camera(rng, cut(rng, scene, settings.crop_px), settings)


def cut(rng: np.random.Generator, scene: StoredScene, crop_px: int) -> HalfPlanes:
    """Cut a random crop of a scene, flipped or not: (10, S, S), left, right, sharp, blur amount."""
    side = scene.shape[1]
    y, x = rng.integers(0, side - crop_px + 1, 2)
    crop = np.ascontiguousarray(scene[:, y : y + crop_px, x : x + crop_px])
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.5:
        crop = mirrored(crop)
    planes = np.delete(crop, DISPARITY, 0)
    if rng.random() >= ESTIMATED_SHARE:
        planes[-1] = sample_blur_map(rng, crop[DISPARITY].astype(np.float32))
    return planes


def mirrored(scene: StoredScene) -> StoredScene:
    """Return the mirror image of a scene.

    In a mirror the left photodiode's view is the right one's. The disparity's sign stays, since
    both the direction and the views change.
    """
    left, right, others = scene[camera.LEFT], scene[camera.RIGHT], scene[camera.SHARP.start :]
    return np.concatenate([right, left, others])[:, :, ::-1]


def sample_blur_map(rng: np.random.Generator, disparity_px: FloatArray) -> FloatArray:
    """Return a blur map with an estimator's errors: smoothed, mis-scaled, with false patches."""
    side = disparity_px.shape[0]
    found = disparity_px * np.float32(rng.uniform(0.7, 1.3))
    found = found + smooth_field(rng, side, 24) * np.float32(rng.uniform(0, 0.4))
    smeared: FloatArray = np.asarray(cv2.GaussianBlur(found, (0, 0), rng.uniform(1, 8)), np.float32)
    if rng.random() < 0.35:
        wrong = np.clip(smooth_field(rng, side, 16) - 1.0, 0, 1)
        smeared = smeared * (1 - wrong) + wrong * np.float32(rng.normal(0, 3))
    return blur_amount(smeared)


def blur_amount(disparity_px: FloatArray) -> FloatArray:
    """Return ldp's blur amount of a signed disparity."""
    scale_px = np.float32(DisparityEstimator.disparity_scale_px)
    return np.asarray(-np.expm1(-np.abs(disparity_px) / scale_px), np.float32)


def _with_camera(
    rng: np.random.Generator, planes: HalfPlanes, settings: CropSettings
) -> LinearCrops:
    sampled = sample_camera(
        rng,
        settings.scenes.noise,
        settings.mosaic_share,
        noise_stops=settings.noise_stops,
        jpeg_share=settings.jpeg_share,
    )
    return single_crop(planes, sampled, int(rng.integers(2**62)))


def _identity(photos: Sequence[Photo], settings: CropSettings) -> str:
    """Return text that changes when the scenes do: by the photos, the settings or the code."""
    known = hashlib.sha256(f"{settings.seed} {settings.scenes} {ESTIMATOR}".encode())
    for photo in photos:
        known.update(f"{photo.shape}".encode())
        known.update(photo[::16, ::16].tobytes())
    for module in _SCENE_MODULES:
        # Comments and layout change no scene.
        known.update(ast.dump(ast.parse(inspect.getsource(module))).encode())
    return known.hexdigest()[:16]
