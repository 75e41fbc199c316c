"""The lock of a remote output folder: an object that names the run that holds it.

It is created in one step where the store can (see `store.create`), and rewritten every few seconds,
so that other runs can distinguish a running holder from one that was killed. Where the store cannot
create in one step, two runs that start within the same second may both get the lock; the one whose
name is overwritten stops at its next line of the journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from dpbatch.errors import AbortError
from dpbatch.location import RemotePath
from dpbatch.storage import store
from dpbatch.storage.base import FOLDER
from dpbatch.storage.store_errors import reason

BEAT_S = 15.0
STALE_S = 120.0
"""A run that has not renewed its lock for so long counts as killed."""
_SETTLE_S = 2.0
_RELEASE_S = 5.0


@dataclass(frozen=True)
class Holder:
    """The run that holds the lock. host: the machine and, on Linux, its process namespace."""

    token: str
    host: str
    pid: int
    since: str

    def encoded(self) -> bytes:
        """Return the content of the lock's object."""
        return json.dumps(asdict(self)).encode()


class Lock:
    """A lock that this process holds and renews until `release`.

    last_renewed_s: when it was last written, as time.monotonic() counts.
    """

    def __init__(self, path: RemotePath, holder: Holder) -> None:
        self._path = path
        self._holder = holder
        self._taken_by: Holder | None = None
        self.last_renewed_s = time.monotonic()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise AbortError where another run has taken the folder, or could have by now."""
        if self._taken_by is not None:
            raise AbortError(
                f"{self._path.parent.parent}: another dpbatch, {_named(self._taken_by)}, "
                "has taken over this output folder; this run stops"
            )
        silent_s = time.monotonic() - self.last_renewed_s
        if silent_s > STALE_S:
            raise AbortError(
                f"{self._path}: could not be renewed for {silent_s:.0f} s; another run "
                "may have taken over this output folder; this run stops"
            )

    def release(self) -> None:
        """Release the folder."""
        self.stop_renewing()
        with contextlib.suppress(OSError):
            if read_holder(self._path) == self._holder:
                store.remove(self._path)

    def stop_renewing(self) -> None:
        """Leave the lock to expire."""
        self._is_over.set()
        self._thread.join(_RELEASE_S)

    def _keep_beating(self) -> None:
        while not self._is_over.wait(BEAT_S):
            with contextlib.suppress(OSError):  # `check` counts how long this goes on
                there = read_holder(self._path)
                if there is not None and there != self._holder:
                    self._taken_by = there
                    return
                now_s = time.monotonic()
                store.write(self._path, self._holder.encoded())
                self.last_renewed_s = now_s


@contextlib.contextmanager
def held(out: RemotePath) -> Iterator[Lock]:
    """Hold a remote output folder for this run.

    Raises AbortError where another run holds it, or nothing can be written there.
    """
    path = out / FOLDER / "lock"
    try:
        lock = _take(path)
    except OSError as error:
        raise AbortError(f"{out}: the output folder cannot be written: {reason(error)}") from error
    try:
        yield lock
    finally:
        lock.release()


def is_held(out: RemotePath) -> bool:
    """Return whether a run holds a remote output folder, by the clock of this machine.

    Writes nothing. Raises OSError where the store cannot be reached.
    """
    path = out / FOLDER / "lock"
    holder = read_holder(path)
    if holder is None:
        return False
    try:
        silent_s = time.time() - store.stamp_of(path).mtime_ns / 1e9
    except FileNotFoundError:
        return False
    return silent_s < STALE_S and not _is_dead_here(holder)


def _take(path: RemotePath) -> Lock:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(secrets.token_hex(8), host_name(), os.getpid(), now)
    try:
        store.create(path, holder.encoded())
        return Lock(path, holder)
    except FileExistsError:
        other = read_holder(path)
    if other == holder:  # created, and the answer was lost
        return Lock(path, holder)
    if other is not None:
        _refuse_if_alive(path, other)
    winner = read_holder(path)
    if winner != other and winner is not None:
        raise _refusal(path, winner, 0.0)
    store.remove(path)
    with contextlib.suppress(FileExistsError):
        store.create(path, holder.encoded())
    # Another run may have found the same dead lock: the one whose name is there in the end has it.
    time.sleep(_SETTLE_S)
    winner = read_holder(path)
    if winner != holder:
        raise _refusal(path, winner, 0.0)
    return Lock(path, holder)


def _refuse_if_alive(path: RemotePath, other: Holder) -> None:
    if _is_dead_here(other):
        return
    # Both times are from the store: the clock of this machine may be wrong.
    probe = path.with_name(f"clock-{secrets.token_hex(8)}")
    store.write(probe, b"")
    try:
        age_s = (store.stamp_of(probe).mtime_ns - store.stamp_of(path).mtime_ns) / 1e9
    except FileNotFoundError:
        return  # just released
    finally:
        store.remove(probe)
    if age_s < STALE_S:
        raise _refusal(path, other, age_s)


def _is_dead_here(holder: Holder) -> bool:
    return holder.host == host_name() and not psutil.pid_exists(holder.pid)


def _refusal(path: RemotePath, other: Holder | None, age_s: float) -> AbortError:
    return AbortError(
        f"{path.parent.parent}: another dpbatch is writing there, "
        f"{_named(other) if other else 'unknown'}, last active {max(age_s, 0):.0f} s ago; wait for "
        "it or give another --out. If you know that it was killed, remove "
        f"{path}, or start again {STALE_S:.0f} s after its last activity"
    )


def _named(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host.partition(' ')[0]} since {holder.since}"


def host_name() -> str:
    """Return a name of this machine and its process namespace."""
    # Containers may share a name, and their process numbers then mean different processes.
    table = ""
    with contextlib.suppress(OSError):
        table = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {table}".strip()


def read_holder(path: RemotePath) -> Holder | None:
    """Return the holder, None where there is no lock; one of a newer release has no name."""
    try:
        content = store.read(path)
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return Holder("", "unknown", 0, "unknown")
