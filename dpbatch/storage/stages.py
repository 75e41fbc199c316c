"""The steps of a photo whose files are remote: fetch, let the step work on local files, store.

Loading runs ahead of restoring, so that fetching does too. Nothing appears under a final name
before it is whole: every output is stored under a temporary name and renamed, the main one last.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpbatch.errors import DISK_FULL, DiskFullError, OutputError, PhotoError, UnreadableError
from dpbatch.location import Location, RemotePath
from dpbatch.storage import store
from dpbatch.storage.base import FOLDER
from dpbatch.storage.scratch import scratch_folder
from dpbatch.storage.store_errors import reason
from dpbatch.types import BatchStages, FileStamp, Job, Photo, Progress, Saved


def uploads_folder(out: RemotePath) -> RemotePath:
    """Return the folder, in a remote output folder, of what is not whole yet."""
    return out / FOLDER / "uploading"


@dataclass(frozen=True)
class Fetched:
    """A photo between its steps.

    value: what the step before returned.
    photo: named by local files, which may be gone.
    stored: the stamps of what was fetched, () where nothing was.
    """

    value: Any
    photo: Photo
    stored: tuple[FileStamp, ...] = ()


@dataclass(frozen=True)
class _WrappedStages:
    """What the stages inside declare: where files lie changes none of it."""

    stages: BatchStages

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those of the stages inside."""
        return self.stages.suffixes

    @property
    def fingerprint(self) -> str:
        """That of the stages inside: where files lie changes no pixel."""
        return self.stages.fingerprint

    @property
    def ordinary_fingerprint(self) -> str:
        """That of the stages inside."""
        return self.stages.ordinary_fingerprint

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """Those of the stages inside."""
        return self.stages.earlier_fingerprints

    def opens(self, path: Path) -> bool:
        """As the stages inside."""
        return self.stages.opens(path)

    def made(self, path: Path, inputs: Sequence[FileStamp]) -> bool:
        """As the stages inside."""
        return self.stages.made(path, inputs)


@dataclass(frozen=True)
class FetchingStages(_WrappedStages):
    """`stages`, for photos that may be remote: they are fetched for the time that loading takes."""

    def load(self, job: Job[Location]) -> Fetched:
        """Fetch the photo and load it. Raises UnreadableError where it cannot be fetched."""
        local = tuple(path for path in job.photo.paths if isinstance(path, Path))
        if len(local) == len(job.photo.paths):
            return self._load(job, local, ())
        with scratch_folder() as folder:
            paths, stored, names = [], [], {}
            for number, path in enumerate(job.photo.paths):
                if isinstance(path, Path):
                    paths.append(path)
                    continue
                copy = folder / str(number) / path.name  # two halves may have one name
                copy.parent.mkdir()
                stored.append(_fetch(path, copy))
                paths.append(copy)
                names[copy] = path
            with _naming(names):
                return self._load(job, tuple(paths), tuple(stored))

    def _load(
        self, job: Job[Location], paths: tuple[Path, ...], stored: tuple[FileStamp, ...]
    ) -> Fetched:
        photo = Photo(job.photo.kind, paths, job.photo.stem, job.photo.folder, job.photo.root)
        value = self.stages.load(Job(job.id, job.name, photo, job.outputs))
        return Fetched(value, photo, stored)

    def restorer(self) -> Callable[[Fetched, Progress], Fetched]:
        """Return the restorer of the stages inside, for what was fetched."""
        return _Restorer(self.stages.restorer())

    def save(self, job: Job[Location], restored: Fetched) -> Saved:
        """Save, and give the inputs the stamps that they have where they are stored."""
        saved = self.stages.save(Job(job.id, job.name, restored.photo, job.outputs), restored.value)
        if not restored.stored:
            return saved
        # With the hash of the content that loading computed.
        inputs = (
            replace(there, blake2b=here.blake2b)
            for here, there in zip(saved.inputs, restored.stored, strict=True)
        )
        return replace(saved, inputs=tuple(inputs))


