"""A whole run: scan, compare with the journal, let the engine work, keep the journal, count."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dpbatch.engine.local import LocalEngine
from dpbatch.engine.stages import Outcome, Stages, Status, outcome_of
from dpbatch.errors import AbortError, DiskFullError, NotDualPixelError, PhotoError
from dpbatch.folder import jobs_of, scan
from dpbatch.journal import FOLDER, FileStamp, Journal, Record, locked, stamp
from dpbatch.output.atomic import remove_stale_temporaries
from dpbatch.photo import Job, Photo, shown
from dpbatch.progress import Reporter
from dpbatch.raw.container import probe
from dpbatch.resume import why_skip
from dpbatch.settings import Settings


@dataclass(frozen=True)
class RunOptions:
    """What is worked on and how a run behaves; nothing here changes a pixel.

    max_errors: the run stops once so many photos have failed; 0 never stops.
    loaders: processes that read ahead.
    """

    inputs: tuple[Path, ...]
    out: Path
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pairs: bool = True
    overwrite: bool = False
    retry_failed: bool = False
    max_errors: int = 0
    loaders: int = 1
    dry_run: bool = False


@dataclass(frozen=True)
class Plan:
    """jobs: photos to be considered. ended: inputs whose outcome is known without opening them
    wholly, each with its name. suspect: jobs that the probe found something wrong with."""

    jobs: tuple[Job, ...]
    ended: tuple[tuple[str, Outcome], ...]
    suspect: tuple[tuple[Job, PhotoError], ...]


class BatchStages(Stages, Protocol):
    """Stages over `Job`s that also say what they write."""

    @property
    def endings(self) -> tuple[str, ...]:
        """What follows a photo's name in its outputs, the main one first; that is written last."""

    @property
    def fingerprint(self) -> str:
        """Equal for runs whose results need not be made again by the other."""


def run(options: RunOptions, settings: Settings, stages: BatchStages, reporter: Reporter) -> int:
    """Does it all and returns the exit code.

    Raises SettingsError before any work where names collide or something given does not exist,
    AbortError where there is nothing to do or the output folder cannot be written.
    """
    plan = make_plan(options, settings, stages.endings)
    if options.dry_run:
        with Journal(options.out) as journal:
            return _show(plan, options, stages.fingerprint, journal, reporter)
    with locked(options.out), Journal(options.out) as journal, _Stop() as stop:
        folders = {job.target.parent for job in plan.jobs}
        try:
            _clean(folders)
            batch = _Batch(options, stages, journal, reporter, stop)
            return batch.run(plan)
        finally:
            _clean(folders)  # after a process that was stopped or crashed while writing


def make_plan(options: RunOptions, settings: Settings, endings: tuple[str, ...]) -> Plan:
    """What is there, and what would become of it. Raises SettingsError, AbortError."""
    found = scan(
        options.inputs,
        recursive=options.recursive,
        include=options.include,
        exclude=options.exclude,
        pairs=options.pairs,
        out=options.out,
    )
    if not found.photos and not found.others:
        given = ", ".join(str(path) for path in options.inputs)
        raise AbortError(f"{given}: no raw files (.cr2, .cr3) and no left/right pairs found")
    ended = []
    for other in found.others:
        status = Status.FAILED if other.failed else Status.SKIPPED
        ended.append((shown(other.path), Outcome(status, "scan", other.code, other.message)))
    photos: list[Photo] = []
    problems: dict[Photo, PhotoError] = {}
    for photo in found.photos:
        try:
            _check(photo)
        except NotDualPixelError as error:
            ended.append((shown(photo.paths[0]), outcome_of(error, "scan")))
            continue
        except PhotoError as error:
            problems[photo] = error  # loading it will say so again, and the journal with it
        photos.append(photo)
    jobs = jobs_of(photos, options.out, settings, endings)
    suspect = [(job, problems[job.photo]) for job in jobs if job.photo in problems]
    return Plan(jobs, tuple(ended), tuple(suspect))


def _check(photo: Photo) -> None:
    if photo.kind == "raw" and not probe(photo.paths[0]).is_dual_pixel:
        raise NotDualPixelError(
            f"{photo.paths[0].name}: 1 raw frame, expected 2; "
            "switch on Dual Pixel RAW in the camera"
        )


