"""The journal of a remote output folder: OUT/.dpbatch/journal-000001-….jsonl, and so on.

Objects cannot be appended to. A run therefore writes a journal file of its own, stored anew with
each line and followed by the next one before it grows large; all of them in their order are the
journal. Each line is first written to a disk of this machine: what could not be stored because the
network failed is stored by the next run from here.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from dpbatch.batch.journal import Journal
from dpbatch.errors import AbortError
from dpbatch.storage import store
from dpbatch.storage.lock import Lock
from dpbatch.storage.stamps import FOLDER
from dpbatch.storage.urls import location

SEGMENT_BYTES = 128 * 1024
_SEGMENT = re.compile(r"^journal-(?P<number>\d{6,})-[0-9a-f]{8}\.jsonl$")


def state_folder(out: Path) -> Path:
    """Where this machine keeps what belongs to a remote output folder and is not stored yet."""
    given = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    state = Path(given) if given else Path.home() / ".local" / "state"
    digest = hashlib.blake2b(location(out).encode(), digest_size=6).hexdigest()
    return state / "dpbatch" / f"{out.name}-{digest}"


class SegmentJournal(Journal):
    """A journal as `Journal` is, of a remote output folder. Use as a context manager."""

    def __init__(self, out: Path, lock: Lock | None = None) -> None:
        """Reads what is stored; without a lock, only for reading.

        With it, what earlier runs of this machine could not store is stored first.
        """
        self._out = out / FOLDER
        self._here = state_folder(out)
        self._lock = lock
        self._content = b""
        self._is_stored = False
        self._segment = ""
        self._number = 0
        if lock is not None:
            try:
                self._store_what_is_left()
            except OSError as error:
                raise AbortError(
                    f"{location(self._out)}: the journal cannot be written: {store.reason(error)}"
                ) from error
        super().__init__(out)

    def __exit__(self, *_: object) -> None:
        self._forget_here()

    def _lines(self) -> Iterator[bytes]:
        stored = self._stored()
        segments = sorted(
            (int(match["number"]), name) for name in stored if (match := _SEGMENT.match(name))
        )
        if segments:
            self._number = segments[-1][0]
        for _, name in segments:
            yield from store.read(self._out / name).splitlines(keepends=True)

    def _stored(self) -> dict[str, int]:
        """The sizes in bytes of the journal's files, by name."""
        found = store.files_below(self._out, recursive=False)
        return {path.name: stamp.size for path, stamp in found.items()}

    def _store_what_is_left(self) -> None:
        stored = self._stored()
        for path in sorted(self._here.glob("journal-*.jsonl")):
            content = path.read_bytes()
            if len(content) > stored.get(path.name, 0):
                store.write(self._out / path.name, content)
            path.unlink()

    def _write(self, line: bytes) -> None:
        assert self._lock is not None
        self._lock.check()
        if not self._segment or len(self._content) > SEGMENT_BYTES:
            self._begin_segment()
        with (self._here / self._segment).open("r+b") as stream:
            stream.seek(len(self._content))  # what did not fit on the disk before is written over
            stream.write(line)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
        self._content += line
        self._is_stored = False
        store.write(self._out / self._segment, self._content)
        self._is_stored = True

    def _forget_here(self) -> None:
        if self._segment and self._is_stored:
            (self._here / self._segment).unlink()

    def _begin_segment(self) -> None:
        self._here.mkdir(parents=True, exist_ok=True)
        name = f"journal-{self._number + 1:06}-{secrets.token_hex(4)}.jsonl"
        (self._here / name).touch()
        self._forget_here()
        self._segment, self._number, self._content = name, self._number + 1, b""
