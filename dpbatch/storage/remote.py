"""Where a run reads and writes when its inputs or its outputs, or both, are on object storage."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch.batch.journal import Journal
from dpbatch.errors import AbortError, SettingsError
from dpbatch.storage import store
from dpbatch.storage.lock import held, is_held
from dpbatch.storage.places import Places
from dpbatch.storage.scratch import remove_stale_scratch
from dpbatch.storage.segments import SegmentJournal, state_folder
from dpbatch.storage.stages import RemoteStages, uploads_folder
from dpbatch.storage.urls import location, url_of
from dpbatch.types import FileStamp

if TYPE_CHECKING:
    from dpbatch.types import BatchStages


class RemotePlaces(Places):
    """See `Places`. A remote folder is listed once, when it is first asked about."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self._is_out_remote = url_of(out) is not None
        self._seen: dict[Path, FileStamp] = {}
        self._is_out_listed = False
        self._uploads = uploads_folder(out) / secrets.token_hex(4)

    @property
    def log(self) -> Path:
        return state_folder(self._out) / "processes.log" if self._is_out_remote else super().log

    def journal(self) -> Journal:
        return SegmentJournal(self._out) if self._is_out_remote else super().journal()

    def is_held(self) -> bool | None:
        return is_held(self._out) if self._is_out_remote else super().is_held()

    @contextmanager
    def begun(self) -> Iterator[Journal]:
        if not self._is_out_remote:
            with super().begun() as journal:
                yield journal
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with held(self._out) as lock, SegmentJournal(self._out, lock) as journal:
            _remove_below(uploads_folder(self._out))  # nobody else writes there now
            yield journal

    def stamp(self, path: Path, content: bool = True) -> FileStamp:
        """As a remote file was when its folder was listed; its content is never read."""
        if url_of(path) is None:
            return super().stamp(path, content)
        if not self._is_out_listed and path not in self._seen and path.is_relative_to(self._out):
            self._list_out()
        if path not in self._seen:
            raise FileNotFoundError(location(path))
        return self._seen[path]

    def files_below(self, given: Path, recursive: bool) -> dict[Path, FileStamp]:
        try:
            found = store.files_below(given, recursive) or {given: store.stamp_of(given)}
        except FileNotFoundError as error:
            raise SettingsError(f"{location(given)}: no such file or folder") from error
        except OSError as error:
            raise AbortError(
                f"{location(given)}: cannot be listed: {store.reason(error)}{_hint(given)}"
            ) from error
        self._seen |= found
        return found

    def stages(self, stages: BatchStages) -> BatchStages:
        return RemoteStages(stages, self._uploads)

    def clean(self, folders: Iterable[Path]) -> None:
        """Removes also what processes of this machine that were killed had fetched."""
        remove_stale_scratch()
        if not self._is_out_remote:
            super().clean(folders)
            return
        _remove_below(self._uploads)  # not another run's, should it have taken over

    def _list_out(self) -> None:
        try:
            self._seen |= store.files_below(self._out)
        except OSError as error:
            raise AbortError(
                f"{location(self._out)}: cannot be listed: {store.reason(error)}"
            ) from error
        self._is_out_listed = True


def _remove_below(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in store.files_below(folder):
            store.remove(path)


def _hint(path: Path) -> str:
    if path.parts[1] in ("s3:", "s3a:"):
        return (
            "; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
            "the address of a server other than Amazon's from AWS_ENDPOINT_URL"
        )
    return ""
