"""The parent's handles of a child process that does one step of one photo at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Generic

from dpbatch.engine.child import STOP_SIGNALS, Crashed, Progressed, Ready, Result, Started, serve
from dpbatch.engine.transport import receive, relay, send
from dpbatch.types import JobT, LoadedT, RestoredT, Saved, Seconds, Stages

_JOIN_S = 5.0
THREADS = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""Read by PyTorch and OpenCV when they are imported."""
_CONTEXT = multiprocessing.get_context("spawn")


class Worker(Generic[JobT]):
    """One pipe of a child process, and the photo that has gone through it."""

    def __init__(self, role: str, connection: Connection, process: SpawnProcess) -> None:
        """role: load, restore or save."""
        self.role = role
        self.connection = connection
        self.others: tuple[Worker[JobT], ...] = ()
        """The handles of the other pipes of the process."""
        self.ready = False
        self.job: JobT | None = None
        """The job it works on, or whose result it holds; None when idle."""
        self.started = False
        """Whether the process works on that job, or has; it may wait for another one's end."""
        self.seconds = Seconds()
        """Time spent on that job so far."""
        self.result: Result | None = None
        """Set while a result waits to be taken."""
        self.since = time.monotonic()
        """When its current activity began: its start, the step it is running, or the waiting."""
        self.last_words: Crashed | None = None
        """What it said of its end, where that was read to find out who worked."""
        self._process = process
        # At exit multiprocessing would send a SIGTERM, which the child ignores, and wait for it.
        weakref.finalize(self, process.kill)

    @property
    def is_idle(self) -> bool:
        """Whether it can be given a job."""
        return self.ready and self.job is None

    @property
    def works(self) -> bool:
        """Whether the process works on this photo now."""
        return self.job is not None and self.started and self.result is None

    def give(self, job: JobT) -> None:
        """Send a new job to an idle process. Raises OSError where the process is dead."""
        self._take_on(job, Seconds())
        send(self.connection, (job,))

    def release(self) -> JobT:
        """Make the worker idle; return the job that it had."""
        job = self.job
        assert job is not None
        self.job = self.result = None
        return job

    def forward(self, successor: Worker[JobT]) -> None:
        """Move the waiting result and its job to `successor`, without a copy in this process.

        Raises OSError or EOFError where either process dies meanwhile; then neither is usable.
        """
        assert self.result is not None
        package = self.result.package
        successor._take_on(self.release(), self.seconds)
        relay(package, self.connection, successor.connection)
        successor.since = time.monotonic()

    def take_saved(self) -> Saved:
        """Receive the last step's result. Raises OSError or EOFError as `forward`."""
        assert self.result is not None
        _, saved = receive(self.connection, self.result.package)
        assert isinstance(saved, Saved)
        return saved

    def blamed_for(self, successor: Worker[JobT]) -> None:
        """Take on the job whose move to `successor` failed because this process died."""
        assert successor.job is not None
        self._take_on(successor.job, successor.seconds)

    def one_that_worked(self) -> Worker[JobT]:
        """Return the handle of the photo that a dead process worked on; itself where none is known.

        Reads what the process still said of its other photos, which are lost.
        """
        for other in self.others:
            try:
                while other.job is not None and other.result is None and other.connection.poll():
                    reply = other.connection.recv()
                    if isinstance(reply, Crashed):
                        other.last_words = reply
                    elif not isinstance(reply, Ready | Progressed):
                        other.started = isinstance(reply, Started)
            except (OSError, EOFError):
                continue
        return next((each for each in (self, *self.others) if each.works), self)

    def exit_reason(self) -> str:
        """Describe how a process ended that stopped answering."""
        self._process.join(_JOIN_S)
        code = self._process.exitcode
        if code is None:
            return "it stopped answering"
        if code < 0:
            try:
                return f"killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"killed by signal {-code}"
        return f"exit code {code}"

    def is_dead(self, within_s: float = 0.0) -> bool:
        """Whether the process has ended, or ends within that time."""
        self._process.join(within_s)
        return not self._process.is_alive()

    def is_overdue(self, limit_s: float) -> bool:
        """Whether its start or its current step takes longer than `limit_s`; 0 is no limit.

        A photo that waits for the end of another one in the same process is not overdue.
        """
        is_busy = not self.ready or (self.job is not None and self.result is None)
        if not is_busy or not 0 < limit_s < time.monotonic() - self.since:
            return False
        if not self.started and any(other.works for other in self.others):
            return False
        return not self.connection.poll()  # a reply may be waiting unread

    def kill(self) -> None:
        """Kill the process; pending reads raise EOFError."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process and close its pipes."""
        for each in (self, *self.others):
            each.connection.close()
        self._process.kill()
        self._process.join(_JOIN_S)  # a process that hangs in a driver call may never end

    def _take_on(self, job: JobT, seconds: Seconds) -> None:
        self.job, self.seconds, self.started = job, seconds, False
        self.since = time.monotonic()


def start_process(
    role: str,
    stages: Stages[JobT, LoadedT, RestoredT],
    log: Path | None,
    *,
    photos: int = 1,
    threads: int = 0,
) -> list[Worker[JobT]]:
    """Start a process; return a handle for each of the photos that it may hold.

    log: file that its stderr (LibRaw's messages, crash dumps) is appended to; None inherits the
        parent's stderr.
    threads: with which it computes; 0 leaves that open.
    """
    pipes = [_CONTEXT.Pipe() for _ in range(photos)]
    theirs = [their for _, their in pipes]
    process = _CONTEXT.Process(
        target=serve,
        args=(role, stages, theirs, log),
        daemon=True,
        name=f"dpbatch-{role}",
    )
    with _signals_blocked(), _threads_named(threads):
        process.start()
    for their in theirs:
        their.close()
    workers: list[Worker[JobT]] = [Worker(role, ours, process) for ours, _ in pipes]
    for worker in workers:
        worker.others = tuple(other for other in workers if other is not worker)
    return workers


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals that request a stop while a process starts.

    Ctrl-C reaches all processes of the terminal, and a service manager's SIGTERM all processes of
    the service; only the parent must act on them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started inside the first spawn, it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _threads_named(threads: int) -> Iterator[None]:
    """Have a process that starts in the block compute with so many threads, where that is open."""
    named = [name for name in THREADS if threads and name not in os.environ]
    os.environ.update(dict.fromkeys(named, str(threads)))
    try:
        yield
    finally:
        for name in named:
            del os.environ[name]
