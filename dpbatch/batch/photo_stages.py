"""The steps of a photo as the stages of a run, which also stamp the inputs for the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dpbatch import __version__, ordinary, photo
from dpbatch.engine.attempts import ignore
from dpbatch.errors import NotDualPixelError, OutputError, UnreadableError
from dpbatch.networks import ordinary_fingerprint, ordinary_weights
from dpbatch.ordinary import LoadedOrdinary
from dpbatch.photo import LoadedPhoto, RestoredPhoto
from dpbatch.settings import OutputSettings, Settings, described, earlier_fingerprints, fingerprint
from dpbatch.storage.stamps import stamp
from dpbatch.types import Cost, FileStamp, Job, Photo, Progress, Saved

if TYPE_CHECKING:
    from dpbatch.output.metadata import ProcessingNote, Written

T = TypeVar("T")
Loaded = LoadedPhoto | LoadedOrdinary

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
    ordinary_sha256: of the network of ordinary photos; "" where they are skipped.
    """

    settings: Settings
    weights_sha256: str
    clip_id: str = ""
    ordinary_sha256: str = ""

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
    def ordinary_fingerprint(self) -> str:
        """See `BatchStages`."""
        if not self.ordinary_sha256:
            return ""
        return ordinary_fingerprint(self.settings, self.ordinary_sha256, self.clip_id)

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """See `BatchStages`."""
        return earlier_fingerprints(self.settings, self.weights_sha256, self.clip_id)

    def load(self, job: Job) -> Stamped[Loaded]:
        """See `photo.load` and `ordinary.load`."""
        return stamped(job.photo, self._load)

    def _load(self, files: Photo) -> Loaded:
        raw, look = self.settings.raw, self.settings.output.look
        if files.kind != "ordinary":
            try:
                return photo.load(files, raw, look)
            except NotDualPixelError:
                if not self.ordinary_sha256:
                    raise
        if self.settings.output.format == "dng":
            raise OutputError(
                f"{files.paths[0].name}: an ordinary photo is restored as a picture, which has no "
                "mosaic for --format dng; use --format tif"
            )
        return ordinary.load(files, raw, look)

    def restorer(self) -> Callable[[Stamped[Loaded], Progress], Stamped[RestoredPhoto]]:
        """See `photo.Restorer` and `ordinary.OrdinaryRestorer`."""
        restore = self._restorer(keep_blur_map=bool(self.settings.output.layers))
        return lambda loaded, progress: Stamped(restore(loaded.value, progress), loaded.inputs)

    def _restorer(self, keep_blur_map: bool) -> _Restorer:
        settings = self.settings
        of_two_views = photo.Restorer(
            settings.restore, settings.raw, keep_blur_map, settings.output
        )
        of_one_view = None
        if self.ordinary_sha256:
            of_one_view = ordinary.OrdinaryRestorer(settings.restore, keep_blur_map)
        return _Restorer(of_two_views, of_one_view)

    def measure(self, job: Job) -> Cost:
        """Load a photo and restore a part of it, to know the cost of the whole.

        Raises PhotoError where it cannot be loaded; SettingsError and LdpError where the device or
        the weights are unusable.
        """
        start_s = time.perf_counter()
        loaded = self._load(job.photo)
        load_s = time.perf_counter() - start_s
        part: Loaded
        if isinstance(loaded, LoadedOrdinary):
            part = ordinary.centre(loaded, _MEASURED_PX)
        else:
            part = photo.centre(loaded, _MEASURED_PX)
        restorer = self._restorer(keep_blur_map=False)
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
        settings, output = self.settings, self.settings.output
        network, sha256 = settings.restore.model, self.weights_sha256
        fingerprint = self.fingerprint
        if restored.value.is_ordinary:
            network, sha256 = ordinary_weights(settings.restore), self.ordinary_sha256
            fingerprint = self.ordinary_fingerprint
            layers = tuple(layer for layer in output.layers if layer != "disparity")
            output = replace(output, layers=layers)
        note = replace(
            processing_note(job.photo, settings, restored.inputs, fingerprint),
            model=Path(network).stem,
            weights_sha256=sha256,
        )
        written = photo.save(restored.value, job.target, output, note)
        done = saved(job, restored.inputs, written, restored.value.warnings)
        return replace(done, network=note.model, fingerprint=fingerprint)

    def opens(self, path: Path) -> bool:
        """See `BatchStages`."""
        return opens(path)

    def made(self, path: Path, inputs: Sequence[FileStamp]) -> bool:
        """See `BatchStages`."""
        known = filter(None, (self.fingerprint, self.ordinary_fingerprint))
        return any(is_made_from(path, inputs, fingerprint) for fingerprint in known)


@dataclass(frozen=True)
class _Restorer:
    """The second step of all photos. of_one_view: None where ordinary ones are skipped."""

    of_two_views: photo.Restorer
    of_one_view: ordinary.OrdinaryRestorer | None

    @property
    def device(self) -> str:
        return self.of_two_views.device

    def __call__(self, loaded: Loaded, progress: Progress) -> RestoredPhoto:
        if isinstance(loaded, LoadedOrdinary):
            assert self.of_one_view is not None
            return self.of_one_view(loaded, progress)
        return self.of_two_views(loaded, progress)


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
    """Return what the last step did, from the files that it wrote: all of the job's, or some.

    warnings: of the steps before.
    """
    outputs = tuple(path for path in job.outputs if path in written)
    return Saved(
        inputs,
        outputs,
        warnings + tuple(warning for file in written.values() for warning in file.warnings),
        checksums=tuple(written[path].blake2b for path in outputs),
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
