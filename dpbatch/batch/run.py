"""A whole run: scan, compare with the journal, let the engine work, keep the journal, count."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from dpbatch.batch.disk_space import Space
from dpbatch.batch.journal import Journal, read_past
from dpbatch.batch.journal_writer import JournalWriter
from dpbatch.batch.plan import Plan, make_plan, show
from dpbatch.batch.progress import Reporter
from dpbatch.batch.resume import Resume
from dpbatch.engine.local import LocalEngine
from dpbatch.engine.node_check import node_check
from dpbatch.errors import AbortError, DiskFullError, WorkerCrashError
from dpbatch.location import Location, absolute
from dpbatch.settings import Settings
from dpbatch.storage.base import InputSource, OutputFolder
from dpbatch.storage.choose import input_source, output_folder
from dpbatch.storage.shared import shared_check
from dpbatch.types import BatchStages, Engine, Job, Limits, Outcome, RunOptions, Status

_LINES_BYTES = 1 << 20


class _Common(TypedDict):
    """What every engine is told."""

    loaders: int
    should_stop: Callable[[], bool]
    limits: Limits
    on_retry: Callable[[Any, str], None]
    log: Path


def run(options: RunOptions, settings: Settings, stages: BatchStages, reporter: Reporter) -> int:
    """Does it all and returns the exit code.

    Raises SettingsError before any work where names collide or something given does not exist,
    AbortError where there is nothing to do or the output folder cannot be written.
    """
    if options.cluster is not None and isinstance(options.out, Path):
        options = replace(options, out=absolute(options.out))
    source, output = input_source(options.inputs), output_folder(options.out)
    plan = make_plan(options, settings, stages.suffixes, source)
    resume = Resume(source, output, stages.fingerprint, options.overwrite, options.retry_failed)
    if options.dry_run:
        return show(plan, read_past(output.log()), resume, reporter)
    with output.hold() as log, _Stop() as stop:
        files = _Files(source, output, tuple(job.id for job in plan.jobs))
        try:
            files.remove_leftovers()
            model = settings.restore.model
            stored = output.storing(source.fetching(stages))
            journal = Journal(log)
            return _Batch(options, files, resume, stored, model, journal, reporter, stop).run(plan)
        finally:
            files.remove_leftovers()  # of a process that was stopped or crashed while writing


@dataclass(frozen=True)
class _Files:
    """Where the run reads and writes. names: of all its results."""

    source: InputSource[Location]
    output: OutputFolder
    names: tuple[str, ...]

    def remove_leftovers(self) -> None:
        self.source.remove_leftovers()
        self.output.remove_leftovers(self.names)


@dataclass
class _Batch:
    options: RunOptions
    files: _Files
    resume: Resume
    stages: BatchStages
    model: str
    journal: Journal
    reporter: Reporter
    stop: _Stop
    unfinished: dict[str, Job[Location]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    largest_bytes: int = 0
    too_many_failed: str = ""
    told_of_interrupt: bool = False

    def __post_init__(self) -> None:
        options, journal, files = self.options, self.journal, self.files
        fingerprint = self.stages.fingerprint
        self.writer = JournalWriter(files.source, files.output, journal, fingerprint)
        self.space = Space(options.wait_for_space_s, self.stop.is_requested, self._tell_pause)
        journal.on_full = self._wait_for_a_line

    def run(self, plan: Plan) -> int:
        reporter, stop = self.reporter, self.stop
        inputs = len(plan.ended) + len(plan.jobs)
        reporter.begin(inputs)
        self.writer.run_started(inputs)
        for name, outcome in plan.ended:
            self._ended(name, outcome)
            if outcome.status is Status.FAILED:
                self.writer.no_photo(name, outcome)
        waiting = list(self._to_do(plan.jobs))
        self.writer.run_planned(len(waiting), self.skipped)
        reporter.work(len(waiting))
        self.unfinished = {job.id: job for job in waiting}
        engine = self._engine(waiting)
        try:
            self._work(engine, waiting)
        except AbortError as error:
            stop.request(str(error))
        for job in self.unfinished.values():
            message = f"{job}: not reached, the run was stopped before"
            reporter.ended(job.name, Outcome(Status.SKIPPED, "run", "not-reached", message))
        aborted = stop.reason or (self.too_many_failed if self.unfinished else "")
        interrupted = stop.interrupted and bool(self.unfinished)
        code = reporter.close(interrupted=interrupted, aborted=aborted)
        self.writer.run_ended(code, aborted or ("interrupted" if interrupted else ""))
        return code

    def _engine(self, jobs: list[Job[Location]]) -> Engine[Job[Location]]:
        options, reporter = self.options, self.reporter
        common = _Common(
            loaders=options.loaders,
            should_stop=self._should_stop,
            limits=Limits(step_s=options.step_limit_s),
            on_retry=self._retried,
            log=self.files.output.processes_log,
        )
        if options.cluster is None:
            return LocalEngine(self.stages, on_progress=reporter.progress, **common)
        from dpbatch.engine.ray.engine import RayEngine

        first_photo = jobs[0].photo.paths if jobs else ()
        files_check = partial(shared_check, (*options.inputs, *first_photo), options.out)
        return RayEngine(
            self.stages,
            options.cluster,
            open_check=partial(node_check, self.model, files_check),
            clean=self.files.remove_leftovers,
            on_busy=reporter.use,
            on_warning=partial(reporter.note, always=True),
            **common,
        )

    def _work(self, engine: Engine[Job[Location]], jobs: list[Job[Location]]) -> None:
        """Lets the engine do the jobs; those that met a full disk come again at the end."""
        while jobs and not self._should_stop():
            again = []
            for job, outcome in engine.run(self._begun(jobs)):
                if outcome.code != DiskFullError.code:
                    self._finish(job, outcome)
                elif self._wait_for_room(job, outcome):
                    self.writer.runs_again(job, outcome.code, outcome.message)
                    again.append(job)
                elif not self.stop.interrupted:
                    self._finish(job, outcome)
            jobs = again

    def _finish(self, job: Job[Location], outcome: Outcome) -> None:
        del self.unfinished[job.id]
        if outcome.status is Status.DONE:
            self.space.finished()
        try:
            self.largest_bytes = max(self.largest_bytes, self.writer.finished(job, outcome))
        finally:
            self._ended(job.name, outcome, job)

    def _wait_for_room(self, job: Job[Location], outcome: Outcome) -> bool:
        """Stands still until there is room for the photo, and some for its neighbours."""
        need_bytes = 2 * self.largest_bytes
        if not need_bytes:  # 16-bit results are not known to be larger than that
            paths, source = job.photo.paths, self.files.source
            need_bytes = 4 * sum(source.stamp(path, False).size for path in paths)
        if outcome.stage == "load":
            folder = Path(tempfile.gettempdir())  # where it was to be fetched to
        else:
            folder = self.files.output.needs_room_in(job.id)
        return self.space.wait(job.name, folder, need_bytes)

    def _wait_for_a_line(self) -> bool:
        return self.space.wait("the journal", self.files.output.processes_log.parent, _LINES_BYTES)

    def _tell_pause(self, text: str, is_paused: bool) -> None:
        self.reporter.note(text, always=True)
        if is_paused:
            self.writer.run_paused(text)
        else:
            self.writer.run_resumed()

    def _retried(self, job: Job[Location], reason: str) -> None:
        self.reporter.note(f"{reason}; it will run again, alone, once the others have ended")
        self.writer.runs_again(job, WorkerCrashError.code, reason)

    def _to_do(self, jobs: Iterable[Job[Location]]) -> Iterator[Job[Location]]:
        for job in jobs:
            if self._should_stop():
                yield job  # the engine will not begin it
                continue
            skip = self.resume.why_skip(job, self.journal.past(job.id))
            if skip is None:
                yield job
            else:
                self._ended(job.name, skip, job)

    def _begun(self, jobs: Iterable[Job[Location]]) -> Iterator[Job[Location]]:
        """The jobs as the engine takes them, each noted first."""
        for job in jobs:
            self.writer.started(job)
            yield job

    def _ended(self, name: str, outcome: Outcome, job: Job[Location] | None = None) -> None:
        self.reporter.ended(name, outcome, job)
        if outcome.stage == "scan" and outcome.status is Status.SKIPPED:
            self.skipped[outcome.code] += 1
        failures = self.reporter.count(Status.FAILED)
        if outcome.code == DiskFullError.code:
            self.stop.request(outcome.message)
        elif 0 < self.options.max_errors <= failures:
            self.too_many_failed = (
                "1 photo failed" if failures == 1 else f"{failures} photos failed"
            )

    def _should_stop(self) -> bool:
        if self.stop.interrupted and not self.told_of_interrupt:
            self.told_of_interrupt = True
            self.reporter.note("finishing what is being written; Ctrl-C again stops at once")
        return self.stop.is_requested() or bool(self.too_many_failed)


class _Stop:
    """Whether the run is to stop, and why. While entered, the first Ctrl-C asks for a stop that
    finishes the files being written; the second raises KeyboardInterrupt as usual."""

    def __init__(self) -> None:
        self.interrupted = False
        self.reason = ""
        self._before: object = None

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def _on_interrupt(self, *_: object) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def request(self, reason: str) -> None:
        """Asks for a stop; the first reason is the one that is told."""
        self.reason = self.reason or reason

    def is_requested(self) -> bool:
        return self.interrupted or bool(self.reason)
