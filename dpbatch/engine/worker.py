"""One child process that does one step of one photo at a time, and how arrays reach it.

Pictures travel over a pipe in chunks, straight out of the array that holds them and straight into
the one that will: no shared memory to run out of or to leave behind, and no second copy of a
picture that fills half a gigabyte. A result stays in its process until the next one wants it, so
the number of processes bounds the memory.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dpbatch.errors import DpbatchError, PhotoError
from dpbatch.types import Seconds, Stages
from ldp.errors import LdpError

_CHUNK_BYTES = 8 << 20
_DEATH_S = 5.0
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Ready:
    """The process is up, and what it works with is built."""


@dataclass(frozen=True)
class Step:
    """Progress within a photo."""

    done: int
    of: int


@dataclass(frozen=True)
class Package:
    """A pickled object whose large buffers follow on the pipe, in chunks."""

    pickled: bytes
    buffer_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """A step that succeeded; its package's buffers are still in the pipe."""

    seconds: float
    package: Package


@dataclass(frozen=True)
class Refusal:
    """A step that failed as foreseen; the process goes on."""

    seconds: float
    error: PhotoError


@dataclass(frozen=True)
class Collapse:
    """Something that nobody foresaw; the process ends after saying so."""

    error: str
    detail: str


Reply = Ready | Step | Result | Refusal | Collapse


class Worker:
    """A child process seen from the parent. `role` is load, restore or save."""

    def __init__(self, role: str, stages: Stages, log: Path | None) -> None:
        """log: where the process's stderr goes (LibRaw's chatter, crash dumps); None keeps it."""
        self.role = role
        self.ready = False
        self.job: Any = None
        """The job it works on, or whose result waits in it; None when idle."""
        self.seconds = Seconds()
        """Of that job, so far."""
        self.result: Result | None = None
        """Set while a result waits to be taken."""
        self.since = time.monotonic()
        """When what it does now began: its start, or the step it is at."""
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve, args=(role, stages, theirs, log), daemon=True, name=f"dpbatch-{role}"
        )
        with _interrupts_held_back():
            self._process.start()
        theirs.close()

    def give(self, job: Any) -> None:
        """Hands over a new job. Raises OSError where the process is gone."""
        self.job, self.seconds, self.since = job, Seconds(), time.monotonic()
        _send(self.connection, (job,))

    def finish(self) -> Any:
        """Lets go of the job, and says which it was."""
        job, self.job, self.result = self.job, None, None
        return job

    def forward(self, successor: Worker) -> None:
        """Moves the waiting result and its job to `successor`, without a copy in this process.

        Raises OSError or EOFError where either process dies on the way; both are useless then.
        """
        assert self.result is not None
        package = self.result.package
        successor.seconds, successor.job = self.seconds, self.finish()
        successor.connection.send(package)
        for size in package.buffer_bytes:
            for _ in range(0, size, _CHUNK_BYTES):
                successor.connection.send_bytes(self.connection.recv_bytes())
        successor.since = time.monotonic()

    def take(self) -> Any:
        """The waiting result itself. Raises OSError or EOFError as `forward`."""
        assert self.result is not None
        return _receive(self.connection, self.result.package)[1]

    def death(self) -> str:
        """Why a process that stopped answering did so, in words."""
        self._process.join(_DEATH_S)
        code = self._process.exitcode
        if code is None:
            return "it stopped answering"
        if code < 0:
            try:
                return f"killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"killed by signal {-code}"
        return f"exit code {code}"

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether the process is gone, or goes within that time."""
        self._process.join(within_s)
        return not self._process.is_alive()

    def is_overdue(self, limit_s: float) -> bool:
        """Whether its start, or the step it is at, takes longer than that; 0 is no limit."""
        is_busy = not self.ready or (self.job is not None and self.result is None)
        if not is_busy or not 0 < limit_s < time.monotonic() - self.since:
            return False
        return not self.connection.poll()  # what it has said may not have been heard yet

    def end(self) -> None:
        """Sends the process its death; whoever waits for its words is told that it is gone."""
        self._process.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        self.connection.close()
        self._process.kill()
        self._process.join(_DEATH_S)  # one that hangs in a driver's call may never go


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal; one that is starting must not die of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start, inside the first spawn, would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(role: str, stages: Stages, connection: Connection, log: Path | None) -> None:
    """The child's life: build, then one job after the other until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
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
        return  # the parent has hung up, or is gone
    except BaseException as error:
        foreseen = isinstance(error, DpbatchError | LdpError)
        text = str(error) if foreseen else f"{type(error).__name__}: {error}"
        connection.send(Collapse(text, traceback.format_exc()))
        raise


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _step(role: str, stages: Stages, connection: Connection) -> Callable[..., Any]:
    """The role's step as a function of (job, what the step before it gave)."""
    if role == "load":
        return stages.load
    if role == "save":
        return stages.save
    restore = stages.restorer()
    return lambda job, loaded: restore(loaded, lambda done, of: connection.send(Step(done, of)))


def _work(step: Callable[..., Any], connection: Connection) -> None:
    arguments = _receive(connection, connection.recv())
    job = arguments[0]
    start = time.perf_counter()
    try:
        result = step(*arguments)
    except PhotoError as error:
        connection.send(Refusal(time.perf_counter() - start, error))
        return
    del arguments  # the result may wait here a while, what it was made from need not
    seconds = time.perf_counter() - start
    _send(connection, (job, result), lambda package: Result(seconds, package))


def _send(
    connection: Connection, value: object, wrap: Callable[[Package], object] = lambda p: p
) -> None:
    """Sends wrap(package), then the package's buffers; waits until the other end has read them."""
    pickles: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=pickles.append)
    buffers = [item.raw() for item in pickles]
    connection.send(wrap(Package(pickled, tuple(buffer.nbytes for buffer in buffers))))
    for buffer in buffers:
        for start in range(0, buffer.nbytes, _CHUNK_BYTES):
            connection.send_bytes(buffer[start : start + _CHUNK_BYTES])


def _receive(connection: Connection, package: Package) -> Any:
    """The object of a package, its buffers read from the pipe into memory of their own."""
    buffers = []
    for size in package.buffer_bytes:
        buffer = memoryview(bytearray(size))
        for start in range(0, size, _CHUNK_BYTES):
            connection.recv_bytes_into(buffer[start : start + _CHUNK_BYTES])
        buffers.append(buffer)
    return pickle.loads(package.pickled, buffers=buffers)
