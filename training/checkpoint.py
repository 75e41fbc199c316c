"""The state of a training run, saved whole or not at all, and resumed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ldp.models.network import LDPNet
from ldp.models.weights import save_network
from training.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
BEST = "weights-best.safetensors"


@dataclass(frozen=True)
class Best:
    """The best score so far, where it was reached (stage from 0), and what it is the score of."""

    score_db: float
    evaluation_set: str
    stage: int
    step: int


@dataclass
class TrainState:
    """All that changes while training. What is random follows from the seed, the stage and the
    step, so no generator's state is part of it.

    average: the moving average of the network's weights. stage: counted from 0. step: steps done in
    this stage. best: None before the first validation. started_from: in words.
    """

    network: LDPNet
    average: LDPNet
    optimizer: torch.optim.Optimizer
    stage: int = 0
    step: int = 0
    best: Best | None = None
    started_from: str = "random weights"


def save(
    out: Path,
    state: TrainState,
    settings: TrainSettings,
    stages: int,
    score_db: float | None = None,
    evaluation_set: str = "",
) -> None:
    """Writes the checkpoint and the averaged weights into the run's folder.

    score_db, evaluation_set: the score of these weights, if they have one. If it is the best one,
    state.best becomes it, and the weights stay as weights-best.safetensors. Where a stage ends and
    another follows, its weights stay as weights-stageN.safetensors too.

    Raises FloatingPointError, before anything is written, where a weight is not finite.
    """
    check_finite(state, out)
    notes = {
        "steps": str(state.step),
        "stage": str(state.stage + 1),
        "started_from": state.started_from,
        "blur_map": settings.blur,
    }
    names = [WEIGHTS]
    if score_db is not None:
        notes["score"] = f"{score_db:.3f} dB, {evaluation_set}"
        if state.best is None or score_db > state.best.score_db:
            state.best = Best(score_db, evaluation_set, state.stage, state.step)
            names.append(BEST)
    if state.step == settings.steps and state.stage + 1 < stages:
        names.append(f"weights-stage{state.stage + 1}.safetensors")
    for name in names:
        _whole(out / name, lambda path: save_network(state.average, path, notes))
    values = {
        "stage": state.stage,
        "step": state.step,
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": asdict(state.best) if state.best else None,
        "started_from": state.started_from,
    }
    # Last: what a run goes on from has all its weights files.
    _whole(out / CHECKPOINT, lambda path: torch.save(values, path))


def check_finite(state: TrainState, out: Path) -> None:
    """Raises FloatingPointError where a weight is not finite, or would not be so in a weights file,
    which holds halves."""
    tensors = [x.half() for x in state.average.state_dict().values()]
    tensors += state.network.state_dict().values()
    if not torch.stack([x.isfinite().all() for x in tensors]).all():
        raise FloatingPointError(
            f"a weight is not finite at step {state.step}; {out} holds the last checkpoint, "
            "lower the learning rate to go on from it"
        )


def read(out: Path) -> dict[str, Any] | None:
    """What save() wrote, on the CPU, or None before the first checkpoint."""
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return values


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes beside the file and renames: a killed run leaves the old file or the new one."""
    unfinished = path.with_suffix(".tmp")
    write(unfinished)
    unfinished.replace(path)
