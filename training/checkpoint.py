"""The state of a training run: begun, saved whole or not at all, and resumed exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ldp.blur.estimator import PAPER_CLIP
from ldp.errors import WeightsError
from ldp.models.network import LDPNet
from ldp.models.released import LDPReleased
from ldp.models.restormer import Restormer, RestormerConfig
from ldp.models.vitdeblur import ViTDeblur
from ldp.models.vitdeblur_weights import load_encoder, load_vitdeblur
from ldp.models.weights import CLIP_CHOICE, load_network, resolve, save_network, sha256
from training.errors import RecipeError
from training.files import whole_file
from training.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
BEST = "weights-best.safetensors"
_USUAL_AMOUNT = 0.6
"""The blur map's amount that a network of one view begins with, everywhere."""


TrainedNetwork: TypeAlias = LDPNet | Restormer | ViTDeblur
"""The networks that can be trained."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights that a training begins with, and their file's SHA-256."""

    network: TrainedNetwork
    sha256: str


@dataclass(frozen=True)
class Best:
    """The best score so far, where it was reached (stage from 0), and what it is the score of."""

    score_db: float
    evaluation_set: str
    stage: int
    step: int


@dataclass
class TrainState:
    """All that changes while training.

    Random values follow from the seed, the stage and the step, so it holds no generator's state.

    average: the moving average of the network's weights. stage: counted from 0. step: steps done in
        this stage. best: None before the first validation. started_from: in words. spent_s: seconds
        of a time budget that are spent.
    """

    network: TrainedNetwork
    average: TrainedNetwork
    optimizer: torch.optim.Optimizer
    stage: int = 0
    step: int = 0
    best: Best | None = None
    started_from: str = "random weights"
    spent_s: float = 0.0


def load_initial_weights(init: str, settings: TrainSettings) -> InitialWeights:
    """Load the weights that a recipe is to begin with.

    init: a shipped network's name or a .safetensors path. A recipe of one view may begin with those
        of two: see `of_one_view`.

    Raises WeightsError for unusable weights, RecipeError for those of another network.
    """
    path = resolve(init)
    if settings.is_vitdeblur:
        started = load_vitdeblur(path)
        if started.config != settings.vitdeblur:
            found = f"weights of {started.config}"
            raise RecipeError(f"{path}: {found}, but the recipe trains {settings.vitdeblur}")
        return InitialWeights(started, sha256(path))
    network = load_network(path)
    if isinstance(network, LDPReleased):
        raise WeightsError(f"{path}: the authors' network cannot be trained on")
    digest = sha256(path)
    if settings.views == 1 and isinstance(network, LDPNet) and network.config.views == 2:
        network = of_one_view(network)
    # The windows of inference come from the crops, and are no weights.
    wanted = settings.network_of_pairs
    if replace(network.config, crop_px=settings.crop_px) != wanted:
        raise RecipeError(f"{path}: weights of {network.config}, but the recipe trains {wanted}")
    return InitialWeights(network, digest)


@torch.no_grad()
def of_one_view(network: LDPNet) -> LDPNet:
    """Return a network of one view that gives about what `network` gives for two equal views.

    The first convolution's weights of the two views are added; those of the blur map begin at 0 as
    weights of the noise level, after a constant map's part went into the bias, and the blur-prior
    attention is left out.
    """
    config = replace(network.config, views=1, map_channel=True, attention=False, prior="amount")
    single = LDPNet(config)
    weights = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith("attention.")
    }
    colours = 3 * config.shuffle**2
    first = weights["intro.weight"]
    left, right, planes = first.split([colours, colours, first.shape[1] - 2 * colours], 1)
    noise = torch.zeros(first.shape[0], config.shuffle**2, *first.shape[2:])
    weights["intro.weight"] = torch.cat([left + right, noise], 1)
    weights["intro.bias"] = weights["intro.bias"] + _USUAL_AMOUNT * planes.sum((1, 2, 3))
    single.load_state_dict(weights)
    return single.eval()


def load_initial_encoder(path: Path, settings: TrainSettings) -> InitialWeights:
    """Return random weights of ViTDeblur with the first blocks of a masked autoencoder.

    path: its checkpoint, see ldp.models.vitdeblur_weights.load_encoder.

    Raises WeightsError for an unusable one, RecipeError for a recipe of another network.
    """
    if not settings.is_vitdeblur:
        raise RecipeError(f"{path}: size {settings.size!r} has no encoder of a masked autoencoder")
    torch.manual_seed(settings.seed)
    network = ViTDeblur(settings.vitdeblur)
    load_encoder(path, network)
    return InitialWeights(network, sha256(path))


def _fresh(settings: TrainSettings) -> TrainedNetwork:
    if settings.is_vitdeblur:
        network = ViTDeblur(settings.vitdeblur)
        network.primary.requires_grad_(not settings.freeze_encoder)
        return network
    config = settings.network_of_pairs
    if isinstance(config, RestormerConfig):
        return Restormer(config)
    made = LDPNet(config)
    # Untrained it returns the mean view: training begins at what is to be beaten.
    with torch.no_grad():
        for parameter in made.ending.parameters():
            parameter.zero_()
    return made


