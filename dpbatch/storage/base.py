"""The seams between a run and its files: where photos come from, where results go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol

from dpbatch.location import Location, P
from dpbatch.types import BatchStages, FileStamp

FOLDER = ".dpbatch"
"""Below the output folder: the journal, the lock and what else a run keeps beside its results."""


@dataclass(frozen=True)
class Listing(Generic[P]):
    """The files in the inputs of a run.

    roots: every file, absolute, with the folder given that it was found in.
    named: the files that were given themselves.
    unreadable: folders and names that cannot be read, each with the reason.
    """

    roots: Mapping[P, P]
    named: frozenset[P]
    unreadable: tuple[tuple[P, str], ...] = ()


class InputSource(Protocol[P]):
    """Files that photos are read from. P: the locations that it understands."""

    def list_files(
        self, given: Sequence[P], *, recursive: bool, out: Location | None
    ) -> Listing[P]:
        """List the given files, and the files in the given folders.

        A file or folder reached twice counts once. Hidden ones, and those in `out` below a given
        folder, do not count.

        Raises SettingsError where something given does not exist, AbortError where it cannot be
        listed.
        """

    def stamp(self, path: P, content: bool = True) -> FileStamp:
        """Return a file's stamp, with a hash where `content` is wanted and cheap to read.

        Raises OSError where there is no such file.
        """

    def local_file(self, path: P) -> Path | None:
        """Return the file on a disk of this machine, None where it would have to be fetched."""

    def fetching(self, stages: BatchStages) -> BatchStages:
        """Return the stages for photos of this source, made from stages for local files."""

    def remove_leftovers(self) -> None:
        """Remove the copies that processes of this machine left when they were killed."""


class LogReader(Protocol):
    """Lines that are kept in order."""

    @property
    def name(self) -> str:
        """Path or URL, for messages."""

    def lines(self) -> Iterator[bytes]:
        """Yield every line from the oldest on, with its line end; none where there is no log.

        A line that was torn by a crash is yielded as it is. Raises OSError.
        """


class AppendLog(LogReader, Protocol):
    """Lines that are only ever added to."""

    def append(self, line: bytes) -> None:
        """Add a line, which ends with a line end; it is durable when this returns.

        A line that could not be added may be added again. Raises OSError, and AbortError where
        this run no longer holds the folder.
        """


class OutputFolder(Protocol):
    """The folder that results are written to. Names are paths below it, with /."""

    @property
    def root(self) -> Location:
        """The folder itself."""

    @property
    def processes_log(self) -> Path:
        """A file of this machine for what the processes of a run print.

        Its folder is there while the output folder is held.
        """

    def log(self) -> LogReader:
        """Return the journal's log, to be read."""

    def hold(self) -> AbstractContextManager[AppendLog]:
        """Hold the folder for one run, and give the journal's log.

        Raises AbortError where another run holds it, or it cannot be written.
        """

    def is_held(self) -> bool | None:
        """Return whether a run holds the folder; None where that is unknown. Writes nothing.

        Raises OSError where the folder cannot be read.
        """

    def name_of(self, path: Location) -> str:
        """Return the name of a file in the folder. Raises ValueError where it is not in it."""

    def stamp(self, name: str, content: bool = False) -> FileStamp:
        """Return a result's stamp, with a hash where `content` is wanted and cheap to read.

        Raises OSError where there is no such file.
        """

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """Give a result as a file of this machine while the context is open. Raises OSError."""

    def storing(self, stages: BatchStages) -> BatchStages:
        """Return the stages for results in this folder, made from stages for local files."""

    def needs_room_in(self, name: str) -> Path:
        """Return the folder of this machine whose disk a result fills while it is written."""

    def remove_leftovers(self, names: Iterable[str]) -> None:
        """Remove what killed runs left half written beside the results of these names."""
