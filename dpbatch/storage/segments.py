"""The journal of a remote output folder: OUT/.dpbatch/journal-000001-….jsonl, and so on.

Objects cannot be appended to. A run therefore writes a segment of its own, stored anew with each
line, and starts the next one before it grows large; all segments in their order are the journal.
Each line is first written to a disk of this machine: what could not be stored because the network
failed is stored by the next run from here.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from dpbatch.location import RemotePath
from dpbatch.storage import store
from dpbatch.storage.base import FOLDER

SEGMENT_BYTES = 128 * 1024
_SEGMENT = re.compile(r"^journal-(?P<number>\d{6,})-[0-9a-f]{8}\.jsonl$")


def state_folder(out: RemotePath) -> Path:
    """Return the folder of this machine for what is not stored in a remote output folder yet.

    It lies below XDG_STATE_HOME where that is set, else where the system keeps a user's state.
    """
    given = os.environ.get("XDG_STATE_HOME")
    state = Path(given, "dpbatch") if given else platformdirs.user_state_path("dpbatch", False)
    digest = hashlib.blake2b(os.fsencode(str(out)), digest_size=6).hexdigest()
    return state / f"{out.name}-{digest}"


class StoredLog:
    """The segments of a remote output folder, to be read. See `LogReader`."""

    def __init__(self, out: RemotePath) -> None:
        self._folder = out / FOLDER

    @property
    def name(self) -> str:
        return str(self._folder)

    def lines(self) -> Iterator[bytes]:
        for name in self.segments():
            yield from store.read(self._folder / name).splitlines(keepends=True)

    def segments(self) -> dict[str, int]:
        """Return the stored segments, oldest first, with their sizes in bytes. Raises OSError."""
        found = store.files_below(self._folder, recursive=False)
        sizes = {path.name: stamp.size for path, stamp in found.items()}
        return {name: sizes[name] for name in sorted(sizes, key=_number) if _number(name)}


class SegmentLog:
    """The same while a run holds the folder, to be added to. See `AppendLog`."""

    def __init__(self, out: RemotePath, check_lock: Callable[[], None]) -> None:
        """Store what earlier runs of this machine could not store.

        check_lock: raises AbortError where the run no longer holds the folder.

        Raises OSError.
        """
        self._stored = StoredLog(out)
        self._folder = out / FOLDER
        self._here = state_folder(out)
        self._check_lock = check_lock
        self._content = b""
        self._is_stored = False
        self._segment = ""
        self._store_what_is_left()
        self._number = max(map(_number, self._stored.segments()), default=0)

    @property
    def name(self) -> str:
        return self._stored.name

    def lines(self) -> Iterator[bytes]:
        return self._stored.lines()

    def append(self, line: bytes) -> None:
        self._check_lock()
        if not self._segment or len(self._content) > SEGMENT_BYTES:
            self._start_segment()
        with (self._here / self._segment).open("r+b") as stream:
            stream.seek(len(self._content))  # what did not fit on the disk before is written over
            stream.write(line)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())
        self._content += line
        self._is_stored = False
        store.write(self._folder / self._segment, self._content)
        self._is_stored = True

    def close(self) -> None:
        """Remove the copy on this machine's disk, unless it has lines that could not be stored."""
        if self._segment and self._is_stored:
            (self._here / self._segment).unlink()

    def _store_what_is_left(self) -> None:
        stored = self._stored.segments()
        for path in sorted(self._here.glob("journal-*.jsonl")):
            content = path.read_bytes()
            if len(content) > stored.get(path.name, 0):
                store.write(self._folder / path.name, content)
            path.unlink()

    def _start_segment(self) -> None:
        self._here.mkdir(parents=True, exist_ok=True)
        name = f"journal-{self._number + 1:06}-{secrets.token_hex(4)}.jsonl"
        (self._here / name).touch()
        self.close()
        self._segment, self._number, self._content = name, self._number + 1, b""


def _number(name: str) -> int:
    """Return a segment's number in the journal, from 1 on; 0 for another file."""
    match = _SEGMENT.match(name)
    return int(match["number"]) if match else 0