@dataclass(frozen=True)
class StoringStages(_WrappedStages):
    """`stages`, for results that are remote: they are written here, and stored.

    uploads: the remote folder for what is not whole yet.
    """

    uploads: RemotePath

    def load(self, job: Job[Location]) -> Any:
        """Load as the stages inside do."""
        return self.stages.load(job)

    def restorer(self) -> Callable[[Any, Progress], Any]:
        """Return the restorer of the stages inside."""
        return self.stages.restorer()

    def save(self, job: Job[RemotePath], restored: Any) -> Saved:
        """Save here and store it. Raises OutputError where it cannot be stored."""
        with scratch_folder() as folder:
            names = {folder / path.name: path for path in job.outputs}
            try:
                with _naming(names):
                    saved = self.stages.save(
                        Job(job.id, job.name, job.photo, tuple(names)), restored
                    )
            except DiskFullError as error:
                raise _no_space(folder, job.target) from error
            written = {here: there for here, there in names.items() if here in saved.outputs}
            return replace(
                saved,
                outputs=tuple(written.values()),
                stored=publish(written, self.uploads),
                warnings=tuple(_renamed(text, names) for text in saved.warnings),
            )


@dataclass(frozen=True)
class _Restorer:
    restore: Callable[[Any, Progress], Any]

    def __call__(self, fetched: Fetched, progress: Progress) -> Fetched:
        return replace(fetched, value=self.restore(fetched.value, progress))


def publish(files: Mapping[Path, RemotePath], folder: RemotePath) -> tuple[FileStamp, ...]:
    """Store local files under their final names, the first one last; return them as stored.

    All are stored whole below the remote `folder` before the first gets its name.

    Raises OutputError; nothing is left in `folder` then, where the store still answers.
    """
    targets = list(files.values())
    temporaries = [folder / f"{secrets.token_hex(8)}{target.suffix}" for target in targets]
    try:
        for file, temporary, target in zip(files, temporaries, targets, strict=True):
            _store(file, temporary, target)
        for temporary, target in reversed(list(zip(temporaries, targets, strict=True))):
            store.move(temporary, target)
        return tuple(store.stamp_of(target) for target in targets)
    except OSError as error:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                store.remove(temporary)
        raise OutputError(f"{targets[0]}: could not be stored: {reason(error)}") from error


def _store(file: Path, temporary: RemotePath, target: RemotePath) -> None:
    store.upload(file, temporary)
    size, expected = store.stamp_of(temporary).size, file.stat().st_size
    if size != expected:
        raise OSError(f"{expected} bytes of {target.name} were sent, {size} are stored")


def _fetch(path: RemotePath, copy: Path) -> FileStamp:
    try:
        stored = store.stamp_of(path)
        store.download(path, copy)
        size = copy.stat().st_size
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _no_space(copy.parent.parent, path) from error
        raise UnreadableError(f"{path}: cannot be fetched: {reason(error)}") from error
    if size != stored.size:
        raise UnreadableError(
            f"{path}: {size} of {stored.size} bytes came; was it changed meanwhile?"
        )
    return stored


def _no_space(scratch: Path, path: RemotePath) -> DiskFullError:
    return DiskFullError(
        f"{scratch.parent}: no space left on the disk for a temporary copy of {path}; free some "
        "space or name a larger folder in the environment variable TMPDIR"
    )


@contextlib.contextmanager
def _naming(names: Mapping[Path, RemotePath]) -> Iterator[None]:
    """Make the errors of the block name the remote file instead of its local copy."""
    try:
        yield
    except PhotoError as error:
        raise type(error)(_renamed(str(error), names)) from error


def _renamed(text: str, names: Mapping[Path, RemotePath]) -> str:
    for here, there in names.items():
        text = text.replace(str(here), str(there))
    return text
