"""Where a run reads and writes: folders of this machine, or, in `storage`, elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch.batch.journal import Journal, is_locked, locked
from dpbatch.output.atomic import remove_stale_temporaries
from dpbatch.storage.stamps import FOLDER, stamp
from dpbatch.storage.urls import url_of
from dpbatch.types import FileStamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dpbatch.types import BatchStages


class Places:
    """Inputs and outputs on this machine's disks or on shared folders."""

    def __init__(self, out: Path) -> None:
        self._out = out

    @property
    def log(self) -> Path:
        """For what the processes of a run say; its folder is there while `begun`."""
        return self._out / FOLDER / "processes.log"

    def journal(self) -> Journal:
        """Of the output folder, to be read."""
        return Journal(self._out)

    def is_held(self) -> bool | None:
        """Whether a run holds the output folder; None where that cannot be told. Raises OSError."""
        return is_locked(self._out)

    @contextmanager
    def begun(self) -> Iterator[Journal]:
        """Holds the output folder for a run, and gives its journal to be read and written.

        Raises AbortError where another run holds it, or it cannot be written.
        """
        with locked(self._out), Journal(self._out) as journal:
            yield journal

    def stamp(self, path: Path, content: bool = True) -> FileStamp:
        """See `journal.stamp`."""
        return stamp(path, content)

    def files_below(self, given: Path, recursive: bool) -> dict[Path, FileStamp]:
        """The files in a remote folder, or the remote file itself."""
        raise NotImplementedError

    def stages(self, stages: BatchStages) -> BatchStages:
        """The stages, as they work on files of these places."""
        return stages

    def clean(self, folders: Iterable[Path]) -> None:
        """Removes what killed runs left half written in the folders of the outputs."""
        for folder in folders:
            remove_stale_temporaries(folder)


def places_of(inputs: Iterable[Path], out: Path) -> Places:
    """The places of a run: on this machine, unless one of the paths is a URL's."""
    if all(url_of(path) is None for path in (*inputs, out)):
        return Places(out)
    from dpbatch.storage.remote import RemotePlaces

    return RemotePlaces(out)
