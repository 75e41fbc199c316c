"""The engine of one machine: loads photo N+1 and saves photo N-1 while photo N is restored.

    loader(s) --> restorer --> saver(s)     processes; the parent only forwards results

Whatever happens to a process (a crash in LibRaw, a GPU error, the kernel's out-of-memory killer, a
call that never returns) costs one try of the photo that it worked on, and a new process replaces
it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic

from dpbatch.engine.attempts import Attempts, ignore, never, overdue_reason
from dpbatch.engine.child import Crashed, Progressed, Ready, Rejected, Reply, Result, Started
from dpbatch.engine.worker import Worker, start_process
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import (
    JobT,
    Limits,
    LoadedT,
    Outcome,
    Processes,
    RestoredT,
    Stages,
    Status,
    outcome_of,
)

_STARTS = 3
_POLL_S = 0.25


@dataclass(frozen=True)
class LocalEngine(Generic[JobT, LoadedT, RestoredT]):
    """Runs `stages` on this machine.

    processes: how many there are; each loader and each saver holds one photo.
    should_stop: called several times a second. Once it returns True no photo is started, those
        being loaded or restored are given up, and those already restored are still saved.
    on_progress: called with (job, steps done, steps in all) for the photo being restored.
    limits: tries and times; starting a process may take as long as a step.
    on_retry: called with (job, reason) for a photo whose process died and that will run again.
    log: file that the stderr of the processes is appended to; None leaves it on this process's.
    """

    stages: Stages[JobT, LoadedT, RestoredT]
    processes: Processes = field(default_factory=Processes)
    should_stop: Callable[[], bool] = never
    on_progress: Callable[[JobT, int, int], None] = ignore
    limits: Limits = field(default_factory=Limits)
    on_retry: Callable[[JobT, str], None] = ignore
    log: Path | None = None

    def run(self, jobs: Iterable[JobT]) -> Iterator[tuple[JobT, Outcome]]:
        """See `Engine.run`.

        Raises AbortError where a process cannot be started, and after `limits.crashes_in_a_row`.
        """
        return _Run(self, jobs).outcomes()


class _Run(Generic[JobT]):
    def __init__(self, engine: LocalEngine[JobT, Any, Any], jobs: Iterable[JobT]) -> None:
        self._engine = engine
        self._attempts = Attempts(jobs, engine.limits, engine.on_retry)
        self._workers: list[Worker[JobT]] = []
        """Of all processes; one is started when it is needed first, and again after it died."""
        self._roles_that_started: set[str] = set()
        self._deaths_at_start: Counter[str] = Counter()
        """In a row, by role."""

    def outcomes(self) -> Iterator[tuple[JobT, Outcome]]:
        try:
            while True:
                stopping = self._engine.should_stop()
                if stopping:
                    self._give_up()
                yield from self._forward_results()
                if not stopping:
                    yield from self._start_jobs()
                if self._in_flight() == 0 and (stopping or not self._attempts.left):
                    return
                yield from self._poll()
                yield from self._kill_overdue()
        finally:
            for worker in self._workers:
                worker.kill()  # all of them end at a time, each with its memory to free
            for worker in self._workers:
                worker.close()

    def _of(self, role: str) -> list[Worker[JobT]]:
        return [worker for worker in self._workers if worker.role == role]

    def _in_flight(self) -> int:
        return sum(worker.job is not None for worker in self._workers)

    def _idle(self, role: str) -> Worker[JobT] | None:
        """Return a process that has room for a photo, or None."""
        for worker in self._of(role):
            others_idle = all(other.is_idle for other in worker.others)
            if worker.is_idle and others_idle and worker.is_dead():
                self._remove(worker)  # it died while it had nothing to do
        able = (worker for worker in self._of(role) if worker.is_idle and not worker.is_dead())
        return next(able, None)

    def _idle_or_starting(self, role: str) -> Worker[JobT] | None:
        """Return a process that has room; where all have photos, start one if there may be one."""
        worker = self._idle(role)
        if worker is None and all(each.ready for each in self._of(role)):
            self._start(role)
        return worker

    def _start(self, role: str) -> Worker[JobT] | None:
        """Start a process of a role, unless there are as many as there may be."""
        wanted = self._engine.processes
        most = {"load": wanted.loaders, "restore": 1, "save": wanted.savers}[role]
        there = self._of(role)
        photos = wanted.photos_at_restorer if role == "restore" else 1
        if len(there) >= most * photos:
            return None
        started: list[Worker[JobT]] = start_process(
            role,
            self._engine.stages,
            self._engine.log,
            photos=photos,
            # Several processes share the cores, and those that find ahead leave most of them alone.
            threads=int(most > 1 or (role == "load" and wanted.finds_ahead)),
        )
        self._workers += started
        return started[0]

    def _remove(self, worker: Worker[JobT]) -> None:
        """Remove a process. Other photos that it had begin again, at no cost of a try."""
        gone = (worker, *worker.others)
        self._workers = [each for each in self._workers if each not in gone]
        worker.close()
        for other in worker.others:
            if other.job is not None:
                self._attempts.interrupted(other.job)

    def _give_up(self) -> None:
        """Kill what would still take long: loading and restoring."""
        for worker in self._of("load"):
            self._remove(worker)
        restorer = self._of("restore")
        if restorer and all(worker.result is None for worker in restorer):
            self._remove(restorer[0])

    def _forward_results(self) -> Iterator[tuple[JobT, Outcome]]:
        """Move results one step on, the last step first, so that each makes room for the next."""
        for before, role in (("restore", "save"), ("load", "restore")):
            waiting = [worker for worker in self._of(before) if worker.result is not None]
            for worker in sorted(waiting, key=lambda worker: worker.since):
                successor = self._idle_or_starting(role)
                if successor is None:
                    break
                if worker in self._workers:  # its process may have ended with another photo
                    yield from self._forward(worker, successor)

    def _forward(
        self, worker: Worker[JobT], successor: Worker[JobT]
    ) -> Iterator[tuple[JobT, Outcome]]:
        limit_s = self._engine.limits.step_s
        try:
            with _killed_after(limit_s, worker, successor) as killed:
                worker.forward(successor)
        except (OSError, EOFError):
            # The pipe between them holds half a picture: neither process can go on.
            is_first = worker.is_dead(within_s=0.5)
            dead, other = (worker, successor) if is_first else (successor, worker)
            dead.blamed_for(successor)
            other.job = None
            self._remove(other)
            yield from self._crash(dead, overdue_reason(limit_s) if killed.is_set() else "")

    def _start_jobs(self) -> Iterator[tuple[JobT, Outcome]]:
        """Give every idle loader a job."""
        for _ in range(self._engine.processes.loaders):
            worker = self._idle("load")
            if worker is None and len(self._of("load")) == self._engine.processes.loaders:
                return
            job = self._attempts.next(self._in_flight())
            if job is None:
                return
            self._idle_or_starting("restore")  # it loads the network while the first one is loaded
            worker = worker or self._start("load")
            assert worker is not None
            try:
                worker.give(job)
            except OSError:
                yield from self._crash(worker)

    def _poll(self) -> Iterator[tuple[JobT, Outcome]]:
        """Wait briefly for replies and handle them."""
        busy = {
            worker.connection: worker
            for worker in self._workers
            if worker.result is None and (worker.job is not None or not worker.ready)
        }
        for source in connection.wait(list(busy), _POLL_S):
            worker = busy[source]  # type: ignore[index]
            if worker not in self._workers:
                continue  # its process ended with another photo
            try:
                yield from self._handle(worker, worker.connection.recv())
            except (OSError, EOFError):
                yield from self._crash(worker)

    def _kill_overdue(self) -> Iterator[tuple[JobT, Outcome]]:
        limit_s = self._engine.limits.step_s
        for worker in self._workers:
            if worker in self._workers and worker.is_overdue(limit_s):
                yield from self._crash(worker, overdue_reason(limit_s))

    def _handle(self, worker: Worker[JobT], reply: Reply) -> Iterator[tuple[JobT, Outcome]]:
        match reply:
            case Ready():
                worker.ready, worker.since = True, time.monotonic()
                self._roles_that_started.add(worker.role)
                del self._deaths_at_start[worker.role]
            case Started():
                worker.started, worker.since = True, time.monotonic()
                if worker.role == "restore" and not self._of("save"):
                    self._start("save")  # it imports what it needs while the photo is restored
            case Progressed(done, total):
                assert worker.job is not None
                self._engine.on_progress(worker.job, done, total)
            case Rejected(seconds, error):
                _add_seconds(worker, seconds)
                self._attempts.finished()
                yield worker.release(), outcome_of(error, worker.role, worker.seconds)
            case Result(seconds):
                _add_seconds(worker, seconds)
                worker.result, worker.since = reply, time.monotonic()
                if worker.role == "save":
                    saved = worker.take_saved()
                    outcome = Outcome(Status.DONE, "save", saved=saved, seconds=worker.seconds)
                    self._attempts.finished()
                    yield worker.release(), outcome
            case Crashed(error, traceback):
                yield from self._crash(worker, error, traceback)

    def _crash(
        self, worker: Worker[JobT], error: str = "", traceback: str = ""
    ) -> Iterator[tuple[JobT, Outcome]]:
        """Remove a process; the photo that it worked on has used up one try.

        error: why it must be killed; "" for a process that died.
        """
        if not error:
            worker = worker.one_that_worked()
            if worker.last_words is not None:
                error, traceback = worker.last_words.error, worker.last_words.traceback
        reason, job = error or worker.exit_reason(), worker.job
        self._remove(worker)
        if not worker.ready or job is None:
            if error or not self._may_start_again(worker.role):
                raise AbortError(f"the {worker.role} process could not start: {reason}")
            if job is not None:
                self._attempts.interrupted(job)
            return
        where = f"; see {self._engine.log}" if self._engine.log and not error else ""
        crash = WorkerCrashError(f"{job}: the {worker.role} process died: {reason}{where}")
        outcome = self._attempts.crashed(
            job, worker.role, crash, worker.seconds, has_died=not traceback
        )
        if outcome is not None:
            yield job, replace(outcome, detail=traceback)

    def _may_start_again(self, role: str) -> bool:
        """Count a process that died before it was ready.

        Memory is short while a network is loaded or at work, and the kernel may kill whatever takes
        it: others of its role were ready before, or it starts beside a restoration to save it.
        """
        self._deaths_at_start[role] += 1
        may = role == "save" or role in self._roles_that_started
        return may and self._deaths_at_start[role] < _STARTS


@contextmanager
def _killed_after(limit_s: float, *workers: Worker[JobT]) -> Iterator[threading.Event]:
    """Kill the processes where the block takes longer than that; 0 never does.

    The event is set where they are killed.
    """
    killed = threading.Event()
    if limit_s <= 0:
        yield killed
        return

    def kill() -> None:
        killed.set()
        for worker in workers:
            worker.kill()

    timer = threading.Timer(limit_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield killed
    finally:
        timer.cancel()


def _add_seconds(worker: Worker[JobT], seconds: float) -> None:
    worker.seconds = replace(worker.seconds, **{worker.role: seconds})
