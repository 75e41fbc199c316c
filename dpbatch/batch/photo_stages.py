"""The steps of a photo as the stages of a run, which also stamp the inputs for the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dpbatch import __version__, photo
from dpbatch.engine.attempts import ignore
from dpbatch.errors import UnreadableError
from dpbatch.photo import LoadedPhoto, RestoredPhoto
from dpbatch.settings import Settings, described, fingerprint
from dpbatch.storage.stamps import stamp
from dpbatch.types import Cost, FileStamp, Job, Photo, Progress, Saved

if TYPE_CHECKING:
    from dpbatch.output.metadata import ProcessingNote

T = TypeVar("T")

_MEASURED_PX = 512


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

    def measure(self, job: Job) -> Cost:
        """Load a photo and restore a part of it, to know the cost of the whole.

        Raises PhotoError where it cannot be loaded; SettingsError and LdpError where the device or
        the weights are unusable.
        """
        start_s = time.perf_counter()
        loaded = photo.load(job.photo, self.settings.raw)
        load_s = time.perf_counter() - start_s
        part = photo.centre(loaded, _MEASURED_PX)
        restorer = photo.Restorer(self.settings.restore, keep_blur_map=False)
        restorer(part, ignore)  # the first photo also loads libraries
        start_s = time.perf_counter()
        restorer(part, ignore)
        restore_s = time.perf_counter() - start_s
        (height, width), (part_height, part_width) = loaded.views.size, part.views.size
        pixels, output = height * width, self.settings.output
        return Cost(
            load_s,
            restore_s * pixels / (part_height * part_width),
            pixels * (3 * output.bit_depth // 8 + 2 * len(output.layers)),
            restorer.device,
        )

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
