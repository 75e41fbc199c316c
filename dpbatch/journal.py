"""The journal of an output folder: what was begun, is done, failed and why; the key to resuming.

Append-only JSON lines in OUT/.dpbatch/journal.jsonl, one an event, each on the disk before the run
goes on. A last line torn by a crash is ignored. The journal is kept by target: what the newest
lines say about a target decides whether it must be made, and whether the file there is ours.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any, Self

from dpbatch.errors import AbortError

FOLDER = ".dpbatch"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class FileStamp:
    """A file as it was at one moment. blake2b is of its content, "" where it was not read."""

    path: str
    size: int
    mtime_ns: int
    blake2b: str = ""


@dataclass(frozen=True)
class Record:
    """One line. status: started, done, skipped, failed.

    target: the picture's path below the output folder, with /.
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
class Past:
    """What the journal knows of one target: its newest line and its newest `done`."""

    last: Record
    done: Record | None


def stamp(path: Path, content: bool = True) -> FileStamp:
    """A file's stamp; with `content` the whole file is read and hashed (about 1 GB/s)."""
    before = path.stat()
    digest = ""
    if content:
        running = hashlib.blake2b(digest_size=16)
        with path.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                running.update(block)
        digest = running.hexdigest()
    return FileStamp(str(path), before.st_size, before.st_mtime_ns, digest)


def same_content(known: Sequence[FileStamp], paths: Sequence[Path]) -> bool:
    """Whether files still have the content of their stamps.

    Same size and same modification time count as the same content, as for make and rsync; where
    only the time differs (a copy, a touched file) the content is read.
    """
    if len(known) != len(paths):
        return False
    for old, path in zip(known, paths, strict=True):
        try:
            now = stamp(path, content=False)
            if now.size != old.size:
                return False
            if now.mtime_ns != old.mtime_ns and stamp(path).blake2b != old.blake2b:
                return False
        except OSError:
            return False  # unreadable now: loading it will say why
    return True


def unchanged(known: Sequence[FileStamp], folder: Path) -> bool:
    """Whether the files of a record that still lie below `folder` are as they were written."""
    for old in known:
        try:
            now = stamp(folder / old.path, content=False)
        except FileNotFoundError:
            continue
        if (now.size, now.mtime_ns) != (old.size, old.mtime_ns):
            return False
    return True


class Journal:
    """An output folder's journal. Use as a context manager."""

    def __init__(self, out: Path) -> None:
        """Reads what is there, writes nothing yet. Raises AbortError where it cannot be read."""
        self._path = out / FOLDER / "journal.jsonl"
        self._past: dict[str, Past] = {}
        self._stream: FileIO | None = None
        self._is_torn = False
        try:
            for record in self._read():
                self._remember(record)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AbortError(f"{self._path}: the journal cannot be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def past(self, target: str) -> Past | None:
        """What is known of a target (its path below the output folder, with /)."""
        return self._past.get(target)

    def append(self, record: Record) -> None:
        """Writes one line, on the disk when this returns. Raises AbortError where it cannot."""
        stamped = {**asdict(record), "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line = json.dumps({name: value for name, value in stamped.items() if value}) + "\n"
        try:
            self._write(line.encode())
        except OSError as error:
            raise AbortError(f"{self._path}: the journal cannot be written: {error}") from error
        self._remember(record)

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

    def _read(self) -> Iterator[Record]:
        with self._path.open("rb") as lines:
            for line in lines:
                self._is_torn = not line.endswith(b"\n")
                # A line that is no record was torn by a crash or comes from a newer release.
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    yield _record(json.loads(line))


def _record(values: dict[str, Any]) -> Record:
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
        try:
            _lock(stream)
        except OSError as error:
            raise AbortError(
                f"{out}: another dpbatch is writing there; wait for it or give another --out"
            ) from error
        yield


if os.name == "nt":

    def _lock(stream: IO[bytes]) -> None:
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:

    def _lock(stream: IO[bytes]) -> None:
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            # Some network file systems know no locks; there the run goes on without one.
