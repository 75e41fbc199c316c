"""The state of a training run, saved whole or not at all, and resumed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ldp.network import LDPNet
from ldp.weights import save_network
from training.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


@dataclass
class TrainState:
    """All that changes while training. What is random follows from the seed, the stage and the
    step, so no generator's state is part of it.

    average: the moving average of the network's weights. stage: counted from 0. step: steps done in
    this stage.
    """

    network: LDPNet
    average: LDPNet
    optimizer: torch.optim.Optimizer
    stage: int = 0
    step: int = 0


def save(out: Path, state: TrainState, settings: TrainSettings, stages: int) -> None:
    """Writes the checkpoint and the averaged weights into the run's folder.

    Where a stage ends and another follows, its weights stay as weights-stageN.safetensors too.
    """
    notes = {"steps": str(state.step), "stage": str(state.stage + 1), "blur_map": settings.blur}
    names = [WEIGHTS]
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
    }
    # Last: what a run goes on from has all its weights files.
    _whole(out / CHECKPOINT, lambda path: torch.save(values, path))


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
