"""Batch sources: what a stage of training is given, step after step, from photos or from DPDD."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from ldp.blur.clip_dense import DP_FORMATS, ClipEstimator
from ldp.blur.clip_model import clip_weights_file
from ldp.blur.estimator import BlurEstimator
from ldp.blur.learned import WEIGHTS
from ldp.blur.loading import load_estimator
from training.data.dpdd import DpddCrops, PreparedScene, Scene, find_scenes, identity, prepare
from training.data.rendered import Batch, BatchRange, crop_settings, synthetic_batches
from training.data.single import CombinedCrops, find_single_scenes
from training.processes import Processes
from training.settings import TrainSettings
from training.simulator.scenes import Photo

BatchSource = Callable[[TrainSettings, int, int, Processes], Iterable[Batch]]
"""(settings, stage, step, processes) -> this process's batches from that step on, `accumulate` of
them a step."""

ENDLESS = 2**62
_REPORT_EVERY = 10


@dataclass(frozen=True)
class RenderedSource:
    """Batches rendered from photos; they depend on nothing but the photos and the settings.

    endless: whether they go on after the stage's steps, where a time budget ends it.
    """

    photos: Sequence[Photo]
    cache: Path
    endless: bool = False

    def __call__(
        self, settings: TrainSettings, stage: int, step: int, processes: Processes
    ) -> Iterator[Batch]:
        """Return the batches of a BatchSource."""
        share = BatchRange(
            stage,
            step,
            ENDLESS if self.endless else settings.steps,
            accumulate=settings.accumulate,
            rank=processes.rank,
            processes=processes.count,
        )
        return synthetic_batches(
            self.photos,
            crop_settings(settings),
            share,
            self.cache,
            settings.workers,
            processes.device,
        )


@dataclass(frozen=True)
class DpddSource:
    """Batches of DPDD; they depend on nothing but the scenes and the settings.

    endless: whether they go on after the stage's steps, where a time budget ends it.
    """

    scenes: Sequence[PreparedScene]
    endless: bool = False

    def __call__(
        self, settings: TrainSettings, stage: int, step: int, processes: Processes
    ) -> DataLoader[Batch]:
        """Return the batches of a BatchSource."""
        seed = (settings.seed, stage)
        crops = DpddCrops(self.scenes, settings.patch_px, settings.crop_px, seed)
        return _loader(crops, settings, step, processes, self.endless)


@dataclass(frozen=True)
class CombinedSource:
    """Batches of single pictures; they depend on nothing but the scenes and the settings.

    endless: whether they go on after the stage's steps, where a time budget ends it.
    """

    scenes: Sequence[Scene]
    endless: bool = False

    def __call__(
        self, settings: TrainSettings, stage: int, step: int, processes: Processes
    ) -> DataLoader[Batch]:
        """Return the batches of a BatchSource."""
        crops = CombinedCrops(self.scenes, settings.crop_px, (settings.seed, stage))
        return _loader(crops, settings, step, processes, self.endless)


def combined_dpdd(folder: Path, *, endless: bool = False) -> CombinedSource:
    """Return batches of DPDD's combined photos, or of another set of single pictures.

    Raises DataError for a folder that cannot be used.
    """
    return CombinedSource(find_single_scenes(folder, "train"), endless)


def _loader(
    crops: Dataset[Batch], settings: TrainSettings, step: int, processes: Processes, endless: bool
) -> DataLoader[Batch]:
    """Return the batches of crops from a step on, whose position tells what is sampled."""
    return DataLoader(
        crops,
        batch_sampler=_positions(
            settings, range(step, ENDLESS if endless else settings.steps), processes
        ),
        num_workers=settings.workers,
        pin_memory=processes.device.type == "cuda",
    )


def _positions(settings: TrainSettings, steps: range, processes: Processes) -> Iterator[list[int]]:
    """Yield the crops of each pass, the same for any number of passes and processes a step."""
    part = settings.batch // (settings.accumulate * processes.count)
    for current in steps:
        for turn in range(settings.accumulate):
            first = current * settings.batch + (turn * processes.count + processes.rank) * part
            yield list(range(first, first + part))


def prepared_dpdd(
    settings: TrainSettings,
    folder: Path,
    cache: Path,
    clip: ClipEstimator | None,
    processes: Processes,
    *,
    endless: bool = False,
) -> DpddSource:
    """Read DPDD into `cache`, each process its share, and return its batches.

    Raises DataError for a folder or a scene that cannot be used.
    """
    scenes = find_scenes(folder)
    _prepare(settings, scenes[processes.rank :: processes.count], cache, clip, processes.first)
    processes.wait()
    # All find everything done.
    return DpddSource(_prepare(settings, scenes, cache, clip, reports=False), endless)


def _prepare(
    settings: TrainSettings,
    scenes: Sequence[Scene],
    cache: Path,
    clip: ClipEstimator | None,
    reports: bool,
) -> list[PreparedScene]:
    """Prepare scenes in turn; reports: whether the progress is printed."""
    estimator: BlurEstimator
    if settings.blur == "clip" and clip is not None:
        weights = identity(clip_weights_file(settings.clip_network, settings.clip_weights))
        estimator = clip
        estimator_id = f"{settings.clip_network} {weights} {clip.read_pixels} {clip.least_contrast}"
        if settings.prompts or settings.dp_format != DP_FORMATS[0]:
            estimator_id += f" {sorted(settings.prompts)} {settings.dp_format}"
    else:
        estimator = load_estimator("disparity")
        estimator_id = f"{estimator!r} {identity(WEIGHTS)}"
    prepared = []
    started = time.monotonic()
    for scene in scenes:
        prepared.append(
            prepare(
                scene,
                cache,
                estimator,
                estimator_id,
                patch_px=settings.patch_px,
                drop=settings.drop_patches,
                planes=settings.network_of_pairs.map_planes,
            )
        )
        if reports and (len(prepared) % _REPORT_EVERY == 0 or len(prepared) == len(scenes)):
            seconds = time.monotonic() - started
            print(f"{len(prepared)} of {len(scenes)} scenes prepared, {seconds:.0f} s", flush=True)
    return prepared
