"""Prepare a training run: its data, its weights to begin with, what it is validated on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ldp.blur.clip_dense import ClipEstimator
from ldp.blur.clip_model import load_clip
from training.checkpoint import InitialWeights, load_initial_encoder, load_initial_weights
from training.data.batches import BatchSource, RenderedSource, combined_dpdd, prepared_dpdd
from training.errors import DataError, RecipeError
from training.losses import BlurAwareMap
from training.processes import Processes
from training.schedule import TimeBudget
from training.settings import TrainSettings
from training.simulator.scenes import Photo, read_photos
from training.validation import RealValidation, ValidationSet, read_validation_set


@dataclass(frozen=True)
class TrainingInputs:
    """The files that a run reads.

    photos: folders of sharp photos; dpdd: the data set; one of the two. validation: real scenes,
    None for rendered pairs alone. cache: folder for what is prepared, OUT/cache where None. init: a
    shipped network's name or a .safetensors path, whose weights the first stage begins with; empty
    for random ones. encoder: a masked autoencoder that ViTDeblur begins with, None for none.
    """

    photos: tuple[Path, ...] = ()
    dpdd: Path | None = None
    validation: RealValidation | None = None
    cache: Path | None = None
    init: str = ""
    encoder: Path | None = None


@dataclass(frozen=True)
class Run:
    """All of a training that stays the same.

    source: the batches. out: the run's folder. blur_aware_map: where the loss has its term.
    validation: None in all processes but the first, and where there is none. stop_at: the
    time.monotonic() at which it saves and stops. initial: None for random weights. notes: for the
    header of the weights. budget: the time that ends the one stage, None where its steps do.
    """

    stages: Sequence[TrainSettings]
    source: BatchSource
    out: Path
    processes: Processes
    blur_aware_map: BlurAwareMap | None = None
    validation: ValidationSet | None = None
    stop_at: float = math.inf
    initial: InitialWeights | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    budget: TimeBudget | None = None

    def total_step(self, stage: int, step: int) -> int:
        """Return the number of steps over all stages so far."""
        return sum(settings.steps for settings in self.stages[:stage]) + step


def prepare(
    stages: Sequence[TrainSettings],
    inputs: TrainingInputs,
    out: Path,
    processes: Processes,
    *,
    stop_at: float = math.inf,
    budget: TimeBudget | None = None,
) -> Run:
    """Read, render and load all that training needs; several processes share the work on DPDD.

    Raises DataError or RecipeError for unusable data or settings, WeightsError for unusable weights
    to begin with, and ClipUnavailableError where a stage needs a CLIP that is not there.
    """
    first = stages[0]
    torch.set_num_threads(first.threads)
    _check(stages, processes, inputs)
    if inputs.init and inputs.encoder is not None:
        raise RecipeError("init and encoder: expected one of them")
    if budget is not None and len(stages) > 1:
        raise RecipeError(f"{len(stages)} stages: a time budget needs a recipe of one")
    initial = load_initial_weights(inputs.init, first) if inputs.init else None
    if inputs.encoder is not None:
        initial = load_initial_encoder(inputs.encoder, first)
    clip = _clip(stages, processes.device)
    cache = inputs.cache or out / "cache"
    endless = budget is not None
    photos: list[Photo] = []
    notes: dict[str, str] = {}
    source: BatchSource
    if inputs.dpdd is not None and first.is_vitdeblur:
        source = combined_dpdd(inputs.dpdd, endless=endless)
    elif inputs.dpdd is not None:
        source = prepared_dpdd(first, inputs.dpdd, cache, clip, processes, endless=endless)
    elif not inputs.photos:
        raise DataError("nothing to train on: give photos or DPDD")
    elif first.blur != "disparity":
        raise RecipeError(f"blur {first.blur!r}: rendered pairs come with disparity maps only")
    else:
        photos = [photo for folder in inputs.photos for photo in read_photos(folder)]
        source = RenderedSource(photos, cache, endless)
        notes["training_radius_px"] = f"{max(stage.radius_px for stage in stages):g}"
    evaluation_set = None
    if processes.first:
        evaluation_set = read_validation_set(first, photos, inputs.validation, clip)
    return Run(
        stages,
        source,
        out,
        processes,
        blur_aware_map=_blur_aware(first, clip),
        validation=evaluation_set,
        stop_at=stop_at,
        initial=initial,
        notes=notes,
        budget=budget,
    )


def _check(stages: Sequence[TrainSettings], processes: Processes, inputs: TrainingInputs) -> None:
    """Raise RecipeError where stages do not fit the processes or the data set."""
    for stage in stages:
        if stage.batch % (stage.accumulate * processes.count):
            raise RecipeError(
                f"batch {stage.batch}: expected a multiple of accumulate, {stage.accumulate}, "
                f"times the processes, {processes.count}"
            )
        if stage.is_vitdeblur:
            if inputs.dpdd is None:
                raise RecipeError(f"size {stage.size!r}: trained on DPDD's combined photos")
            if stage.freeze_encoder and inputs.encoder is None and not inputs.init:
                raise RecipeError(
                    "freeze_encoder = true and nothing to begin with: a random encoder would stay "
                    "random; give --encoder FILE or --init FILE, or set freeze_encoder = false"
                )
            continue
        if inputs.dpdd is not None and stage.crop_px > stage.patch_px:
            raise RecipeError(f"crop_px {stage.crop_px}: expected at most patch_px")
        if inputs.dpdd is not None and stage.views == 1:
            raise RecipeError("views 1: trained on rendered pairs only; give photos")
        if inputs.dpdd is not None and stage.crop_sizes_px:
            raise RecipeError("crop_sizes_px: only rendered pairs have crops of several sizes")


def _clip(stages: Sequence[TrainSettings], device: torch.device) -> ClipEstimator | None:
    """Load the one CLIP that makes maps and scores restored pictures, if a stage needs it."""
    first = stages[0]
    if first.blur != "clip" and not any(stage.blur_aware_weight for stage in stages):
        return None
    clip = load_clip(first.clip_network, first.clip_weights, device)
    return ClipEstimator.of(clip, prompts=first.prompts, dp_format=first.dp_format)


def _blur_aware(settings: TrainSettings, clip: ClipEstimator | None) -> BlurAwareMap | None:
    """Return what the blur-aware loss is a mean of.

    It takes every blur-aware prompt, whichever ones the maps take.
    """
    if clip is None:
        return None
    estimator = ClipEstimator.of(clip.clip, dp_aware=False)
    if settings.blur_aware_form == "logit":
        return estimator.blur_aware_logits
    return estimator.blur_aware_map