def begin(
    settings: TrainSettings,
    stage: int,
    saved: dict[str, Any] | None,
    device: torch.device,
    initial: InitialWeights | None = None,
) -> TrainState:
    """Return the state to go on from.

    saved: what `read` found. Of the same stage, it is continued; of the stage before, this one
    starts from its averaged weights. None: the first stage begins with `initial` or random weights.

    Raises RecipeError where the checkpoint is of another network or began with other weights.
    """
    torch.manual_seed(settings.seed)
    network = _fresh(settings).to(device).to(memory_format=torch.channels_last)
    if initial is not None:
        network.load_state_dict(initial.network.state_dict())
    average = _fresh(settings).to(device)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
    started_from = f"weights {initial.sha256}" if initial else "random weights"
    state = TrainState(network, average, optimizer, stage, started_from=started_from)
    if saved is not None:
        _resume(state, saved, settings)
    return state


def _resume(state: TrainState, saved: dict[str, Any], settings: TrainSettings) -> None:
    """Load a checkpoint into the state of a stage; see `begin`."""
    if saved["started_from"] != state.started_from:
        raise RecipeError(
            f"{CHECKPOINT} is of a training that began with {saved['started_from']}, "
            f"not with {state.started_from}; train into another folder"
        )
    same_stage = saved["stage"] == state.stage
    try:
        state.network.load_state_dict(saved["network" if same_stage else "average"])
        state.average.load_state_dict(saved["average"])
    except RuntimeError as error:
        raise RecipeError(
            f"{CHECKPOINT} is not of a network of size {settings.size}; train it into "
            f"another folder ({str(error)[:200]})"
        ) from error
    if saved.get("best"):
        best = dict(saved["best"])
        # Checkpoints of before the renaming have it under its old name.
        best["evaluation_set"] = best.pop("judged_on", best.get("evaluation_set"))
        state.best = Best(**best)
    if same_stage:
        state.optimizer.load_state_dict(saved["optimizer"])
        state.step = saved["step"]
        state.spent_s = saved.get("spent_s", 0.0)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average of the weights 1 - decay of the way to the network's."""
    # Not torch's AveragedModel: it begins with the first step's weights and has one decay for all
    # steps, where ours grows from the start, and resumed runs keep their numbers.
    move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move(tuple(average.parameters()), tuple(network.parameters()), 0)


def save(
    out: Path,
    state: TrainState,
    settings: TrainSettings,
    stages: int,
    score_db: float | None = None,
    evaluation_set: str = "",
    *,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the checkpoint and the averaged weights into the run's folder.

    score_db, evaluation_set: the score of these weights, if they have one. If it is the best one,
    state.best becomes it, and the weights stay as weights-best.safetensors. Where a stage ends and
    another follows, its weights stay as weights-stageN.safetensors too. notes: for the header of
    the weights, beside those written here.

    Raises FloatingPointError, before anything is written, where a weight is not finite.
    """
    check_finite(state, out)
    header = {
        **(notes or {}),
        "steps": str(state.step),
        "stage": str(state.stage + 1),
        "started_from": state.started_from,
    }
    if not (settings.is_vitdeblur or settings.is_restormer):
        header["blur_map"] = settings.blur
        if settings.blur == "clip" and settings.clip_choice != PAPER_CLIP:
            header[CLIP_CHOICE] = json.dumps(asdict(settings.clip_choice))
    names = [WEIGHTS]
    if score_db is not None:
        header["score"] = f"{score_db:.3f} dB, {evaluation_set}"
        if state.best is None or score_db > state.best.score_db:
            state.best = Best(score_db, evaluation_set, state.stage, state.step)
            names.append(BEST)
    if state.step == settings.steps and state.stage + 1 < stages:
        names.append(f"weights-stage{state.stage + 1}.safetensors")
    for name in names:
        with whole_file(out / name) as path:
            save_network(state.average, path, header)
    values = {
        "stage": state.stage,
        "step": state.step,
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": asdict(state.best) if state.best else None,
        "started_from": state.started_from,
    }
    if state.spent_s:
        values["spent_s"] = state.spent_s
    # Last: a run that resumes from it has all its weights files.
    with whole_file(out / CHECKPOINT) as path:
        torch.save(values, path)


def check_finite(state: TrainState, out: Path) -> None:
    """Raise FloatingPointError where a weight is not finite.

    Or where it would not be finite in a weights file, which holds halves.
    """
    tensors = [x.half() for x in state.average.state_dict().values()]
    tensors += state.network.state_dict().values()
    if not torch.stack([x.isfinite().all() for x in tensors]).all():
        raise FloatingPointError(
            f"a weight is not finite at step {state.step}; {out} holds the last checkpoint, "
            "lower the learning rate to go on from it"
        )


def read(out: Path) -> dict[str, Any] | None:
    """Return what `save` wrote, on the CPU, or None before the first checkpoint."""
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return values
