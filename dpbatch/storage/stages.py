"""The steps of a photo whose files lie on object storage: fetch, let the step work, store.

Loading runs ahead of restoring, so that fetching does too. Nothing appears under a final name
before it is whole: every output is stored under a temporary name and renamed, the main one last.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbatch.errors import DISK_FULL, DiskFullError, OutputError, PhotoError, UnreadableError
from dpbatch.storage import store
from dpbatch.storage.scratch import scratch_folder
from dpbatch.storage.stamps import FOLDER
from dpbatch.storage.urls import location, url_of
from dpbatch.types import FileStamp, Job, Progress, Saved

if TYPE_CHECKING:
    from dpbatch.types import BatchStages


def uploads_folder(out: Path) -> Path:
    """Where in a remote output folder lies what is not whole yet."""
    return out / FOLDER / "uploading"


@dataclass(frozen=True)
class Fetched:
    """What the step before gave, and of photos that were fetched how their files are stored."""

    value: Any
    stored: tuple[FileStamp, ...]


@dataclass(frozen=True)
class RemoteStages:
    """`stages`, of jobs whose photos or outputs, or both, are paths of `urls.place`.

    uploads: the remote folder for what is not whole yet. Each step makes and removes a folder of
    its own on the machine where it runs.
    """

    stages: BatchStages
    uploads: Path

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those of the stages inside."""
        return self.stages.suffixes

    @property
    def fingerprint(self) -> str:
        """That of the stages inside: where files lie changes no pixel."""
        return self.stages.fingerprint

    def load(self, job: Job) -> Fetched:
        """Fetches the photo and loads it. Raises UnreadableError where it cannot be fetched."""
        with scratch_folder() as folder:
            paths, stored, names = [], [], {}
            for number, path in enumerate(job.photo.paths):
                if url_of(path) is None:
                    paths.append(path)
                    continue
                here = folder / str(number) / path.name  # two halves may have one name
                here.parent.mkdir()
                stored.append(_fetch(path, here))
                paths.append(here)
                names[here] = path
            with _named(names):
                photo = replace(job.photo, paths=tuple(paths))
                return Fetched(self.stages.load(replace(job, photo=photo)), tuple(stored))

    def restorer(self) -> Callable[[Fetched, Progress], Fetched]:
        """The restorer of the stages inside, on what was fetched."""
        return _Restorer(self.stages.restorer())

    def save(self, job: Job, restored: Fetched) -> Saved:
        """Saves here and stores it. Raises OutputError where it cannot be stored."""
        if url_of(job.target) is None:
            saved = self.stages.save(job, restored.value)
        else:
            with scratch_folder() as folder:
                saved = self._save_and_store(job, restored.value, folder)
        if restored.stored:
            saved = replace(saved, inputs=tuple(_fetched_stamps(saved.inputs, restored.stored)))
        return saved

    def _save_and_store(self, job: Job, restored: Any, folder: Path) -> Saved:
        names = {folder / path.name: path for path in job.outputs}
        try:
            with _named(names):
                saved = self.stages.save(replace(job, outputs=tuple(names)), restored)
        except DiskFullError as error:
            raise _no_space(folder, job.target) from error
        targets = [names[path] for path in saved.outputs]
        return replace(
            saved,
            outputs=tuple(targets),
            stored=publish(list(saved.outputs), targets, self.uploads),
            warnings=tuple(_renamed(text, names) for text in saved.warnings),
        )


@dataclass(frozen=True)
class _Restorer:
    restore: Callable[[Any, Progress], Any]

    def __call__(self, fetched: Fetched, progress: Progress) -> Fetched:
        return replace(fetched, value=self.restore(fetched.value, progress))


def publish(files: Sequence[Path], targets: Sequence[Path], folder: Path) -> tuple[FileStamp, ...]:
    """Stores local files under their final names, the first one last; returns them as stored.

    All are stored whole below the remote `folder` before the first gets its name.
    Raises OutputError; nothing is left in `folder` then, where the store still answers.
    """
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
        raise OutputError(
            f"{location(targets[0])}: could not be stored: {store.reason(error)}"
        ) from error


def _store(file: Path, temporary: Path, target: Path) -> None:
    store.upload(file, temporary)
    size, expected = store.stamp_of(temporary).size, file.stat().st_size
    if size != expected:
        raise OSError(f"{expected} bytes of {target.name} were sent, {size} are stored")


def _fetch(path: Path, here: Path) -> FileStamp:
    try:
        stored = store.stamp_of(path)
        store.download(path, here)
        size = here.stat().st_size
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _no_space(here.parent.parent, path) from error
        raise UnreadableError(
            f"{location(path)}: cannot be fetched: {store.reason(error)}"
        ) from error
    if size != stored.size:
        raise UnreadableError(
            f"{location(path)}: {size} of {stored.size} bytes came; was it changed meanwhile?"
        )
    return stored


def _fetched_stamps(
    inputs: Sequence[FileStamp], stored: Sequence[FileStamp]
) -> Iterator[FileStamp]:
    """As stored, with the content's hash that loading computed; halves of a pair in one place."""
    for here, there in zip(inputs, stored, strict=True):
        yield replace(there, blake2b=here.blake2b)


def _no_space(scratch: Path, path: Path) -> DiskFullError:
    return DiskFullError(
        f"{scratch.parent}: no space left on the disk for a moment's copy of {location(path)}; "
        "free some space or name a larger folder in the environment variable TMPDIR"
    )


@contextlib.contextmanager
def _named(names: dict[Path, Path]) -> Iterator[None]:
    """Errors name the remote file in the place of its copy here."""
    try:
        yield
    except PhotoError as error:
        raise type(error)(_renamed(str(error), names)) from error


def _renamed(text: str, names: dict[Path, Path]) -> str:
    for here, there in names.items():
        text = text.replace(str(here), location(there))
    return text
