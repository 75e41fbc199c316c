"""Train in seconds: a network of 20 thousand weights, a photo of blotches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ldp.models.network import NetworkConfig
from ldp.models.weights import load_network
from training.processes import Processes
from training.run import TrainingInputs, prepare
from training.schedule import TimeBudget
from training.settings import TrainSettings
from training.train import train

MICRO = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), attention_kernel=3)
ALONE = Processes(0, 1, torch.device("cpu"))


def micro_settings(**changes: Any) -> TrainSettings:
    """Return settings of the size "micro", which the fixture `micro` adds to the known sizes."""
    settings = TrainSettings(
        steps=4,
        batch=2,
        crop_px=16,
        learning_rate=1e-3,
        warm_up_steps=1,
        workers=0,
        save_every=2,
        start_scenes=3,
        validate_pairs=0,
    )
    return replace(settings, size="micro", patch_px=64, **changes)


def run(
    stages: Sequence[TrainSettings],
    out: Path,
    *,
    stop_at: float = math.inf,
    minutes: float | None = None,
    photos: Path | None = None,
    **inputs: Any,
) -> bool:
    """Train in this process; inputs: the fields of TrainingInputs."""
    budget = None if minutes is None else TimeBudget(minutes, time.monotonic())
    files = TrainingInputs(photos=(photos,) if photos else (), **inputs)
    return train(prepare(stages, files, out, ALONE, stop_at=stop_at, budget=budget))


def write_photo(folder: Path) -> Path:
    """Write a photo; return the folder."""
    folder.mkdir()
    noise = np.random.default_rng(0).random((30, 40, 3)).astype(np.float32)
    picture = cv2.resize(noise, (240, 180), interpolation=cv2.INTER_NEAREST)
    assert cv2.imwrite(str(folder / "photo.png"), (picture * 255).astype(np.uint8))
    return folder


def checkpoint(out: Path) -> dict[str, Any]:
    """Read a run's checkpoint."""
    values: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)
    return values


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a file."""
    return load_network(path).state_dict()


def same(one: Any, other: Any, **tolerance: float) -> None:
    """Assert that two checkpoints, or parts of them, are equal in all tensors and numbers."""
    if isinstance(one, torch.Tensor):
        rtol, atol = tolerance.get("rtol", 0.0), tolerance.get("atol", 0.0)
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key], **tolerance)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for x, y in zip(one, other, strict=True):
            same(x, y, **tolerance)
    else:
        assert one == other
