"""Inputs and an output folder on the disks of this machine, or on shared folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Self

from dpbatch.errors import SettingsError
from dpbatch.location import Location, absolute, path_below
from dpbatch.output.atomic import remove_stale_temporaries
from dpbatch.storage.base import FOLDER, AppendLog, Listing, LogReader
from dpbatch.storage.local_lock import is_locked, locked
from dpbatch.storage.stamps import stamp
from dpbatch.types import BatchStages, FileStamp


class LocalInputs:
    """Files of this machine. See `InputSource`. Links to folders are followed."""

    def list_files(
        self, given: Sequence[Path], *, recursive: bool, out: Location | None
    ) -> Listing[Path]:
        walk = _Walk(recursive, os.path.realpath(out) if isinstance(out, Path) else "")
        named = set()
        for path in given:
            if path.is_dir():
                walk.take(absolute(path))
            elif path.exists():
                named.add(absolute(path))
                walk.roots.setdefault(absolute(path), absolute(path.parent))
            else:
                raise SettingsError(f"{path}: no such file or folder")
        return Listing(walk.roots, frozenset(named), tuple(walk.unreadable))

    def stamp(self, path: Path, content: bool = True) -> FileStamp:
        return stamp(path, content)

    def local_file(self, path: Path) -> Path | None:
        return path

    def fetching(self, stages: BatchStages) -> BatchStages:
        return stages

    def remove_leftovers(self) -> None:
        return  # nothing is copied


@dataclass
class _Walk:
    """Lists folders. hidden: the real path of the folder that counts in no other one."""

    recursive: bool
    hidden: str
    roots: dict[Path, Path] = field(default_factory=dict)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def take(self, root: Path) -> None:
        """Add what lies below `root`; links last, so that they add only what they alone reach."""
        waiting: list[Path] = [root]
        links: list[Path] = []
        while waiting or links:
            folder = waiting.pop() if waiting else links.pop(0)
            real = os.path.realpath(folder)
            if real in self._seen or (real == self.hidden and folder != root):
                continue
            self._seen.add(real)
            for entry in self._entries(folder):
                path = folder / entry.name
                if not _is_folder(entry):
                    self.roots.setdefault(path, root)
                elif self.recursive:
                    (links if entry.is_symlink() else waiting).append(path)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append((folder, f"{folder.name}: cannot be listed: {error.strerror}"))
            return []
        return [entry for entry in entries if not entry.name.startswith(".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where we may not look
        return False


class LocalFolder:
    """An output folder of this machine. See `OutputFolder`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def processes_log(self) -> Path:
        return self.root / FOLDER / "processes.log"

    def log(self) -> LogReader:
        return FileLog(self.root / FOLDER / "journal.jsonl")

    @contextmanager
    def hold(self) -> Iterator[AppendLog]:
        with locked(self.root), FileLog(self.root / FOLDER / "journal.jsonl") as log:
            yield log

    def is_held(self) -> bool | None:
        return is_locked(self.root)

    def name_of(self, path: Location) -> str:
        name = path_below(path, self.root)
        if name is None:
            raise ValueError(f"{path} is not in {self.root}")
        return name

    def stamp(self, name: str, content: bool = False) -> FileStamp:
        return stamp(self.root / name, content)

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        return nullcontext(self.root / name)

    def storing(self, stages: BatchStages) -> BatchStages:
        return stages

    def needs_room_in(self, name: str) -> Path:
        return (self.root / name).parent

    def remove_leftovers(self, names: Iterable[str]) -> None:
        for folder in {(self.root / name).parent for name in names}:
            remove_stale_temporaries(folder)


def takes_name(folder: Path, name: str) -> bool:
    """Return whether a file system can have a name of that length.

    folder: where; its nearest parent where it does not exist yet.
    """
    try:
        there = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
        (there / name).lstat()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


class FileLog:
    """An `AppendLog` in one file. Use as a context manager where lines are added."""

    def __init__(self, path: Path) -> None:
        """Opens nothing yet."""
        self._path = path
        self._stream: FileIO | None = None
        self._is_torn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def name(self) -> str:
        return str(self._path)

    def lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as lines:
                yield from lines
        except FileNotFoundError:
            return

    def append(self, line: bytes) -> None:
        stream = self._stream or self._open()
        if self._is_torn:
            line = b"\n" + line
        self._is_torn = True  # unless what follows succeeds
        if stream.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(stream.fileno())
        self._is_torn = False

    def _open(self) -> FileIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a line that did not fit on the disk must not come again at closing.
        self._stream = FileIO(self._path, "a+")
        if self._stream.seek(0, os.SEEK_END):
            self._stream.seek(-1, os.SEEK_END)
            self._is_torn = self._stream.read(1) != b"\n"
        return self._stream
