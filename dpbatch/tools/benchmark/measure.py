"""Measure a version of the program on photos that are made for it, alone or against another."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

import dpbatch
from dpbatch.errors import AbortError, SettingsError
from dpbatch.settings import Settings
from dpbatch.tools.benchmark.figures import StageFigures
from dpbatch.tools.benchmark.photos import write_photos
from dpbatch.tools.benchmark.report import Report
from dpbatch.tools.benchmark.runs import (
    THIS_CHECKOUT,
    RunFigures,
    environment_of,
    measured_in_turns,
    measured_run,
    ratios,
)


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured.

    size_px: (width, height). in_focus: share of each photo.
    run_options: of `run`, which led to the settings; the other checkout is given only the network
        and the device.
    compare: another checkout, with `turns` runs of each.
    """

    size_px: tuple[int, int]
    photos: int
    in_focus: float
    run_options: tuple[str, ...] = ()
    compare: Path | None = None
    turns: int = 3


def run_benchmark(options: BenchmarkOptions, settings: Settings) -> Report:
    """Make the photos in a temporary folder and measure.

    settings: with the network and the blur map named. Raises AbortError if a run fails,
    SettingsError for a size that a CR2 cannot have or a folder that is no checkout.
    """
    if options.compare is not None and not (options.compare / "dpbatch").is_dir():
        raise SettingsError(
            f"{options.compare} has no folder dpbatch; expected a checkout of this program"
        )
    restore = settings.restore
    common = ("--model", restore.model, "--device", restore.device)
    with tempfile.TemporaryDirectory(prefix="dpbatch-benchmark-") as folder:
        shoot = Path(folder) / "shoot"
        shoot.mkdir()
        write_photos(shoot, options.size_px, options.photos, options.in_focus)
        stages = _staged(shoot, Path(folder) / "staged", settings)
        mine = (*common, *options.run_options)
        other: list[RunFigures]
        if options.compare is None:
            this = [measured_run(THIS_CHECKOUT, shoot, mine)]
            other = []
        else:
            this, other = measured_in_turns(
                THIS_CHECKOUT, options.compare, shoot, (mine, common), options.turns
            )
    middle = median(figures.run_s for figures in this)
    return Report(
        version=dpbatch.__version__,
        size_px=options.size_px,
        photos=options.photos,
        in_focus=options.in_focus,
        model=restore.model,
        stages=stages,
        run=min(this, key=lambda figures: abs(figures.run_s - middle)),
        other=str(options.compare or ""),
        turns=len(this),
        ratios=ratios(this, other) if other else (),
    )


def _staged(shoot: Path, out: Path, settings: Settings) -> StageFigures:
    """Time the stages in a new process, whose first photo is a cold one."""
    out.mkdir()
    module = "dpbatch.tools.benchmark.stages"
    command = [sys.executable, "-m", module, str(shoot), str(out)]
    command.append(msgspec.json.encode(settings).decode())
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=out,
        env=environment_of(THIS_CHECKOUT),
        check=False,
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise AbortError(f"the benchmark's stages ended with {ended.returncode}: {last}")
    return msgspec.convert(json.loads(ended.stdout.splitlines()[-1]), StageFigures)
