"""A child process of the local engine: does one step of one photo after another.

A result stays in its process until the next process takes it, so the number of processes bounds the
memory. A process with several pipes holds as many photos: it receives the next one and hands the
last one on while it works on another.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from dpbatch.engine.transport import Package, receive, send
from dpbatch.errors import DpbatchError, PhotoError
from dpbatch.hints import hinted
from dpbatch.types import JobT, LoadedT, RestoredT, Stages
from ldp.errors import LdpError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Only the parent acts on them."""


@dataclass(frozen=True)
class Ready:
    """The process has started, and the step is built."""


@dataclass(frozen=True)
class Started:
    """The step begins: the photo has arrived, and no other one is worked on."""


@dataclass(frozen=True)
class Progressed:
    """Progress within a photo: `done` of `total` parts."""

    done: int
    total: int


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


Reply = Ready | Started | Progressed | Result | Rejected | Crashed
_Step = Callable[..., object]
"""step(report, job, result of the step before); report(done, total) reports progress."""


def serve(
    role: str,
    stages: Stages[JobT, LoadedT, RestoredT],
    connections: Sequence[Connection],
    log: Path | None,
) -> None:
    """Run the child: build the step, then do one job after the other until the pipes close.

    connections: as many as photos may be here at a time.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if log is not None:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    faulthandler.enable()
    try:
        step = _step(role, stages)
    except BaseException as error:
        for connection in connections:
            connection.send(_crashed(error))
        raise
    turn = threading.Lock()
    for connection in connections[1:]:
        beside = threading.Thread(target=_serve_beside, args=(step, connection, turn), daemon=True)
        beside.start()
    _serve_pipe(step, connections[0], turn)


def _serve_pipe(step: _Step, connection: Connection, turn: threading.Lock) -> None:
    """Do the jobs that come through a pipe. turn: held by the one that works."""
    try:
        connection.send(Ready())
        while True:
            _work(step, connection, turn)
    except (EOFError, ConnectionError):
        return  # the parent has closed the pipe, or is dead
    except BaseException as error:
        connection.send(_crashed(error))
        raise


def _serve_beside(step: _Step, connection: Connection, turn: threading.Lock) -> None:
    is_over = False
    try:
        _serve_pipe(step, connection, turn)
        is_over = True
    finally:
        if not is_over:
            traceback.print_exc()
            os._exit(1)  # an exception ends a thread only


def _crashed(error: BaseException) -> Crashed:
    is_expected = isinstance(error, DpbatchError | LdpError)
    text = hinted(error) if is_expected else f"{type(error).__name__}: {error}"
    return Crashed(text, traceback.format_exc())


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _step(role: str, stages: Stages[JobT, LoadedT, RestoredT]) -> _Step:
    """Build the role's step."""
    if role == "load":
        return lambda _report, job: stages.load(job)
    if role == "save":
        return lambda _report, job, restored: stages.save(job, restored)
    restore = stages.restorer()
    return lambda report, _job, loaded: restore(loaded, report)


def _work(step: _Step, connection: Connection, turn: threading.Lock) -> None:
    arguments = receive(connection, connection.recv())
    job = arguments[0]
    turn.acquire()  # and never released after an unexpected exception, which ends the process
    connection.send(Started())
    start = time.perf_counter()
    try:
        result = step(lambda done, total: connection.send(Progressed(done, total)), *arguments)
    except PhotoError as error:
        seconds = time.perf_counter() - start
        turn.release()
        connection.send(Rejected(seconds, error))
        return
    seconds = time.perf_counter() - start
    turn.release()
    del arguments  # the result may wait here for a while; its input is no longer needed
    send(connection, (job, result), lambda package: Result(seconds, package))
