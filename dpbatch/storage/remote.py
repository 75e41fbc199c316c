"""Inputs and an output folder on object storage, or on whatever else fsspec reaches by a URL."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dpbatch.errors import AbortError, SettingsError
from dpbatch.location import Location, RemotePath, path_below
from dpbatch.storage import store
from dpbatch.storage.base import AppendLog, Listing, LogReader
from dpbatch.storage.remote_lock import held, is_held
from dpbatch.storage.scratch import remove_stale_scratch, scratch_folder
from dpbatch.storage.segments import SegmentLog, StoredLog, state_folder
from dpbatch.storage.stages import FetchingStages, StoringStages, uploads_folder
from dpbatch.storage.store_errors import reason
from dpbatch.types import BatchStages, FileStamp


class RemoteInputs:
    """Remote files. See `InputSource`. They are as they were when they were listed."""

    def __init__(self) -> None:
        self._stamps: dict[RemotePath, FileStamp] = {}

    def list_files(
        self, given: Sequence[RemotePath], *, recursive: bool, out: Location | None
    ) -> Listing[RemotePath]:
        roots: dict[RemotePath, RemotePath] = {}
        named = set()
        unreadable = []
        for root in given:
            found = _found(root, recursive)
            self._stamps |= found
            if root in found:
                named.add(root)
                roots.setdefault(root, root.parent)
                continue
            for path in sorted(found):
                is_result = out is not None and out != root and path_below(path, out) is not None
                is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
                if is_result or is_hidden:
                    continue
                if found[path].size < 0:
                    message = "a name with empty or dotted parts cannot be a file's"
                    unreadable.append((path, f"{found[path].path}: {message}"))
                else:
                    roots.setdefault(path, root)
        return Listing(roots, frozenset(named), tuple(unreadable))

    def stamp(self, path: RemotePath, content: bool = True) -> FileStamp:
        if path not in self._stamps:
            raise FileNotFoundError(str(path))
        return self._stamps[path]

    def local_file(self, path: RemotePath) -> Path | None:
        return None

    def fetching(self, stages: BatchStages) -> BatchStages:
        return FetchingStages(stages)

    def remove_leftovers(self) -> None:
        remove_stale_scratch()


class RemoteFolder:
    """A remote output folder. See `OutputFolder`. It is listed once, when it is first asked."""

    def __init__(self, root: RemotePath) -> None:
        self.root = root
        self._uploads = uploads_folder(root) / secrets.token_hex(4)
        self._stamps: dict[RemotePath, FileStamp] | None = None

    @property
    def processes_log(self) -> Path:
        return state_folder(self.root) / "processes.log"

    def log(self) -> LogReader:
        return StoredLog(self.root)

    @contextmanager
    def hold(self) -> Iterator[AppendLog]:
        self.processes_log.parent.mkdir(parents=True, exist_ok=True)
        with held(self.root) as lock:
            try:
                log = SegmentLog(self.root, lock.check)
            except OSError as error:
                raise AbortError(
                    f"{self.root}: the journal cannot be written: {reason(error)}"
                ) from error
            try:
                _remove_below(uploads_folder(self.root))  # nobody else writes there now
                yield log
            finally:
                log.close()

    def is_held(self) -> bool | None:
        return is_held(self.root)

    def name_of(self, path: Location) -> str:
        name = path_below(path, self.root)
        if name is None:
            raise ValueError(f"{path} is not in {self.root}")
        return name

    def stamp(self, name: str, content: bool = False) -> FileStamp:
        if self._stamps is None:
            try:
                self._stamps = store.files_below(self.root)
            except OSError as error:
                raise AbortError(f"{self.root}: cannot be listed: {reason(error)}") from error
        if self.root / name not in self._stamps:
            raise FileNotFoundError(str(self.root / name))
        return self._stamps[self.root / name]

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        with scratch_folder() as folder:
            copy = folder / Path(name).name
            store.download(self.root / name, copy)
            yield copy

    def storing(self, stages: BatchStages) -> BatchStages:
        return StoringStages(stages, self._uploads)

    def needs_room_in(self, name: str) -> Path:
        return Path(tempfile.gettempdir())

    def remove_leftovers(self, names: Iterable[str]) -> None:
        remove_stale_scratch()
        _remove_below(self._uploads)  # not another run's, should it have taken over


def _found(given: RemotePath, recursive: bool) -> dict[RemotePath, FileStamp]:
    """Return the files below a remote folder, or the remote file itself."""
    try:
        return store.files_below(given, recursive) or {given: store.stamp_of(given)}
    except FileNotFoundError as error:
        raise SettingsError(f"{given}: no such file or folder") from error
    except OSError as error:
        raise AbortError(f"{given}: cannot be listed: {reason(error)}{_hint(given)}") from error


def _remove_below(folder: RemotePath) -> None:
    with contextlib.suppress(OSError):
        for path in store.files_below(folder):
            store.remove(path)


def _hint(path: RemotePath) -> str:
    if path.protocol in ("s3", "s3a"):
        return (
            "; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
            "the address of a server other than Amazon's from AWS_ENDPOINT_URL"
        )
    return ""
