"""Log a training run: lines on the screen, figures in files, sample pictures."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.files import whole_file
from training.losses import Terms
from training.pictures import write_png

METRICS = "metrics.jsonl"
SAMPLES = "samples"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class TrainFigures:
    """Averages over the steps since the report before, of the first process's part of the batches.

    loss, and its terms unweighted (training.losses.Terms), None for those that the stage leaves
    out. gain_db: PSNR over the mean view's. gradient_norm: before it was limited.
    """

    loss: float
    charbonnier: float
    blur_weighting: float | None
    blur_aware: float | None
    gain_db: float
    gradient_norm: float
    learning_rate: float
    seconds_per_step: float
    crops_per_second: float
    token_distance: float | None = None
    sharpness: float | None = None

    def line(self, position: str, left_s: float) -> str:
        """Return the progress line; left_s: the time that the rest of the stage will take."""
        left = duration(left_s)
        return (
            f"{position}  loss {self.loss:.4f}  gain {self.gain_db:+.2f} dB  "
            f"{self.seconds_per_step:.3f} s/step  {self.crops_per_second:.1f} crops/s  {left} left"
        )


class Meter:
    """Sums since the last report. They stay on the device, since reading them waits for it."""

    def __init__(self, device: torch.device, step: int, batch: int) -> None:
        self._sums = torch.zeros(len(Terms._fields) + 2, device=device)
        self._taken: set[str] = set()
        self._batch = batch
        self._since_step = step
        self._since = time.monotonic()

    def add_pass(self, terms: Terms, gain_db: Tensor, passes: int) -> None:
        """Add one of a step's passes."""
        none = torch.zeros_like(terms.loss)
        values = torch.stack([none if x is None else x.detach() for x in (*terms, gain_db)])
        self._sums[:-1] += values / passes
        self._taken |= {name for name, x in terms._asdict().items() if x is not None}

    def add_norm(self, norm: Tensor) -> None:
        """Add a step's norm of the gradient."""
        self._sums[-1] += norm

    def check(self, step: int, out: Path) -> None:
        """Raise FloatingPointError if anything was not finite."""
        sums = self._sums.tolist()
        if not all(map(math.isfinite, sums)):
            raise FloatingPointError(
                f"the loss is {sums[0]} and its gradient {sums[-1]} by step {step}; {out} holds "
                "the last checkpoint, lower the learning rate to go on from it"
            )

    def pause(self, seconds: float) -> None:
        """Exclude seconds in which nothing was trained."""
        self._since += seconds

    def average(self, step: int, rate: float) -> TrainFigures:
        """Return the averages up to this step, and begin those of the next steps."""
        count, now = max(1, step - self._since_step), time.monotonic()
        loss, first, *others, gain, norm = (s / count for s in self._sums.tolist())
        names = Terms._fields[2:]
        optional = {
            name: value if name in self._taken else None
            for name, value in zip(names, others, strict=True)
        }
        seconds = max(1e-9, (now - self._since) / count)
        self._since_step, self._since = step, now
        self._sums.zero_()
        self._taken.clear()
        return TrainFigures(
            loss=loss,
            charbonnier=first,
            gain_db=gain,
            gradient_norm=norm,
            learning_rate=rate,
            seconds_per_step=seconds,
            crops_per_second=self._batch / seconds,
            **optional,
        )


class RunLog:
    """The figures of a run: RUN/metrics.jsonl, and TensorBoard's files where it is installed.

    A line is an object with `kind` ("train", "validation"), `stage` from 1, `step` in that stage,
    `total_step` over all stages, and figures by name.
    """

    def __init__(self, out: Path, total_step: int) -> None:
        """Open the logs; total_step: where the run resumes, what was logged after it is dropped."""
        self._out = out
        kept = _lines_up_to(out / METRICS, total_step)
        with whole_file(out / METRICS) as unfinished:
            unfinished.write_text("".join(kept), encoding="utf-8")
        self._writer = _summary_writer(out / TENSORBOARD, total_step)

    def figures(
        self, kind: str, stage: int, step: int, total_step: int, values: Mapping[str, float | None]
    ) -> None:
        """Add a line; values that are None are left out."""
        known = {name: value for name, value in values.items() if value is not None}
        place = {"kind": kind, "stage": stage + 1, "step": step, "total_step": total_step}
        with (self._out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**place, **known}) + "\n")
        if self._writer:
            for name, value in known.items():
                self._writer.add_scalar(f"{kind}/{name}", value, total_step)
            self._writer.flush()

    def train(self, stage: int, step: int, total_step: int, figures: TrainFigures) -> None:
        """Add the line of a report."""
        self.figures("train", stage, step, total_step, asdict(figures))

    def picture(self, name: str, total_step: int, picture: npt.NDArray[np.uint8]) -> None:
        """Write (H, W, 3) sRGB to RUN/samples. Raises OSError where it cannot be written."""
        path = self._out / SAMPLES / f"{total_step:08d}-{name}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, picture)
        if self._writer:
            self._writer.add_image(f"samples/{name}", picture, total_step, dataformats="HWC")

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer:
            self._writer.close()


def duration(seconds: float) -> str:
    """Format a time: 40 s, 12 min, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _lines_up_to(path: Path, total_step: int) -> list[str]:
    """Return a log's whole lines up to a step; a killed run leaves later ones, and half of one."""
    if not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["total_step"] <= total_step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return kept


def _summary_writer(folder: Path, total_step: int) -> Any:
    """Return TensorBoard's writer, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # What a killed run logged after its last checkpoint is not shown.
    return SummaryWriter(str(folder), purge_step=total_step + 1)
