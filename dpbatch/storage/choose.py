"""The input source and the output folder of a run, chosen once, at its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dpbatch.location import Location, RemotePath
from dpbatch.storage.base import InputSource, Listing, OutputFolder
from dpbatch.storage.local import LocalFolder, LocalInputs
from dpbatch.types import BatchStages, FileStamp

if TYPE_CHECKING:
    from dpbatch.storage.remote import RemoteInputs


def input_source(given: Sequence[Location]) -> InputSource[Location]:
    """Return the source of the inputs: files and folders of this machine, remote ones, or both."""
    if not any(isinstance(location, RemotePath) for location in given):
        return cast("InputSource[Location]", LocalInputs())  # it is asked about nothing else
    from dpbatch.storage.remote import RemoteInputs

    return _MixedInputs(LocalInputs(), RemoteInputs())


def output_folder(out: Location) -> OutputFolder:
    """Return the output folder that `out` names."""
    if isinstance(out, Path):
        return LocalFolder(out)
    from dpbatch.storage.remote import RemoteFolder

    return RemoteFolder(out)


class _MixedInputs:
    """Inputs of both kinds. See `InputSource`."""

    def __init__(self, local: LocalInputs, remote: RemoteInputs) -> None:
        self._local = local
        self._remote = remote

    def list_files(
        self, given: Sequence[Location], *, recursive: bool, out: Location | None
    ) -> Listing[Location]:
        here = [location for location in given if isinstance(location, Path)]
        there = [location for location in given if isinstance(location, RemotePath)]
        local = self._local.list_files(here, recursive=recursive, out=out)
        remote = self._remote.list_files(there, recursive=recursive, out=out)
        return Listing(
            {**local.roots, **remote.roots},
            local.named | remote.named,
            (*local.unreadable, *remote.unreadable),
        )

    def stamp(self, path: Location, content: bool = True) -> FileStamp:
        if isinstance(path, Path):
            return self._local.stamp(path, content)
        return self._remote.stamp(path, content)

    def local_file(self, path: Location) -> Path | None:
        return path if isinstance(path, Path) else None

    def fetching(self, stages: BatchStages) -> BatchStages:
        return self._remote.fetching(stages)

    def remove_leftovers(self) -> None:
        self._remote.remove_leftovers()
