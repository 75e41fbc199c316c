"""The state of results that an earlier run wrote, compared with their stamps in the journal."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from dpbatch.storage.base import OutputFolder
from dpbatch.types import BatchStages, FileStamp


class State(Enum):
    """How a result is now."""

    MISSING = auto()
    AS_WRITTEN = auto()
    TOUCHED = auto()
    """Another time and the same size; the journal, of an earlier release, has no checksum."""
    EDITED = auto()
    """Other content, that opens: somebody's work."""
    DAMAGED = auto()
    """Empty, cut off, or no picture at all."""


@dataclass(frozen=True)
class Results:
    """The results in an output folder. stages: what wrote them."""

    output: OutputFolder
    stages: BatchStages

    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name. Raises OSError."""
        try:
            self.output.stamp(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return False  # saving the photo will say so
            raise
        return True

    def is_damaged(self, name: str) -> bool:
        """Return whether a file is there and does not open; False where it cannot be read."""
        try:
            with self.output.local_copy(name) as path:
                return not self.stages.opens(path)
        except OSError:
            return False

    def state(self, written: FileStamp) -> State:
        """Return how a result is now. written: its stamp in the journal.

        Only a file that has another size or time is opened. Raises OSError.
        """
        if not self.exists(written.path):
            return State.MISSING
        now = self.output.stamp(written.path)
        if now.is_as(written):
            return State.AS_WRITTEN
        if now.size == written.size and written.blake2b:
            now = self.output.stamp(written.path, content=True)
            if now.blake2b == written.blake2b:
                return State.AS_WRITTEN
        if now.size == 0 or not self._opens(now, written):
            return State.DAMAGED
        is_touched = now.size == written.size and not written.blake2b and not now.etag
        return State.TOUCHED if is_touched else State.EDITED

    def _opens(self, now: FileStamp, written: FileStamp) -> bool:
        if now.etag and now.size >= written.size:
            return True  # a store keeps whole files only: not worth fetching it
        try:
            with self.output.local_copy(written.path) as path:
                return self.stages.opens(path)
        except OSError:
            return True  # no permission, or no network: it may be whole

    def are_made_from(self, names: Sequence[str], inputs: Sequence[FileStamp]) -> bool:
        """Return whether files say that a run like this one made them from these inputs.

        Raises OSError.
        """
        return all(self.exists(name) and self._is_made_from(name, inputs) for name in names)

    def _is_made_from(self, name: str, inputs: Sequence[FileStamp]) -> bool:
        with self.output.local_copy(name) as path:
            return self.stages.opens(path) and self.stages.made(path, inputs)