def _show(plan: Plan, options: RunOptions, key: str, journal: Journal, reporter: Reporter) -> int:
    """The dry run."""
    reporter.begin(len(plan.ended) + len(plan.jobs))
    for name, outcome in plan.ended:
        reporter.ended(name, outcome)
    problems = dict(plan.suspect)
    for job in plan.jobs:
        skip = _skip(job, journal, key, options)
        if skip is None and job in problems:
            skip = outcome_of(problems[job], "scan")
        if skip is None:
            reporter.would_run(job)
        else:
            reporter.ended(str(job), skip)
    return reporter.close(interrupted=False, aborted="")


def _skip(job: Job, journal: Journal, key: str, options: RunOptions) -> Outcome | None:
    return why_skip(
        job,
        journal.past(_below(options.out, job.target)),
        key,
        out=options.out,
        overwrite=options.overwrite,
        retry_failed=options.retry_failed,
    )


@dataclass
class _Batch:
    options: RunOptions
    stages: BatchStages
    journal: Journal
    reporter: Reporter
    stop: _Stop
    unfinished: set[str] = field(default_factory=set)
    too_many_failed: str = ""
    told_of_interrupt: bool = False

    def run(self, plan: Plan) -> int:
        reporter, stop = self.reporter, self.stop
        reporter.begin(len(plan.ended) + len(plan.jobs))
        for name, outcome in plan.ended:
            self._ended(name, outcome)
        waiting = list(self._to_do(plan.jobs))
        reporter.work(len(waiting))
        self.unfinished = {str(job) for job in waiting}
        engine = LocalEngine(
            self.stages,
            loaders=self.options.loaders,
            should_stop=self._should_stop,
            on_progress=reporter.progress,
            log=self.options.out / FOLDER / "processes.log",
        )
        try:
            for job, outcome in engine.run(self._begun(waiting)):
                self.unfinished.remove(str(job))
                try:
                    self.journal.append(self._record(job, outcome))
                finally:
                    self._ended(str(job), outcome, job)
        except AbortError as error:
            stop.request(str(error))
        for name in sorted(self.unfinished):
            message = f"{name}: not reached, the run was stopped before"
            reporter.ended(name, Outcome(Status.SKIPPED, "run", "not-reached", message))
        aborted = stop.reason or (self.too_many_failed if self.unfinished else "")
        interrupted = stop.interrupted and bool(self.unfinished)
        return reporter.close(interrupted=interrupted, aborted=aborted)

    def _to_do(self, jobs: Iterable[Job]) -> Iterator[Job]:
        for job in jobs:
            if self._should_stop():
                yield job  # the engine will not begin it
                continue
            skip = _skip(job, self.journal, self.stages.fingerprint, self.options)
            if skip is None:
                yield job
            else:
                self._ended(str(job), skip, job)

    def _begun(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs as the engine takes them, each noted first: a file that then lies at its target
        without a `done` was written by a run that was killed, and may be written again."""
        for job in jobs:
            self.journal.append(self._record(job, None))
            yield job

    def _record(self, job: Job, outcome: Outcome | None) -> Record:
        target, source = _below(self.options.out, job.target), str(job.photo.paths[0])
        if outcome is None:
            return Record("started", target, source, self.stages.fingerprint)
        saved, seconds = outcome.saved, outcome.seconds
        return Record(
            outcome.status.value,
            target,
            source,
            self.stages.fingerprint,
            inputs=saved.inputs if saved else (),
            outputs=tuple(_stamps(self.options.out, saved.outputs)) if saved else (),
            stage=outcome.stage,
            code=outcome.code,
            message=outcome.message,
            detail=outcome.detail,
            load_s=round(seconds.load, 3),
            restore_s=round(seconds.restore, 3),
            save_s=round(seconds.save, 3),
        )

    def _ended(self, name: str, outcome: Outcome, job: Job | None = None) -> None:
        self.reporter.ended(name, outcome, job)
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


def _clean(folders: Iterable[Path]) -> None:
    for folder in folders:
        remove_stale_temporaries(folder)


def _below(out: Path, target: Path) -> str:
    return target.relative_to(out).as_posix()


def _stamps(out: Path, outputs: Iterable[Path]) -> Iterator[FileStamp]:
    for path in outputs:
        with contextlib.suppress(OSError):  # taken away already: the next run makes it again
            now = stamp(path, content=False)
            yield FileStamp(_below(out, path), now.size, now.mtime_ns)
