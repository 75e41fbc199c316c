"""The figures of a benchmark, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dpbatch.tools.benchmark.figures import STAGES, StageFigures
from dpbatch.tools.benchmark.runs import Ratio, RunFigures

_MORE = {
    "load": "decode both frames",
    "develop": "subtract, rebuild highlights, demosaic",
    "rest of restoring": "tiles, blending, rounding",
}


@dataclass(frozen=True)
class Report:
    """What was measured.

    in_focus: share of each photo. run: this version's only run, or the median one of the turns.
    ratios: against `other`, another checkout; none where there is no other.
    """

    version: str
    size_px: tuple[int, int]
    photos: int
    in_focus: float
    model: str
    stages: StageFigures
    run: RunFigures
    other: str = ""
    turns: int = 1
    ratios: Sequence[Ratio] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return tables for people."""
        width, height = self.size_px
        machine, run = self.stages.machine, self.run
        lines = [
            f"dpbatch {self.version}: {self.photos} Dual Pixel RAW of {width}x{height} px, "
            f"{self.in_focus:.0%} in focus, network {self.model} on {machine.device}",
            "",
            *self._stage_lines(),
            "",
            f"This device copies {machine.copy_bytes_s / 1e9:.1f} GB/s and multiplies "
            f"{machine.macs_s / 1e12:.3f} TMAC/s in {machine.precision}; the floor is what a stage "
            "would take if it moved and multiplied only what it must.",
            "",
            f"run, {run.run_s:.1f} s in all:",
            f"  start to first result  {run.first_s:7.2f} s",
        ]
        if run.later_s is not None:
            per_minute = 60 / run.later_s if run.later_s else float("inf")
            later = f"{run.later_s:7.2f} s, {per_minute:.1f} a minute"
            lines.append(f"  a photo after that     {later}")
        lines += [f"  step {name:<17} {seconds:7.2f} s" for name, seconds in run.steps_s.items()]
        lines += [
            f"  processor time         {run.cpu_s:7.2f} s",
            f"  peak memory            {run.peak_memory_gib:7.2f} GiB, all processes together",
        ]
        return "\n".join([*lines, *self._ratio_lines()])

    def _stage_lines(self) -> list[str]:
        figures = self.stages
        lines = [
            f"{'stage, one photo at a time':<28}{'first':>9}{'later':>9}{'CPU':>9}{'floor':>9}"
            f"{'share':>8}"
        ]
        sums = [0.0] * 4
        for name in STAGES:
            if name not in figures.warm:
                continue
            cold, warm = figures.cold.get(name), figures.warm[name]
            row = [cold.wall_s if cold else 0.0, warm.wall_s, warm.cpu_s]
            row.append(figures.floor_s.get(name, 0.0))
            sums = [total + value for total, value in zip(sums, row, strict=True)]
            lines.append(_row(name, row) + (f"  {_MORE[name]}" if name in _MORE else ""))
        return [*lines, _row("all", sums)]

    def _ratio_lines(self) -> list[str]:
        if not self.ratios:
            return []
        lines = [
            "",
            f"this version / {self.other}, turns: {self.turns}, medians (least to most):",
        ]
        for ratio in self.ratios:
            lines.append(
                f"  {ratio.name:<26} {ratio.median:6.3f} ({ratio.least:.3f} to {ratio.most:.3f})"
                f"   {ratio.this:.2f} / {ratio.other:.2f}"
            )
        return lines


def _row(name: str, values: Sequence[float]) -> str:
    first, later, cpu, floor = values
    share = f"{floor / later:7.1%}" if later and floor else ""
    return f"{name:<28}{first:7.2f} s{later:7.2f} s{cpu:7.2f} s{floor:7.3f} s{share:>8}"
