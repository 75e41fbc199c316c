"""A child process that does one step of one photo at a time, and how arrays travel to it.

Arrays pass through a pipe in chunks, directly from the source array's memory into the target's.
There is no shared memory that could run out or be left behind, and no second copy of a picture of
half a gigabyte. A result stays in its process until the next process takes it, so the number of
processes bounds the memory.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic

from dpbatch.engine.memory import host_memory
from dpbatch.errors import DpbatchError, PhotoError
from dpbatch.hints import hinted
from dpbatch.types import JobT, LoadedT, RestoredT, Saved, Seconds, Stages
from ldp.errors import LdpError

_CHUNK_BYTES = 8 << 20
_JOIN_S = 5.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Ready:
    """The process has started, and the step is built."""


@dataclass(frozen=True)
class Progressed:
    """Progress within a photo: `done` of `total` parts."""

    done: int
    total: int


@dataclass(frozen=True)
class Package:
    """A pickled object whose large buffers follow on the pipe, in chunks."""

    pickled: bytes
    buffer_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """A step that succeeded; the buffers of its package are still in the pipe."""

    seconds: float
    package: Package


@dataclass(frozen=True)
class Rejected:
    """A step that ended with a PhotoError; the process goes on."""

    seconds: float
    error: PhotoError


@dataclass(frozen=True)
class Crashed:
    """An unexpected exception; the process ends after sending this."""

    error: str
    traceback: str


Reply = Ready | Progressed | Result | Rejected | Crashed


class Worker(Generic[JobT]):
    """The parent's handle of a child process. `role` is load, restore or save."""

    def __init__(
        self, role: str, stages: Stages[JobT, LoadedT, RestoredT], log: Path | None
    ) -> None:
        """Start the process.

        log: file that its stderr (LibRaw's messages, crash dumps) is appended to; None inherits
        the parent's stderr.
        """
        self.role = role
        self.ready = False
        self.job: JobT | None = None
        """The job it works on, or whose result it holds; None when idle."""
        self.seconds = Seconds()
        """Time spent on that job so far."""
        self.result: Result | None = None
        """Set while a result waits to be taken."""
        self.since = time.monotonic()
        """When its current activity began: its start, or the step it is running."""
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve, args=(role, stages, theirs, log), daemon=True, name=f"dpbatch-{role}"
        )
        with _signals_blocked():
            self._process.start()
        theirs.close()
        # At exit multiprocessing would send a SIGTERM, which the child ignores, and wait for it.
        weakref.finalize(self, self._process.kill)

    def give(self, job: JobT) -> None:
        """Send a new job to an idle process. Raises OSError where the process is dead."""
        self.job, self.seconds, self.since = job, Seconds(), time.monotonic()
        _send(self.connection, (job,))

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
        successor.seconds, successor.job = self.seconds, self.release()
        successor.connection.send(package)
        for size in package.buffer_bytes:
            for _ in range(0, size, _CHUNK_BYTES):
                successor.connection.send_bytes(self.connection.recv_bytes())
        successor.since = time.monotonic()

    def take_saved(self) -> Saved:
        """Receive the last step's result. Raises OSError or EOFError as `forward`."""
        assert self.result is not None
        _, saved = _receive(self.connection, self.result.package)
        assert isinstance(saved, Saved)
        return saved

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
        """Whether its start or its current step takes longer than `limit_s`; 0 is no limit."""
        is_busy = not self.ready or (self.job is not None and self.result is None)
        if not is_busy or not 0 < limit_s < time.monotonic() - self.since:
            return False
        return not self.connection.poll()  # a reply may be waiting unread

    def kill(self) -> None:
        """Kill the process; pending reads raise EOFError."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process and close the pipe."""
        self.connection.close()
        self._process.kill()
        self._process.join(_JOIN_S)  # a process that hangs in a driver call may never end


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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    role: str,
    stages: Stages[JobT, LoadedT, RestoredT],
    connection: Connection,
    log: Path | None,
) -> None:
    """Run the child: build the step, then do one job after the other until the pipe closes."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if log is not None:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    faulthandler.enable()
    try:
        step = _step(role, stages, connection)
        connection.send(Ready())
        while True:
            _work(step, connection)
    except (EOFError, ConnectionError):
        return  # the parent has closed the pipe, or is dead
    except BaseException as error:
        is_expected = isinstance(error, DpbatchError | LdpError)
        text = hinted(error) if is_expected else f"{type(error).__name__}: {error}"
        connection.send(Crashed(text, traceback.format_exc()))
        raise


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _step(
    role: str, stages: Stages[JobT, LoadedT, RestoredT], connection: Connection
) -> Callable[..., object]:
    """Build the role's step as a function of (job, result of the step before)."""
    if role == "load":
        return stages.load
    if role == "save":
        return stages.save
    restore = stages.restorer()

    def report(done: int, total: int) -> None:
        connection.send(Progressed(done, total))

    return lambda _job, loaded: restore(loaded, report)


def _work(step: Callable[..., object], connection: Connection) -> None:
    arguments = _receive(connection, connection.recv())
    job = arguments[0]
    start = time.perf_counter()
    try:
        result = step(*arguments)
    except PhotoError as error:
        connection.send(Rejected(time.perf_counter() - start, error))
        return
    del arguments  # the result may wait here for a while; its input is no longer needed
    seconds = time.perf_counter() - start
    _send(connection, (job, result), lambda package: Result(seconds, package))


def _send(
    connection: Connection, value: object, wrap: Callable[[Package], object] = lambda p: p
) -> None:
    """Send wrap(package), then the package's buffers; blocks until the other end has read them."""
    pickles: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=pickles.append)
    buffers = [item.raw() for item in pickles]
    connection.send(wrap(Package(pickled, tuple(buffer.nbytes for buffer in buffers))))
    for buffer in buffers:
        for start in range(0, buffer.nbytes, _CHUNK_BYTES):
            connection.send_bytes(buffer[start : start + _CHUNK_BYTES])


def _receive(connection: Connection, package: Package) -> Any:
    """Unpickle a package, its buffers read from the pipe into new memory."""
    buffers = []
    for size in package.buffer_bytes:
        buffer = host_memory(size).data
        for start in range(0, size, _CHUNK_BYTES):
            connection.recv_bytes_into(buffer[start : start + _CHUNK_BYTES])
        buffers.append(buffer)
    return pickle.loads(package.pickled, buffers=buffers)
