"""The engine of one machine: photo N+1 is read and photo N-1 written while photo N is restored.

    loader(s) --> restorer --> saver        a process each; the parent only passes on

Whatever happens to a process (a crash in LibRaw, a GPU error, the kernel's out-of-memory killer)
costs the photo that it worked on, and a fresh process takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from dpbatch.engine.stages import Outcome, Stages, Status, outcome_of
from dpbatch.engine.worker import Collapse, Ready, Refusal, Reply, Result, Step, Worker
from dpbatch.errors import AbortError, WorkerCrashError

_POLL_S = 0.25
Ended = tuple[Any, Outcome]


def _never() -> bool:
    return False


def _ignore(job: Any, done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class LocalEngine:
    """Runs `stages` on this machine.

    loaders: processes that read ahead, each holds one photo.
    should_stop: asked several times a second; once true no photo is begun, those being read or
        restored are given up, and those already restored are still saved.
    on_progress: (job, steps done, steps in all) of the photo being restored.
    log: file for what the processes write to stderr; None leaves it on this one's.
    """

    stages: Stages
    loaders: int = 1
    should_stop: Callable[[], bool] = _never
    on_progress: Callable[[Any, int, int], None] = _ignore
    log: Path | None = None

    def run(self, jobs: Iterable[Any]) -> Iterator[Ended]:
        """See `Engine.run`. Raises AbortError where a process cannot be started."""
        return _Run(self, iter(jobs)).outcomes()


class _Run:
    def __init__(self, engine: LocalEngine, jobs: Iterator[Any]) -> None:
        self._engine = engine
        self._jobs = jobs
        self._jobs_left = True
        # A slot is empty until it is needed, and again after its process died.
        self._slots: dict[str, Worker | None] = {f"load{n}": None for n in range(engine.loaders)}
        self._slots |= {"restore": None, "save": None}

    def outcomes(self) -> Iterator[Ended]:
        try:
            while True:
                stopping = self._engine.should_stop()
                if stopping:
                    self._give_up()
                yield from self._pass_on()
                if not stopping:
                    yield from self._begin()
                if all(worker.job is None for worker in self._workers()):
                    return
                yield from self._listen()
        finally:
            for worker in self._workers():
                worker.kill()

    def _workers(self) -> list[Worker]:
        return [worker for worker in self._slots.values() if worker is not None]

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

    def _pass_on(self) -> Iterator[Ended]:
        """Moves results one step further, the last step first, so that each makes room."""
        for slot in ("save", "restore"):
            before = "restore" if slot == "save" else "load"
            for worker in self._workers():
                if worker.role != before or worker.result is None:
                    continue
                successor = self._worker(slot)
                if successor.ready and successor.job is None:
                    yield from self._forward(worker, successor)

    def _forward(self, worker: Worker, successor: Worker) -> Iterator[Ended]:
        try:
            worker.forward(successor)
        except (OSError, EOFError):
            # The pipe between them holds half a picture now: neither can go on.
            dead = worker if worker.ended(within_s=0.5) else successor
            yield self._crash(dead, job=successor.job, seconds_of=successor)
            self._remove(successor if dead is worker else worker)

    def _begin(self) -> Iterator[Ended]:
        """Gives every idle loader a photo."""
        for slot in [slot for slot in self._slots if slot.startswith("load")]:
            worker = self._slots[slot]
            if not self._jobs_left or (worker is not None and worker.job is not None):
                continue
            try:
                job = next(self._jobs)
            except StopIteration:
                self._jobs_left = False
                return
            self._worker("restore")  # loads its network while the first photo is read
            worker = self._worker(slot)
            try:
                worker.give(job)
            except OSError:
                yield self._crash(worker, job, seconds_of=worker)

    def _listen(self) -> Iterator[Ended]:
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
                yield self._crash(worker, worker.job, seconds_of=worker)

    def _hear(self, worker: Worker, reply: Reply) -> Iterator[Ended]:
        match reply:
            case Ready():
                worker.ready = True
            case Step(done, of):
                self._engine.on_progress(worker.job, done, of)
            case Refusal(seconds, error):
                _count(worker, seconds)
                yield worker.finish(), outcome_of(error, worker.role, worker.seconds)
            case Result(seconds):
                _count(worker, seconds)
                worker.result = reply
                if worker.role == "save":
                    saved = worker.take()
                    outcome = Outcome(Status.DONE, "save", saved=saved, seconds=worker.seconds)
                    yield worker.finish(), outcome
            case Collapse(error, detail):
                yield self._crash(worker, worker.job, worker, error, detail)

    def _crash(
        self, worker: Worker, job: Any, seconds_of: Worker, error: str = "", detail: str = ""
    ) -> Ended:
        """A process is gone: its photo failed with it, the slot is free for the next process."""
        why = error or worker.death()
        self._remove(worker)
        if not worker.ready:
            raise AbortError(f"the {worker.role} process could not start: {why}")
        where = f"; see {self._engine.log}" if self._engine.log and not error else ""
        crash = WorkerCrashError(f"{job}: the {worker.role} process died: {why}{where}")
        return job, replace(outcome_of(crash, worker.role, seconds_of.seconds), detail=detail)


def _count(worker: Worker, seconds: float) -> None:
    worker.seconds = replace(worker.seconds, **{worker.role: seconds})
