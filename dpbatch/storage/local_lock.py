"""One run at a time in an output folder of this machine or on a shared folder.

The lock is the operating system's, on OUT/.dpbatch/lock: a process that is killed lets go of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dpbatch.errors import AbortError
from dpbatch.storage.base import FOLDER

_WAIT_S, _POLL_S = 0.5, 0.1


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold an output folder for this run.

    Where the file system has no locks (some network ones), the run goes on without one.

    Raises AbortError where another run holds it, or the folder cannot be written.
    """
    path = out / FOLDER / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise AbortError(f"{out}: the output folder cannot be written: {error}") from error
    # filelock's own answer to missing locks is a marker file, which outlives a run that is killed.
    lock = FileLock(path, timeout=_WAIT_S, poll_interval=_POLL_S, fallback_to_soft=False)
    try:
        lock.acquire()  # tries for a moment: `is_locked` holds it for an instant
    except Timeout as error:
        raise AbortError(
            f"{out}: another dpbatch is writing there; wait for it or give another --out"
        ) from error
    except OSError:
        pass
    try:
        yield
    finally:
        lock.release()


def is_locked(out: Path) -> bool | None:
    """Return whether a run holds an output folder; None where that is unknown."""
    try:
        return _is_locked(out / FOLDER / "lock")
    except FileNotFoundError:
        return False
    except OSError:
        return None


if os.name == "nt":

    def _is_locked(path: Path) -> bool:
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

else:

    def _is_locked(path: Path) -> bool:
        """Raises OSError where the file system has no locks.

        A shared lock on a file opened for reading, which filelock does not have: a look needs no
        permission to write, and two of them do not see each other.
        """
        import fcntl

        with path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return True
        return False
