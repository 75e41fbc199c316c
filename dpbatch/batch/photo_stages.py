"""The steps of a photo as the stages of a run, which also stamp the inputs for the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dpbatch import __version__, photo
from dpbatch.engine.attempts import ignore
from dpbatch.errors import UnreadableError
from dpbatch.photo import LoadedPhoto, RestoredPhoto
from dpbatch.settings import OutputSettings, Settings, described, earlier_fingerprints, fingerprint
from dpbatch.storage.stamps import stamp
from dpbatch.types import Cost, FileStamp, Job, Photo, Progress, Saved

if TYPE_CHECKING:
    from dpbatch.output.metadata import ProcessingNote, Written

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
        name = Path(error.filename).name
        raise UnreadableError(f"{name}: cannot be read: {error.strerror}") from error
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

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """See `BatchStages`."""
        return earlier_fingerprints(self.settings, self.weights_sha256, self.clip_id)

    def load(self, job: Job) -> Stamped[LoadedPhoto]:
        """See `photo.load`."""
        settings = self.settings
        return stamped(
            job.photo, lambda files: photo.load(files, settings.raw, settings.output.look)
        )

    def restorer(self) -> Callable[[Stamped[LoadedPhoto], Progress], Stamped[RestoredPhoto]]:
        """See `photo.Restorer`."""
        keep_blur_map = bool(self.settings.output.layers)
        settings = self.settings
        restore = photo.Restorer(settings.restore, settings.raw, keep_blur_map, settings.output)
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
        restorer = photo.Restorer(self.settings.restore, self.settings.raw, keep_blur_map=False)
        restorer(part, ignore)  # the first photo also loads libraries
        start_s = time.perf_counter()
        restorer(part, ignore)
        restore_s = time.perf_counter() - start_s
        (height, width), (part_height, part_width) = loaded.size, part.size
        pixels, output = height * width, self.settings.output
        return Cost(
            load_s,
            restore_s * pixels / (part_height * part_width),
            pixels * (_bytes_a_pixel(output) + 2 * len(output.layers)),
            restorer.device,
        )

    def save(self, job: Job, restored: Stamped[RestoredPhoto]) -> Saved:
        """See `photo.save`."""
        model = Path(self.settings.restore.model).stem
        note = replace(
            processing_note(job.photo, self.settings, restored.inputs, self.fingerprint),
            model=model,
            weights_sha256=self.weights_sha256,
        )
        written = photo.save(restored.value, job.target, self.settings.output, note)
        return saved(job, restored.inputs, written, restored.value.warnings)

    def opens(self, path: Path) -> bool:
        """See `BatchStages`."""
        return opens(path)

    def made(self, path: Path, inputs: Sequence[FileStamp]) -> bool:
        """See `BatchStages`."""
        return is_made_from(path, inputs, self.fingerprint)


def _bytes_a_pixel(output: OutputSettings) -> int:
    """Return how large a picture may become."""
    if output.format == "dng":
        return 2 if output.dng == "mosaic" else 6
    return 3 * output.bit_depth // 8


def saved(
    job: Job,
    inputs: tuple[FileStamp, ...],
    written: Mapping[Path, Written],
    warnings: tuple[str, ...] = (),
) -> Saved:
    """Return what the last step did, from the files that it wrote.

    warnings: of the steps before.
    """
    return Saved(
        inputs,
        job.outputs,
        warnings + tuple(warning for file in written.values() for warning in file.warnings),
        checksums=tuple(written[path].blake2b for path in job.outputs),
    )


def opens(path: Path) -> bool:
    """Return whether a result opens. Raises OSError."""
    from dpbatch.output import whole

    return whole.opens(path)


def is_made_from(path: Path, inputs: Sequence[FileStamp], fingerprint: str) -> bool:
    """Return whether a result says that it was made from these files by such a run.

    Files whose hashes are unknown are compared by name. Raises OSError.
    """
    from dpbatch.output.metadata import read_note

    note = read_note(path)
    if note is None or note.fingerprint != fingerprint:
        return False
    if all(file.blake2b for file in inputs):
        return note.source_blake2b == _joined(file.blake2b for file in inputs)
    return note.source == _joined(file.path.rpartition("/")[2] for file in inputs)


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(texts)


def processing_note(
    photo: Photo, settings: Settings, inputs: Sequence[FileStamp], fingerprint: str
) -> ProcessingNote:
    """Return what a photo's results say about how they were made."""
    from dpbatch.output.metadata import ProcessingNote

    return ProcessingNote(
        version=__version__,
        source=_joined(path.name for path in photo.paths),
        settings=described(settings),
        source_blake2b=_joined(file.blake2b for file in inputs),
        fingerprint=fingerprint,
    )
