"""The engine of one machine: photo N+1 is read and photo N-1 written while photo N is restored.

    loader(s) --> restorer --> saver        a process each; the parent only passes on

Whatever happens to a process (a crash in LibRaw, a GPU error, the kernel's out-of-memory killer, a
call that never returns) costs one try of the photo that it worked on, and a fresh process takes its
place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from dpbatch.engine.attempts import Attempts
from dpbatch.engine.stages import ignore, never
from dpbatch.engine.worker import Collapse, Ready, Refusal, Reply, Result, Step, Worker
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import Limits, Outcome, Seconds, Stages, Status, outcome_of

_POLL_S = 0.25


@dataclass(frozen=True)
class LocalEngine:
    """Runs `stages` on this machine.

    loaders: processes that read ahead, each holds one photo.
    should_stop: asked several times a second; once true no photo is begun, those being read or
        restored are given up, and those already restored are still saved.
    on_progress: (job, steps done, steps in all) of the photo being restored.
    limits: tries and times, see `Limits`; a process's start may take as long as a step.
    on_retry: (job, reason) of a photo whose process died and that will run again.
    log: file for what the processes write to stderr; None leaves it on this one's.
    """

    stages: Stages
    loaders: int = 1
    should_stop: Callable[[], bool] = never
    on_progress: Callable[[Any, int, int], None] = ignore
    limits: Limits = field(default_factory=Limits)
    on_retry: Callable[[Any, str], None] = ignore
    log: Path | None = None

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[Any, Outcome]]:
        """See `Engine.run`.

        Raises AbortError where a process cannot be started, and after `limits.crashes_in_a_row`.
        """
        return _Run(self, jobs).outcomes()


class _Run:
    def __init__(self, engine: LocalEngine, jobs: Iterable[Any]) -> None:
        self._engine = engine
        self._attempts = Attempts(jobs, engine.limits, engine.on_retry)
        # A slot is empty until it is needed, and again after its process died.
        self._slots: dict[str, Worker | None] = {f"load{n}": None for n in range(engine.loaders)}
        self._slots |= {"restore": None, "save": None}

    def outcomes(self) -> Iterator[tuple[Any, Outcome]]:
        try:
            while True:
                stopping = self._engine.should_stop()
                if stopping:
                    self._give_up()
                yield from self._pass_on()
                if not stopping:
                    yield from self._begin()
                if self._in_flight() == 0 and (stopping or not self._attempts.left):
                    return
                yield from self._listen()
                yield from self._end_the_overdue()
        finally:
            for worker in self._workers():
                worker.kill()

    def _workers(self) -> list[Worker]:
        return [worker for worker in self._slots.values() if worker is not None]

    def _in_flight(self) -> int:
        return sum(worker.job is not None for worker in self._workers())

    def _worker(self, slot: str) -> Worker:
        """The slot's process, started if there is none, or if it died while idle."""
        worker = self._slots[slot]
        if worker is not None and worker.ready and worker.job is None and worker.ended():
            self._remove(worker)
            worker = None
        if worker is None:
            role = slot.rstrip("0123456789")
            worker = Worker(role, self._engine.stages, self._engine.log)
            self._slots[slot] = worker
        return worker

    def _remove(self, worker: Worker) -> None:
        for slot, resident in self._slots.items():
            if resident is worker:
                self._slots[slot] = None
        worker.kill()

    def _give_up(self) -> None:
        """Ends all that would still take long: reading and restoring."""
        for worker in self._workers():
            if worker.role == "load" or (worker.role == "restore" and worker.result is None):
                self._remove(worker)

    def _pass_on(self) -> Iterator[tuple[Any, Outcome]]:
        """Moves results one step further, the last step first, so that each makes room."""
        for slot in ("save", "restore"):
            before = "restore" if slot == "save" else "load"
            for worker in self._workers():
                if worker.role != before or worker.result is None:
                    continue
                successor = self._worker(slot)
                if successor.ready and successor.job is None:
                    yield from self._forward(worker, successor)

    def _forward(self, worker: Worker, successor: Worker) -> Iterator[tuple[Any, Outcome]]:
        try:
            with _ending(worker, successor, after_s=self._engine.limits.step_s):
                worker.forward(successor)
        except (OSError, EOFError):
            # The pipe between them holds half a picture now: neither can go on.
            dead, other = (worker, successor) if worker.ended(within_s=0.5) else (successor, worker)
            self._remove(other)
            yield from self._crash(dead, job=successor.job, seconds=successor.seconds)

    def _begin(self) -> Iterator[tuple[Any, Outcome]]:
        """Gives every idle loader a photo."""
        for slot in [slot for slot in self._slots if slot.startswith("load")]:
            resident = self._slots[slot]
            if resident is not None and resident.job is not None:
                continue
            job = self._attempts.next(self._in_flight())
            if job is None:
                return
            self._worker("restore")  # loads its network while the first photo is read
            worker = self._worker(slot)
            try:
                worker.give(job)
            except OSError:
                yield from self._crash(worker, job, worker.seconds)

    def _listen(self) -> Iterator[tuple[Any, Outcome]]:
        """Waits a moment for news, and hears them."""
        speaking = {
            worker.connection: worker
            for worker in self._workers()
            if worker.result is None and (worker.job is not None or not worker.ready)
        }
        for heard in connection.wait(list(speaking), _POLL_S):
            worker = speaking[heard]  # type: ignore[index]
            try:
                yield from self._hear(worker, worker.connection.recv())
            except (OSError, EOFError):
                yield from self._crash(worker, worker.job, worker.seconds)

    def _end_the_overdue(self) -> Iterator[tuple[Any, Outcome]]:
        limit_s = self._engine.limits.step_s
        for worker in self._workers():
            if worker.is_overdue(limit_s):
                why = f"stopped, not done within {limit_s / 60:.3g} minutes, the time limit"
                yield from self._crash(worker, worker.job, worker.seconds, why)

    def _hear(self, worker: Worker, reply: Reply) -> Iterator[tuple[Any, Outcome]]:
        match reply:
            case Ready():
                worker.ready, worker.since = True, time.monotonic()
            case Step(done, of):
                self._engine.on_progress(worker.job, done, of)
            case Refusal(seconds, error):
                _count(worker, seconds)
                self._attempts.finished()
                yield worker.finish(), outcome_of(error, worker.role, worker.seconds)
            case Result(seconds):
                _count(worker, seconds)
                worker.result = reply
                if worker.role == "save":
                    saved = worker.take()
                    outcome = Outcome(Status.DONE, "save", saved=saved, seconds=worker.seconds)
                    self._attempts.finished()
                    yield worker.finish(), outcome
            case Collapse(error, detail):
                yield from self._crash(worker, worker.job, worker.seconds, error, detail)

    def _crash(
        self, worker: Worker, job: Any, seconds: Seconds, error: str = "", detail: str = ""
    ) -> Iterator[tuple[Any, Outcome]]:
        """A process is gone, or must go: its photo has lost a try, the slot is free for the next
        process."""
        why = error or worker.death()
        self._remove(worker)
        if not worker.ready:
            raise AbortError(f"the {worker.role} process could not start: {why}")
        where = f"; see {self._engine.log}" if self._engine.log and not error else ""
        crash = WorkerCrashError(f"{job}: the {worker.role} process died: {why}{where}")
        outcome = self._attempts.crashed(job, worker.role, crash, seconds)
        if outcome is not None:
            yield job, replace(outcome, detail=detail)


@contextmanager
def _ending(*workers: Worker, after_s: float) -> Iterator[None]:
    """Ends the processes where the block takes longer: what waits for them then fails."""
    if after_s <= 0:
        yield
        return

    def end() -> None:
        for worker in workers:
            worker.end()

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _count(worker: Worker, seconds: float) -> None:
    worker.seconds = replace(worker.seconds, **{worker.role: seconds})
