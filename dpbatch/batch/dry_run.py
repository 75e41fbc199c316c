"""A dry run: what a run would do, whether it could, and what it would cost. Writes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dpbatch.batch.disk_space import free_bytes
from dpbatch.batch.journal import Past
from dpbatch.batch.plan import Plan
from dpbatch.batch.progress import Reporter
from dpbatch.batch.resume import Resume
from dpbatch.engine.node_check import Check, node_check
from dpbatch.errors import AbortError, PhotoError, SettingsError
from dpbatch.hints import hinted
from dpbatch.location import Location
from dpbatch.storage.base import OutputFolder
from dpbatch.types import Cost, Job, RunOptions, outcome_of
from ldp.errors import LdpError

_MOST_TRIES = 3
"""Photos that are tried for one that can be loaded."""

Measure = Callable[[Job], Cost]
"""Measures the cost of a photo. Raises PhotoError, and SettingsError or LdpError for the device."""


@dataclass(frozen=True)
class DryRun:
    """Everything that a dry run needs.

    measure: measures the cost of a photo; None leaves time and disk space out of the report.
    models: names or paths of the networks, whose weights every node of a cluster must have.
    """

    options: RunOptions
    output: OutputFolder
    reporter: Reporter
    measure: Measure | None
    models: tuple[str, ...]

    def run(self, plan: Plan, known: Mapping[str, Past], resume: Resume) -> int:
        """Report what a run would do, and return the exit code; 3 where the run could not work.

        known: what the journal knows, by target.
        """
        to_do = self._report_jobs(plan, known, resume)
        problems = list(self._problems(to_do))
        for problem in problems:
            self.reporter.message(f"problem: {problem}", always=True)
        return self.reporter.close(interrupted=False, aborted=problems[0] if problems else "")

    def _report_jobs(
        self, plan: Plan, known: Mapping[str, Past], resume: Resume
    ) -> list[Job[Location]]:
        """Report each input; return the jobs that would run."""
        reporter = self.reporter
        reporter.start(len(plan.ended) + len(plan.jobs))
        for name, outcome in plan.ended:
            reporter.finished(name, outcome)
        suspect = dict(plan.suspect)
        to_do = []
        for job in plan.jobs:
            skip = resume.why_skip(job, known.get(job.id))
            if skip is None and job in suspect:
                skip = outcome_of(suspect[job], "scan")
            if skip is None:
                reporter.would_run(job)
                to_do.append(job)
            else:
                reporter.finished(job.name, skip)
        return to_do

    def _problems(self, to_do: Sequence[Job[Location]]) -> Iterator[str]:
        """Yield what would keep the run from working; report what it would cost."""
        yield from self._output_problems()
        cluster = self.options.cluster
        if cluster is not None and (cluster.address or os.environ.get("RAY_ADDRESS")):
            yield from self._cluster_problems(cluster.address)
        elif self.measure is not None and to_do:
            yield from self._cost_problems(to_do, self.measure)

    def _output_problems(self) -> Iterator[str]:
        out = self.options.out
        try:
            if self.output.is_held():
                yield f"{out}: another dpbatch is writing there"
            if isinstance(out, Path):
                with tempfile.TemporaryFile(dir=_existing(out)):
                    return
        except OSError as error:
            yield f"{out}: the output folder cannot be written: {error.strerror or error}"
            return
        from dpbatch.storage.reach import problem_here

        if problem := problem_here((), out):
            yield problem

    def _cluster_problems(self, address: str) -> Iterator[str]:
        """Check each node's version and weights; shared folders are checked by the run itself."""
        from dpbatch.engine.ray.cluster import check_nodes, joined, living_nodes

        try:
            with node_check(self.models, _no_files) as check, joined(address, None):
                nodes = living_nodes()
                check_nodes(nodes, check, self.reporter.message)
        except AbortError as error:
            yield str(error)
            return
        gpus = sum(node.gpus for node in nodes)
        self.reporter.message(f"cluster: {len(nodes)} nodes with {gpus:g} GPUs, fit for the run")

    def _cost_problems(self, to_do: Sequence[Job[Location]], measure: Measure) -> Iterator[str]:
        try:
            cost = _measured(to_do, measure)
        except (SettingsError, LdpError) as error:
            yield hinted(error)
            return
        if cost is None:
            self.reporter.message("cost: not measured, no photo of this machine could be loaded")
            return
        self.reporter.cost(cost, len(to_do), self.options.processes.loaders or 1)
        out = self.options.out
        if isinstance(out, Path):
            need, free = cost.output_bytes * len(to_do), free_bytes(out)
            if need > free:
                yield (
                    f"{out}: {need / 1e9:.1f} GB may be written, {free / 1e9:.1f} GB are free; "
                    "free some space or give another --out"
                )


def _measured(to_do: Sequence[Job[Location]], measure: Measure) -> Cost | None:
    """Return the cost of the first photo that can be loaded; None where the first ones cannot."""
    for job in to_do[:_MOST_TRIES]:
        local = [path for path in job.photo.paths if isinstance(path, Path)]
        if len(local) < len(job.photo.paths):
            continue
        try:
            return measure(job)  # type: ignore[arg-type]  # its photo is on this machine
        except PhotoError:
            continue
    return None


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _no_files() -> AbstractContextManager[Check]:
    return nullcontext(partial(str))
