"""Trains a network, on pairs rendered from photographs or on the DPDD data set.

    python -m training.train configs/train-tiny.toml --photos ./photos --out ./runs/tiny
    python -m training.train configs/ldp-dpdd.toml --dpdd ./dd_dp_dataset_canon --out ./runs/ldp

Resumes by itself from RUN/checkpoint.pt, exactly where it was. Writes into RUN:
    weights.safetensors          the moving average of the weights, every `save_every` steps
    weights-best.safetensors     the same where validation found it best: on the scenes of
                                 --validate by exposure-fitted PSNR, else on rendered pairs by PSNR
    metrics.jsonl, tensorboard/  figures; the second where TensorBoard is installed
    samples/                     mean view, restored, true, blur map, side by side
On several GPUs: torchrun --nproc-per-node 4 -m training.train, then the same.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from ldp.blur.clip_dense import ClipEstimator
from ldp.blur.clip_model import clip_weights_file, load_clip
from ldp.blur.disparity import DisparityEstimator
from ldp.blur.estimator import BlurEstimator
from ldp.errors import LdpError, WeightsError
from ldp.models.network import LDPNet
from ldp.models.weights import load_network, resolve, sha256
from training.data.dpdd import (
    DpddCrops,
    PreparedScene,
    Scene,
    find_scenes,
    identity,
    prepare,
)
from training.data.rendered import Place, crop_settings, synthetic_batches, validation_pairs
from training.loop import Batch, Feed, Run, Start, train
from training.processes import Processes, joined
from training.settings import TrainSettings, read_settings
from training.simulator.scenes import Photo, read_photos
from training.validation import RealScene, ValidationSet, read_real_scenes

_TELL_EVERY = 10


@dataclass(frozen=True)
class RealValidation:
    """A folder of real scenes, and how many rows at the top of each are not scored."""

    folder: Path
    skip_rows: int = 0


def run(
    stages: list[TrainSettings],
    out: Path,
    processes: Processes,
    photos: Path | None = None,
    dpdd: Path | None = None,
    validation: RealValidation | None = None,
    stop_at: float = math.inf,
    cache: Path | None = None,
    init: str = "",
) -> bool:
    """Trains all stages; whether it came to the end before the time.monotonic() to stop at.

    photos: a folder of sharp photographs, dpdd: the data set, one of the two. cache: folder for
    what is prepared from them, out/cache by default. init: a shipped network's name or a
    .safetensors path, whose weights the first stage begins with.

    Raises what training.loop.train does, ValueError for unusable data or settings, WeightsError for
    an unusable init, and ClipUnavailableError, before the first step, where a stage needs a CLIP
    that is not there.
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
    start = _start(init, stages[0]) if init else None
    clip = _clip(stages, processes.device)
    pictures: list[Photo] = []
    if dpdd is not None:
        feed = _dpdd_feed(stages[0], dpdd, cache or out / "cache", clip, processes)
    elif photos is None:
        raise ValueError("nothing to train on: give photographs or DPDD")
    elif stages[0].blur != "disparity":
        raise ValueError(f"blur {stages[0].blur!r}: rendered pairs come with disparity maps only")
    else:
        pictures = read_photos(photos)
        feed = partial(rendered_batches, pictures, cache or out / "cache")
    judged = None
    if processes.first:
        judged = _validation_set(stages[0], pictures, validation, clip)
    aware = clip.blur_aware_map if clip else None
    return train(Run(stages, feed, out, processes, aware, judged, stop_at, start))


def _start(init: str, settings: TrainSettings) -> Start:
    path = resolve(init)
    network = load_network(path)
    if not isinstance(network, LDPNet):
        raise WeightsError(f"{path}: the authors' network cannot be trained on")
    # The windows of inference follow the crops, and are no weights.
    if replace(network.config, crop_px=settings.crop_px) != settings.network:
        raise ValueError(
            f"{path}: weights of {network.config}, but the recipe trains {settings.network}"
        )
    return Start(network, sha256(path))


def _validation_set(
    settings: TrainSettings,
    photos: list[Photo],
    validation: RealValidation | None,
    clip: ClipEstimator | None,
) -> ValidationSet | None:
    """What the run is validated on, None for nothing."""
    rendered = []
    if photos:
        rendered = validation_pairs(photos, crop_settings(settings), settings.validate_pairs)
    real: tuple[RealScene, ...] = ()
    if validation and settings.validate_scenes:
        estimator = clip if settings.blur == "clip" and clip else DisparityEstimator()
        real = read_real_scenes(validation.folder, settings.validate_scenes, estimator)
    if not rendered and not real:
        return None
    return ValidationSet(tuple(rendered), real, validation.skip_rows if validation else 0)


def rendered_batches(
    photos: Sequence[Photo],
    cache: Path,
    settings: TrainSettings,
    stage: int,
    step: int,
    processes: Processes,
) -> Iterator[Batch]:
    """The batches rendered from photographs from a step on; they depend on nothing else than the
    photographs and the settings."""
    place = Place(stage, step, settings.steps, settings.accumulate, processes.rank, processes.count)
    return synthetic_batches(
        photos, crop_settings(settings), place, cache, settings.workers, processes.device
    )


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
    cut = (settings.patch_px, settings.drop_patches, settings.network.map_planes)
    prepared = []
    started = time.monotonic()
    for scene in scenes:
        prepared.append(prepare(scene, cache, estimator, estimator_id, *cut))
        if tells and (len(prepared) % _TELL_EVERY == 0 or len(prepared) == len(scenes)):
            seconds = time.monotonic() - started
            print(f"{len(prepared)} of {len(scenes)} scenes prepared, {seconds:.0f} s", flush=True)
    return prepared


def main() -> None:
    """Command line."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a TOML file such as configs/train-tiny.toml")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--photos", type=Path, help="folder of sharp photographs")
    source.add_argument("--dpdd", type=Path, help="folder of the DPDD data set")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--init",
        default="",
        metavar="NAME|FILE",
        help="begin with these weights; give it again to go on",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="for what is prepared, RUN/cache by default"
    )
    parser.add_argument(
        "--validate",
        type=Path,
        metavar="DIR",
        help="real scenes to validate on: NAME_L.png, NAME_R.png, NAME_gt.png, or DPDD with val",
    )
    parser.add_argument("--skip-rows", type=int, default=0, help="rows of these not scored")
    parser.add_argument(
        "--stop-after",
        type=float,
        metavar="MINUTES",
        help="save and stop then; the same command goes on",
    )
    args = parser.parse_args()
    stop_at = math.inf if args.stop_after is None else started + 60 * args.stop_after
    validation = RealValidation(args.validate, args.skip_rows) if args.validate else None
    try:
        with joined() as processes:
            stages = read_settings(args.config)
            folders = (args.photos, args.dpdd)
            ended = run(
                stages, args.out, processes, *folders, validation, stop_at, args.cache, args.init
            )
            if not ended and processes.first:
                print(f"stopped after {args.stop_after:g} minutes; run it again to go on")
    except (ValueError, FloatingPointError, OSError, LdpError) as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
