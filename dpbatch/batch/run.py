"""A whole run: scan the inputs, skip what is done, let the engine work, keep the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict

from dpbatch.batch.dry_run import DryRun, Measure
from dpbatch.batch.journal import Journal, read_past
from dpbatch.batch.journal_writer import JournalWriter
from dpbatch.batch.pauses import Pauses
from dpbatch.batch.plan import Plan, make_plan
from dpbatch.batch.progress import EXIT_INTERRUPTED, NOT_REACHED, Reporter
from dpbatch.batch.results import Results
from dpbatch.batch.resume import Resume
from dpbatch.batch.stale import with_stale_files
from dpbatch.batch.stop import StopSignal
from dpbatch.engine.local import LocalEngine
from dpbatch.engine.node_check import node_check
from dpbatch.errors import AbortError, DiskFullError, WorkerCrashError
from dpbatch.location import Location, absolute
from dpbatch.networks import ordinary_weights
from dpbatch.settings import Settings
from dpbatch.storage.base import InputSource, OutputFolder
from dpbatch.storage.choose import input_source, output_folder
from dpbatch.storage.shared import shared_check
from dpbatch.types import BatchStages, Engine, Job, Limits, Outcome, RunOptions, Status


def run(
    options: RunOptions,
    settings: Settings,
    stages: BatchStages,
    reporter: Reporter,
    *,
    measure: Measure | None = None,
) -> int:
    """Run a batch; returns the exit code.

    measure: measures the cost of a photo for a dry run.

    Raises SettingsError before any work where output names collide or an input does not exist,
    AbortError where there is nothing to do or the output folder cannot be written.
    """
    if options.cluster is not None and isinstance(options.out, Path):
        options = replace(options, out=absolute(options.out))
    source, output = input_source(options.inputs), output_folder(options.out)
    plan = make_plan(options, settings, stages.suffixes, source)
    results = Results(output, stages)
    resume = Resume(
        source,
        results,
        stages.fingerprint,
        ordinary=stages.ordinary_fingerprint,
        earlier=stages.earlier_fingerprints,
        overwrite=options.overwrite,
        retry_failed=options.retry_failed,
    )
    if options.dry_run:
        dry_run = DryRun(options, output, reporter, measure, _networks(settings))
        return dry_run.run(plan, read_past(output.log()), resume)
    names = [job.id for job in plan.jobs]
    clean = partial(_remove_leftovers, source, output, names)
    with output.hold() as log, StopSignal() as stop, _cleaned(clean):
        journal = Journal(log)
        writer = JournalWriter(
            source, output, journal, stages.fingerprint, stages.ordinary_fingerprint
        )
        pauses = Pauses(
            options.wait_for_space_s, source, output, writer=writer, reporter=reporter, stop=stop
        )
        journal.on_full = pauses.wait_for_journal
        batch = _Batch(
            options.max_errors,
            results,
            writer=writer,
            pauses=pauses,
            reporter=reporter,
            stop=stop,
        )
        to_do = batch.start(plan, lambda job: resume.why_skip(job, journal.past(job.id)))
        engine = _engine(
            options,
            output.storing(source.fetching(stages)),
            to_do,
            batch=batch,
            reporter=reporter,
            log=output.processes_log,
            models=_networks(settings),
            clean=clean,
        )
        with _interrupt_noted(writer):
            batch.work(engine, to_do)
        return batch.finish()


def _remove_leftovers(
    source: InputSource[Location], output: OutputFolder, names: Sequence[str]
) -> None:
    """Remove what killed runs left unfinished. names: of all results of this run."""
    source.remove_leftovers()
    output.remove_leftovers(names)


@contextmanager
def _cleaned(clean: Callable[[], None]) -> Iterator[None]:
    """Clean up before the block and after it, since its processes may be killed while writing."""
    try:
        clean()
        yield
    finally:
        clean()


@contextmanager
def _interrupt_noted(writer: JournalWriter) -> Iterator[None]:
    """Note the end of the run where the second Ctrl-C stops the block at once."""
    try:
        yield
    except KeyboardInterrupt:
        writer.run_ended(EXIT_INTERRUPTED, "interrupted")
        raise


def _networks(settings: Settings) -> tuple[str, ...]:
    """Return the networks of photos with two views and of ordinary ones."""
    return settings.restore.model, ordinary_weights(settings.restore)


class _Common(TypedDict):
    """The arguments that all engines take."""

    limits: Limits
    should_stop: Callable[[], bool]
    on_retry: Callable[[Job[Location], str], None]
    log: Path


def _engine(
    options: RunOptions,
    stages: BatchStages,
    jobs: Sequence[Job[Location]],
    *,
    batch: _Batch,
    reporter: Reporter,
    log: Path,
    models: tuple[str, ...],
    clean: Callable[[], None],
) -> Engine[Job[Location]]:
    common = _Common(
        limits=Limits(step_s=options.step_limit_s),
        should_stop=batch.should_stop,
        on_retry=batch.report_retry,
        log=log,
    )
    if options.cluster is None:
        return LocalEngine(
            stages, processes=options.processes, on_progress=reporter.update_progress, **common
        )
    from dpbatch.engine.ray.engine import RayEngine

    first_photo = jobs[0].photo.paths if jobs else ()
    open_files_check = partial(shared_check, (*options.inputs, *first_photo), options.out)
    return RayEngine(
        stages,
        options.cluster,
        loaders=options.processes.loaders,
        open_check=partial(node_check, models, open_files_check),
        clean=clean,
        on_busy=reporter.update_busy,
        on_warning=partial(reporter.message, always=True),
        **common,
    )


class _Batch:
    """The outcomes of a run: each is written to the journal, reported, and may stop the run."""

    def __init__(
        self,
        max_errors: int,
        results: Results,
        *,
        writer: JournalWriter,
        pauses: Pauses,
        reporter: Reporter,
        stop: StopSignal,
    ) -> None:
        self._max_errors, self._results = max_errors, results
        self._writer, self._pauses = writer, pauses
        self._reporter, self._stop = reporter, stop
        self._unfinished: dict[str, Job[Location]] = {}
        self._too_many_failed = ""
        self._has_reported_interrupt = False

    def start(
        self, plan: Plan, why_skip: Callable[[Job[Location]], Outcome | None]
    ) -> list[Job[Location]]:
        """Record the inputs that need no work; returns the jobs that do."""
        inputs = len(plan.ended) + len(plan.jobs)
        self._reporter.start(inputs)
        self._writer.run_started(inputs)
        skipped: Counter[str] = Counter()
        for name, outcome in plan.ended:
            self._record(name, outcome)
            if outcome.status is Status.FAILED:
                self._writer.no_photo(name, outcome)
            else:
                skipped[outcome.code] += 1
        to_do = []
        for job in plan.jobs:
            # After a stop the rest is not looked at; the engine will not start it.
            skip = None if self.should_stop() else why_skip(job)
            if skip is None:
                to_do.append(job)
            else:
                if skip.saved is not None and skip.saved.outputs:
                    self._writer.recognised(job, skip.saved)
                self._record(job.name, skip, job)
                skipped[skip.code] += 1
        self._writer.run_planned(len(to_do), skipped)
        self._reporter.start_work(len(to_do))
        self._unfinished = {job.id: job for job in to_do}
        return to_do

    def work(self, engine: Engine[Job[Location]], jobs: Sequence[Job[Location]]) -> None:
        """Let the engine do the jobs; those that met a full disk run again at the end."""
        try:
            while jobs and not self.should_stop():
                again = []
                for job, outcome in engine.run(self._started(jobs)):
                    if outcome.code != DiskFullError.code:
                        self._finish_job(job, outcome)
                    elif self._pauses.wait_for_photo(job, outcome):
                        self._writer.runs_again(job, outcome.code, outcome.message)
                        again.append(job)
                    elif not self._stop.is_interrupted:
                        self._finish_job(job, outcome)
                jobs = again
        except AbortError as error:
            self._stop.request(str(error))

    def finish(self) -> int:
        """Report what was not reached and the closing table; returns the exit code."""
        for job in self._unfinished.values():
            message = f"{job}: not reached, the run was stopped before"
            self._reporter.finished(job.name, Outcome(Status.SKIPPED, "run", NOT_REACHED, message))
        is_cut_short = bool(self._unfinished)
        aborted = self._stop.reason or (self._too_many_failed if is_cut_short else "")
        interrupted = self._stop.is_interrupted and is_cut_short
        code = self._reporter.close(interrupted=interrupted, aborted=aborted)
        self._writer.run_ended(code, aborted or ("interrupted" if interrupted else ""))
        return code

    def should_stop(self) -> bool:
        """Whether the run must stop; called by the engine."""
        if self._stop.is_interrupted and not self._has_reported_interrupt:
            self._has_reported_interrupt = True
            self._reporter.message(
                "finishing the files that are being written; Ctrl-C again stops at once"
            )
        return self._stop.is_requested() or bool(self._too_many_failed)

    def report_retry(self, job: Job[Location], reason: str) -> None:
        """Report a photo whose process died; called by the engine."""
        self._reporter.message(f"{reason}; it will run again, alone, after all others")
        self._writer.runs_again(job, WorkerCrashError.code, reason)

    def _started(self, jobs: Iterable[Job[Location]]) -> Iterator[Job[Location]]:
        """Yield the jobs as the engine takes them, each written to the journal first."""
        for job in jobs:
            self._writer.started(job)
            yield job

    def _finish_job(self, job: Job[Location], outcome: Outcome) -> None:
        del self._unfinished[job.id]
        if outcome.status is Status.DONE:
            self._pauses.photo_finished()
        outcome = with_stale_files(outcome, self._writer.journal.past(job.id), self._results)
        try:
            self._pauses.record_size(self._writer.finished(job, outcome))
        finally:
            self._record(job.name, outcome, job)

    def _record(self, name: str, outcome: Outcome, job: Job[Location] | None = None) -> None:
        """Report an outcome, and stop the run where it means that it cannot go on."""
        self._reporter.finished(name, outcome, job)
        failures = self._reporter.count(Status.FAILED)
        if outcome.code == DiskFullError.code:
            self._stop.request(outcome.message)
        elif 0 < self._max_errors <= failures:
            count = "1 photo" if failures == 1 else f"{failures} photos"
            self._too_many_failed = f"{count} failed"
