"""Measure whole runs in processes of their own, also runs of another version of the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import psutil

import dpbatch
from dpbatch.errors import AbortError

THIS_CHECKOUT = Path(dpbatch.__file__).parents[1]
_SAMPLE_S = 0.2
_LINES_SHOWN = 3


@dataclass(frozen=True)
class RunFigures:
    """One run of the program.

    first_s: from the start to the first result. later_s: from one result to the next; None for one
        photo.
    run_s: from start to end. cpu_s: processor time of all processes; 0 where the system does not
        tell it.
    steps_s: means of load, restore and save over the photos, from the run's log.
    peak_memory_gib: of all processes of the run together.
    """

    first_s: float
    later_s: float | None
    run_s: float
    cpu_s: float
    steps_s: Mapping[str, float]
    peak_memory_gib: float

    def by_name(self) -> dict[str, float]:
        """Return the figures that two versions are compared by."""
        later = {} if self.later_s is None else {"a photo, after the first": self.later_s}
        return {
            "whole run": self.run_s,
            "processor time": self.cpu_s,
            "start to first result": self.first_s,
            **later,
            **{f"step {name}": seconds for name, seconds in self.steps_s.items()},
            "peak memory": self.peak_memory_gib,
        }


def environment_of(checkout: Path) -> dict[str, str]:
    """Return the environment in which a process imports the packages of a checkout."""
    paths = [str(checkout), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def measured_run(checkout: Path, shoot: Path, options: Sequence[str]) -> RunFigures:
    """Run `dpbatch run` of a checkout on a folder of photos, into a new folder.

    Raises AbortError if it fails, or leaves a photo out.
    """
    photos = len(list(shoot.iterdir()))
    with tempfile.TemporaryDirectory(prefix="dpbatch-benchmark-") as folder:
        # Not from the working folder, which may hold another version that would be imported.
        command = [sys.executable, "-m", "dpbatch", "run", str(shoot)]
        command += ["--out", str(Path(folder) / "sharp"), "--json-log", *options]
        cpu_before, start = _childrens_cpu_s(), time.monotonic()
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=environment_of(checkout),
            ) as process,
        ):
            memory = _MemoryWatch(process.pid)
            records, times = [], []
            for line in process.stdout or ():
                record = json.loads(line)
                if record.get("status") == "done":
                    records.append(record)
                    times.append(time.monotonic() - start)
            process.wait()
            run_s = time.monotonic() - start
            peak = memory.stop()
            errors.seek(0)
            last_lines = errors.read().splitlines()[-_LINES_SHOWN:]
    if process.returncode or len(records) != photos:
        raise AbortError(
            f"the benchmark's run of {checkout} ended with {process.returncode}: "
            + " / ".join(last_lines)
        )
    steps_s = {
        step: fmean(record["seconds"][step] for record in records)
        for step in ("load", "restore", "save")
    }
    later_s = (times[-1] - times[0]) / (photos - 1) if photos > 1 else None
    cpu_s = _childrens_cpu_s() - cpu_before
    return RunFigures(times[0], later_s, run_s, cpu_s, steps_s, peak / 2**30)


@dataclass(frozen=True)
class Ratio:
    """This version's figure divided by the other's: the median, least and most of several turns.

    this, other: the medians themselves, in seconds or GiB.
    """

    name: str
    this: float
    other: float
    median: float
    least: float
    most: float


def ratios(this: Sequence[RunFigures], other: Sequence[RunFigures]) -> list[Ratio]:
    """Return how the figures of turns compare; the two of a turn were measured one after another.

    A figure that one of the two does not have, or has as 0, is left out.
    """
    found = []
    pairs = [(a.by_name(), b.by_name()) for a, b in zip(this, other, strict=True)]
    for name in pairs[0][0]:
        both = [(a[name], b[name]) for a, b in pairs if a.get(name) and b.get(name)]
        if len(both) < len(pairs):
            continue
        of_turns = sorted(a / b for a, b in both)
        medians = [median(values) for values in zip(*both, strict=True)]
        found.append(
            Ratio(name, medians[0], medians[1], median(of_turns), of_turns[0], of_turns[-1])
        )
    return found


def measured_in_turns(
    this: Path,
    other: Path,
    shoot: Path,
    options: tuple[Sequence[str], Sequence[str]],
    turns: int,
) -> tuple[list[RunFigures], list[RunFigures]]:
    """Run two checkouts alternately; which one begins alternates too, so that a drift cancels.

    options: of `run`, for this one and the other. Raises AbortError.
    """
    figures: tuple[list[RunFigures], list[RunFigures]] = ([], [])
    for turn in range(turns):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for which in order:
            figures[which].append(measured_run((this, other)[which], shoot, options[which]))
    return figures


class _MemoryWatch:
    """Takes the memory of a process and its children every now and then, in a thread."""

    def __init__(self, pid: int) -> None:
        self._peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End the watch and return the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak_bytes

    def _watch(self, pid: int) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._peak_bytes = max(self._peak_bytes, _memory_bytes(pid))


def _childrens_cpu_s() -> float:
    """Return the processor time of ended processes of this one and theirs."""
    times = os.times()
    return times.children_user + times.children_system


def _memory_bytes(pid: int) -> int:
    """Return the memory of a process and its children; what they share counts once.

    That is the pages of their own and the shared ones of the process that has most of those. Both
    are counters of the system; it would have to walk all pages to tell the share of each process,
    which takes 14 ms a GiB and holds up the processes that are being timed.
    """
    own = shared = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            memory = process.memory_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        of_others = getattr(memory, "shared", 0)  # not on every system
        own += memory.rss - of_others
        shared = max(shared, of_others)
    return own + shared
