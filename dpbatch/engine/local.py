"""The engine of one machine: loads photo N+1 and saves photo N-1 while photo N is restored.

    loader(s) --> restorer --> saver        one process each; the parent only forwards results

Whatever happens to a process (a crash in LibRaw, a GPU error, the kernel's out-of-memory killer, a
call that never returns) costs one try of the photo that it worked on, and a new process replaces
it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any, Generic

from dpbatch.engine.attempts import Attempts, ignore, never, overdue_reason
from dpbatch.engine.worker import Crashed, Progressed, Ready, Rejected, Reply, Result, Worker
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import (
    JobT,
    Limits,
    LoadedT,
    Outcome,
    RestoredT,
    Seconds,
    Stages,
    Status,
    outcome_of,
)

_POLL_S = 0.25


@dataclass(frozen=True)
class LocalEngine(Generic[JobT, LoadedT, RestoredT]):
    """Runs `stages` on this machine.

    loaders: number of processes that load ahead; each holds one photo.
    should_stop: called several times a second. Once it returns True no photo is started, those
        being loaded or restored are given up, and those already restored are still saved.
    on_progress: called with (job, steps done, steps in all) for the photo being restored.
    limits: tries and times; starting a process may take as long as a step.
    on_retry: called with (job, reason) for a photo whose process died and that will run again.
    log: file that the stderr of the processes is appended to; None leaves it on this process's.
    """

    stages: Stages[JobT, LoadedT, RestoredT]
    loaders: int = 1
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
        # A slot is empty until it is needed, and again after its process died.
        self._slots: dict[str, Worker[JobT] | None] = {
            f"load{n}": None for n in range(engine.loaders)
        }
        self._slots |= {"restore": None, "save": None}

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
            for worker in self._workers():
                worker.close()

    def _workers(self) -> list[Worker[JobT]]:
        return [worker for worker in self._slots.values() if worker is not None]

    def _in_flight(self) -> int:
        return sum(worker.job is not None for worker in self._workers())

    def _worker(self, slot: str) -> Worker[JobT]:
        """Return the slot's process; start one if there is none, or if it died while idle."""
        worker = self._slots[slot]
        if worker is not None and worker.ready and worker.job is None and worker.is_dead():
            self._remove(worker)
            worker = None
        if worker is None:
            role = slot.rstrip("0123456789")
            worker = Worker(role, self._engine.stages, self._engine.log)
            self._slots[slot] = worker
        return worker

    def _remove(self, worker: Worker[JobT]) -> None:
        for slot, resident in self._slots.items():
            if resident is worker:
                self._slots[slot] = None
        worker.close()

    def _give_up(self) -> None:
        """Kill what would still take long: loading and restoring."""
        for worker in self._workers():
            if worker.role == "load" or (worker.role == "restore" and worker.result is None):
                self._remove(worker)

    def _forward_results(self) -> Iterator[tuple[JobT, Outcome]]:
        """Move results one step on, the last step first, so that each makes room for the next."""
        for slot in ("save", "restore"):
            before = "restore" if slot == "save" else "load"
            for worker in self._workers():
                if worker.role != before or worker.result is None:
                    continue
                successor = self._worker(slot)
                if successor.ready and successor.job is None:
                    yield from self._forward(worker, successor)

    def _forward(
        self, worker: Worker[JobT], successor: Worker[JobT]
    ) -> Iterator[tuple[JobT, Outcome]]:
        try:
            with _killed_after(self._engine.limits.step_s, worker, successor):
                worker.forward(successor)
        except (OSError, EOFError):
            # The pipe between them holds half a picture: neither process can go on.
            is_first = worker.is_dead(within_s=0.5)
            dead, other = (worker, successor) if is_first else (successor, worker)
            job = successor.job
            assert job is not None
            self._remove(other)
            yield from self._crash(dead, job, successor.seconds)

    def _start_jobs(self) -> Iterator[tuple[JobT, Outcome]]:
        """Give every idle loader a job."""
        for slot in [slot for slot in self._slots if slot.startswith("load")]:
            resident = self._slots[slot]
            if resident is not None and resident.job is not None:
                continue
            job = self._attempts.next(self._in_flight())
            if job is None:
                return
            self._worker("restore")  # it loads the network while the first photo is loaded
            worker = self._worker(slot)
            try:
                worker.give(job)
            except OSError:
                yield from self._crash(worker, job, worker.seconds)

    def _poll(self) -> Iterator[tuple[JobT, Outcome]]:
        """Wait briefly for replies and handle them."""
        busy = {
            worker.connection: worker
            for worker in self._workers()
            if worker.result is None and (worker.job is not None or not worker.ready)
        }
        for source in connection.wait(list(busy), _POLL_S):
            worker = busy[source]  # type: ignore[index]
            try:
                yield from self._handle(worker, worker.connection.recv())
            except (OSError, EOFError):
                yield from self._crash(worker, worker.job, worker.seconds)

    def _kill_overdue(self) -> Iterator[tuple[JobT, Outcome]]:
        limit_s = self._engine.limits.step_s
        for worker in self._workers():
            if worker.is_overdue(limit_s):
                yield from self._crash(worker, worker.job, worker.seconds, overdue_reason(limit_s))

    def _handle(self, worker: Worker[JobT], reply: Reply) -> Iterator[tuple[JobT, Outcome]]:
        match reply:
            case Ready():
                worker.ready, worker.since = True, time.monotonic()
            case Progressed(done, total):
                assert worker.job is not None
                self._engine.on_progress(worker.job, done, total)
            case Rejected(seconds, error):
                _add_seconds(worker, seconds)
                self._attempts.finished()
                yield worker.release(), outcome_of(error, worker.role, worker.seconds)
            case Result(seconds):
                _add_seconds(worker, seconds)
                worker.result = reply
                if worker.role == "save":
                    saved = worker.take_saved()
                    outcome = Outcome(Status.DONE, "save", saved=saved, seconds=worker.seconds)
                    self._attempts.finished()
                    yield worker.release(), outcome
            case Crashed(error, traceback):
                yield from self._crash(worker, worker.job, worker.seconds, error, traceback)

    def _crash(
        self,
        worker: Worker[JobT],
        job: JobT | None,
        seconds: Seconds,
        error: str = "",
        traceback: str = "",
    ) -> Iterator[tuple[JobT, Outcome]]:
        """Remove a process that died or must be killed; its photo has used up one try.

        job: None for a process that died while it started.
        """
        reason = error or worker.exit_reason()
        self._remove(worker)
        if not worker.ready or job is None:
            raise AbortError(f"the {worker.role} process could not start: {reason}")
        where = f"; see {self._engine.log}" if self._engine.log and not error else ""
        crash = WorkerCrashError(f"{job}: the {worker.role} process died: {reason}{where}")
        outcome = self._attempts.crashed(job, worker.role, crash, seconds, has_died=not traceback)
        if outcome is not None:
            yield job, replace(outcome, detail=traceback)


@contextmanager
def _killed_after(limit_s: float, *workers: Worker[JobT]) -> Iterator[None]:
    """Kill the processes where the block takes longer than that; 0 never does."""
    if limit_s <= 0:
        yield
        return

    def kill() -> None:
        for worker in workers:
            worker.kill()

    timer = threading.Timer(limit_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _add_seconds(worker: Worker[JobT], seconds: float) -> None:
    worker.seconds = replace(worker.seconds, **{worker.role: seconds})
