"""The journal of an output folder: what was begun, is done, failed and why; the key to resuming.

Append-only JSON lines in OUT/.dpbatch/journal.jsonl, one an event, each on the disk before the run
goes on. A last line torn by a crash is ignored. The journal is kept by target: what the newest
lines say about a target decides whether it must be made, and whether the file there is ours.
Lines about a run as a whole stand between them, for `dpbatch status`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any, Self

from dpbatch.errors import DISK_FULL, AbortError
from dpbatch.storage.stamps import FOLDER
from dpbatch.storage.urls import location
from dpbatch.types import FileStamp

_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.1


@dataclass(frozen=True)
class Record:
    """One line about a photo. status: started, done, skipped, failed.

    A `started` with a code and a message tells of a try that failed; the photo runs again.

    target: the picture's path below the output folder, with /; "" for an input that is no photo.
    source: the photo's first file.
    outputs: their paths are below the output folder too.
    """

    status: str
    target: str
    source: str
    fingerprint: str = ""
    inputs: tuple[FileStamp, ...] = ()
    outputs: tuple[FileStamp, ...] = ()
    stage: str = ""
    code: str = ""
    message: str = ""
    detail: str = ""
    load_s: float = 0.0
    restore_s: float = 0.0
    save_s: float = 0.0
    time: str = ""


@dataclass(frozen=True)
class RunLine:
    """One line about a run. event: run-started, run-planned, run-paused, run-resumed, run-ended.

    run-started tells how many `inputs` there are, run-planned how many photos are `to_do` and how
    many inputs are skipped, by code; failed ones have lines of their own. A run that was killed has
    no run-ended.
    """

    event: str
    inputs: int = 0
    to_do: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    exit_code: int = 0
    message: str = ""
    time: str = ""


@dataclass(frozen=True)
class Past:
    """What the journal knows of one target: its newest line and its newest `done`."""

    last: Record
    done: Record | None


def journal_path(out: Path) -> Path:
    """The journal of an output folder of this machine."""
    return out / FOLDER / "journal.jsonl"


def _never() -> bool:
    return False


class Journal:
    """An output folder's journal. Use as a context manager.

    on_full: asked where a line does not fit on the disk; True to try once more.
    """

    def __init__(self, out: Path) -> None:
        """Reads what is there, writes nothing yet. Raises AbortError where it cannot be read."""
        self.on_full: Callable[[], bool] = _never
        self._path = journal_path(out)
        self._past: dict[str, Past] = {}
        self._stream: FileIO | None = None
        self._is_torn = False
        try:
            for line in self.history():
                if isinstance(line, Record):
                    self._remember(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AbortError(
                f"{location(self._path)}: the journal cannot be read: {error}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def past(self, target: str) -> Past | None:
        """What is known of a target (its path below the output folder, with /)."""
        return self._past.get(target)

    def append(self, line: Record | RunLine) -> None:
        """Writes one line, on the disk when this returns. Raises AbortError where it cannot."""
        stamped = {**asdict(line), "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        text = json.dumps({name: value for name, value in stamped.items() if value}) + "\n"
        while True:
            try:
                self._write(text.encode())
                break
            except OSError as error:
                if error.errno in DISK_FULL and self.on_full():
                    continue
                where = location(self._path)
                raise AbortError(f"{where}: the journal cannot be written: {error}") from error
        if isinstance(line, Record):
            self._remember(line)

    def _write(self, line: bytes) -> None:
        if self._stream is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line that did not fit on the disk must not come again at closing.
            self._stream = FileIO(self._path, "a")
        if self._is_torn:
            line = b"\n" + line
        self._is_torn = True  # unless what follows succeeds
        if self._stream.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._stream.fileno())
        self._is_torn = False

    def _remember(self, record: Record) -> None:
        old = self._past.get(record.target)
        done = record if record.status == "done" else old.done if old is not None else None
        self._past[record.target] = Past(record, done)

    def history(self) -> Iterator[Record | RunLine]:
        """All that was ever written, oldest first, read anew. Raises OSError."""
        for line in self._lines():
            self._is_torn = not line.endswith(b"\n")
            # A line that is none of ours was torn by a crash or comes from a newer release.
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                yield _parsed(json.loads(line))

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as lines:
            yield from lines


def _parsed(values: dict[str, Any]) -> Record | RunLine:
    if "event" in values:
        skipped = tuple((str(code), int(count)) for code, count in values.pop("skipped", ()))
        return RunLine(**values, skipped=skipped)
    for name in ("inputs", "outputs"):
        values[name] = tuple(FileStamp(**item) for item in values.get(name, ()))
    return Record(**values)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds an output folder for this run; a process that dies lets go of it.

    Raises AbortError where another run holds it, or the folder cannot be written.
    """
    path = out / FOLDER / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    except OSError as error:
        raise AbortError(f"{out}: the output folder cannot be written: {error}") from error
    with stream:
        for tries_left in reversed(range(_LOCK_TRIES)):
            try:
                _lock(stream)
                break
            except OSError as error:
                if not tries_left:
                    raise AbortError(
                        f"{out}: another dpbatch is writing there; wait for it or give another "
                        "--out"
                    ) from error
            time.sleep(_LOCK_PAUSE_S)  # a look by `is_locked` holds it for an instant
        yield


def is_locked(out: Path) -> bool | None:
    """Whether a run holds an output folder; None where that cannot be told."""
    try:
        with (out / FOLDER / "lock").open("rb") as stream:
            try:
                return False if _lock(stream, shared=True) else None
            except OSError:
                return True
    except FileNotFoundError:
        return False
    except OSError:
        return None


if os.name == "nt":

    def _lock(stream: IO[bytes], shared: bool = False) -> bool:
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return True

else:

    def _lock(stream: IO[bytes], shared: bool = False) -> bool:
        """Takes the lock, OSError where another has it. False where there are no locks."""
        import fcntl

        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False  # some network file systems know none; the run goes on without one
        return True
