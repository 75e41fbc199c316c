"""The steps of a photo as the stages of a run, which also stamp the inputs for the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dpbatch import __version__, photo
from dpbatch.errors import UnreadableError
from dpbatch.photo import LoadedPhoto, RestoredPhoto
from dpbatch.settings import Settings, described, fingerprint
from dpbatch.storage.stamps import stamp
from dpbatch.types import FileStamp, Job, Photo, Progress, Saved

if TYPE_CHECKING:
    from dpbatch.output.metadata import ProcessingNote

T = TypeVar("T")


@dataclass(frozen=True)
class Stamped(Generic[T]):
    """The result of a step, with stamps of the photo's files taken before they were read."""

    value: T
    inputs: tuple[FileStamp, ...]


def stamped(photo: Photo, load: Callable[[Photo], T]) -> Stamped[T]:
    """Stamp a photo's files, then load it. Raises PhotoError."""
    try:
        inputs = tuple(stamp(path) for path in photo.paths)
    except OSError as error:
        raise UnreadableError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return Stamped(load(photo), inputs)


@dataclass(frozen=True)
class PhotoStages:
    """The steps of `dpbatch.photo` with the settings of a run.

    weights_sha256: of the network. clip_id: see `dpbatch.tools.models.clip_id`.
    """

    settings: Settings
    weights_sha256: str
    clip_id: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """See `BatchStages`."""
        output = self.settings.output
        return (
            f".{output.format}",
            *(f".{layer}.{output.layer_format}" for layer in output.layers),
        )

    @property
    def fingerprint(self) -> str:
        """See `BatchStages`."""
        return fingerprint(self.settings, self.weights_sha256, self.clip_id)

    def load(self, job: Job) -> Stamped[LoadedPhoto]:
        """See `photo.load`."""
        return stamped(job.photo, lambda files: photo.load(files, self.settings.raw))

    def restorer(self) -> Callable[[Stamped[LoadedPhoto], Progress], Stamped[RestoredPhoto]]:
        """See `photo.Restorer`."""
        keep_blur_map = bool(self.settings.output.layers)
        restore = photo.Restorer(self.settings.restore, keep_blur_map)
        return lambda loaded, progress: Stamped(restore(loaded.value, progress), loaded.inputs)

    def save(self, job: Job, restored: Stamped[RestoredPhoto]) -> Saved:
        """See `photo.save`."""
        model = Path(self.settings.restore.model).stem
        note = processing_note(
            job.photo, self.settings, model=model, weights_sha256=self.weights_sha256
        )
        warnings = photo.save(restored.value, job.target, self.settings.output, note)
        return Saved(restored.inputs, job.outputs, warnings)


def processing_note(
    photo: Photo, settings: Settings, *, model: str = "", weights_sha256: str = ""
) -> ProcessingNote:
    """Return what a photo's results say about how they were made."""
    from dpbatch.output.metadata import ProcessingNote

    return ProcessingNote(
        version=__version__,
        source=" + ".join(path.name for path in photo.paths),
        model=model,
        weights_sha256=weights_sha256,
        settings=described(settings),
    )
