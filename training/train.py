"""Trains a network, on pairs rendered from photographs or on the DPDD data set.

    python -m training.train configs/train-tiny.toml --photos ./photos --out ./runs/tiny
    python -m training.train configs/ldp-dpdd.toml --dpdd ./dd_dp_dataset_canon --out ./runs/ldp

Resumes by itself from RUN/checkpoint.pt. Writes RUN/weights.safetensors (the moving average of the
weights) every `save_every` steps. On several GPUs: torchrun --nproc-per-node 4 -m training.train,
then the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ldp.blur.clip_dense import ClipEstimator
from ldp.blur.clip_model import clip_weights_file, load_clip
from ldp.blur.disparity import DisparityEstimator
from ldp.errors import LdpError
from training.data import SceneSettings, SyntheticCrops
from training.dpdd import (
    BlurEstimator,
    DpddCrops,
    PreparedScene,
    Scene,
    find_scenes,
    identity,
    prepare,
)
from training.loop import Batch, Feed, train
from training.processes import Processes, joined
from training.settings import TrainSettings, read_settings

# Keeps apart the seeds of processes and stages; rendered pairs are seeded anew at every resumption.
_SEED_STEP = 1_000_003
_TELL_EVERY = 10


def run(
    stages: list[TrainSettings],
    out: Path,
    processes: Processes,
    photos: Path | None = None,
    dpdd: Path | None = None,
) -> None:
    """Trains all stages; photos: a folder of sharp photographs, dpdd: the data set, one of the two.

    Raises what training.loop.train does, ValueError for unusable data or settings, and
    ClipUnavailableError, before the first step, where a stage needs a CLIP that is not there.
    """
    torch.set_num_threads(stages[0].threads)
    for stage in stages:
        if stage.batch % (stage.accumulate * processes.count):
            raise ValueError(
                f"batch {stage.batch}: expected a multiple of accumulate, {stage.accumulate}, "
                f"times the processes, {processes.count}"
            )
        if dpdd is not None and stage.crop_px > stage.patch_px:
            raise ValueError(f"crop_px {stage.crop_px}: expected at most patch_px")
    clip = _clip(stages, processes.device)
    if dpdd is not None:
        feed = _dpdd_feed(stages[0], dpdd, out / "cache", clip, processes)
    elif photos is None:
        raise ValueError("nothing to train on: give photographs or DPDD")
    elif stages[0].blur != "disparity":
        raise ValueError(f"blur {stages[0].blur!r}: rendered pairs come with disparity maps only")
    else:
        feed = partial(rendered_batches, photos)
    train(stages, feed, out, processes, clip.blur_aware_map if clip else None)


def rendered_batches(
    photos: Path, settings: TrainSettings, stage: int, step: int, processes: Processes
) -> DataLoader[Batch]:
    """Endless batches rendered from a folder of photographs."""
    scenes = SceneSettings(side_px=2 * settings.crop_px, radius_px=settings.radius_px)
    seed = settings.seed + step + _SEED_STEP * (stage * processes.count + processes.rank)
    crops = SyntheticCrops(photos, settings.crop_px, seed, scenes)
    part = settings.batch // (settings.accumulate * processes.count)
    pinned = processes.device.type == "cuda"
    return DataLoader(crops, part, num_workers=settings.workers, pin_memory=pinned)


def dpdd_batches(
    scenes: list[PreparedScene],
    settings: TrainSettings,
    stage: int,
    step: int,
    processes: Processes,
) -> DataLoader[Batch]:
    """The batches of DPDD from a step on; they depend on nothing but the settings."""
    crops = DpddCrops(scenes, settings.patch_px, settings.crop_px, (settings.seed, stage))
    return DataLoader(
        crops,
        batch_sampler=_positions(settings, step, processes),
        num_workers=settings.workers,
        pin_memory=processes.device.type == "cuda",
    )


def _positions(settings: TrainSettings, step: int, processes: Processes) -> Iterator[list[int]]:
    """A step's positions are the same however many processes and passes share them."""
    part = settings.batch // (settings.accumulate * processes.count)
    for current in range(step, settings.steps):
        for turn in range(settings.accumulate):
            first = current * settings.batch + (turn * processes.count + processes.rank) * part
            yield list(range(first, first + part))


def _clip(stages: list[TrainSettings], device: torch.device) -> ClipEstimator | None:
    """The one CLIP that makes maps and judges restored pictures, if a stage needs it."""
    first = stages[0]
    if first.blur != "clip" and not any(stage.blur_aware_weight for stage in stages):
        return None
    return ClipEstimator.of(load_clip(first.clip_network, first.clip_weights, device))


def _dpdd_feed(
    settings: TrainSettings,
    folder: Path,
    cache: Path,
    clip: ClipEstimator | None,
    processes: Processes,
) -> Feed:
    scenes = find_scenes(folder)
    # Each process prepares its share, then all find everything done.
    _prepare(settings, scenes[processes.rank :: processes.count], cache, clip, processes.first)
    processes.wait()
    prepared = _prepare(settings, scenes, cache, clip, False)
    return partial(dpdd_batches, prepared)


def _prepare(
    settings: TrainSettings,
    scenes: list[Scene],
    cache: Path,
    clip: ClipEstimator | None,
    tells: bool,
) -> list[PreparedScene]:
    estimator: BlurEstimator = DisparityEstimator()
    estimator_id = repr(estimator)
    if settings.blur == "clip" and clip is not None:
        weights = identity(clip_weights_file(settings.clip_network, settings.clip_weights))
        estimator = clip
        estimator_id = f"{settings.clip_network} {weights} {clip.read_pixels} {clip.least_contrast}"
    prepared = []
    started = time.monotonic()
    for scene in scenes:
        prepared.append(
            prepare(scene, cache, estimator, estimator_id, settings.patch_px, settings.drop_patches)
        )
        if tells and (len(prepared) % _TELL_EVERY == 0 or len(prepared) == len(scenes)):
            seconds = time.monotonic() - started
            print(f"{len(prepared)} of {len(scenes)} scenes prepared, {seconds:.0f} s", flush=True)
    return prepared


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a TOML file such as configs/train-tiny.toml")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--photos", type=Path, help="folder of sharp photographs")
    source.add_argument("--dpdd", type=Path, help="folder of the DPDD data set")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    args = parser.parse_args()
    try:
        with joined() as processes:
            run(read_settings(args.config), args.out, processes, args.photos, args.dpdd)
    except (ValueError, FloatingPointError, OSError, LdpError) as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
