"""The steps of a photo as the stages of a run, which also stamp the inputs for the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from dpbatch import ordinary, photo
from dpbatch.batch.kept import KeptRestorations
from dpbatch.batch.made import is_made_from, opens, processing_note
from dpbatch.engine.attempts import ignore
from dpbatch.errors import (
    NotDualPixelError,
    OutputError,
    UnreadableError,
    needs_two_views,
    no_raw_colours,
)
from dpbatch.fingerprints import earlier_fingerprints, fingerprint
from dpbatch.focus_settings import mask_blake2b
from dpbatch.networks import ordinary_fingerprint, ordinary_weights
from dpbatch.ordinary import LoadedOrdinary
from dpbatch.photo import LoadedPhoto, RestoredPhoto
from dpbatch.settings import OutputSettings, Settings
from dpbatch.storage.stamps import stamp
from dpbatch.types import Cost, FileStamp, Job, Photo, Progress, Saved

if TYPE_CHECKING:
    from dpbatch.output.metadata import Written

T = TypeVar("T")
Opened = LoadedPhoto | LoadedOrdinary
Loaded = Opened | RestoredPhoto

_MEASURED_PX = 512


@dataclass(frozen=True)
class Stamped(Generic[T]):
    """The result of a step, with stamps of the photo's files taken before they were read."""

    value: T
    inputs: tuple[FileStamp, ...]


def stamped(photo: Photo, load: Callable[[Photo], T]) -> Stamped[T]:
    """Stamp a photo's files and load it; they are hashed meanwhile. Raises PhotoError."""

    def stamps(content: bool) -> tuple[FileStamp, ...]:
        try:
            return tuple(stamp(path, content) for path in photo.paths)
        except OSError as error:
            name = Path(error.filename).name
            raise UnreadableError(f"{name}: cannot be read: {error.strerror}") from error

    before = stamps(content=False)
    with ThreadPoolExecutor(1) as hashing:
        found = hashing.submit(stamps, content=True)
        loaded = load(photo)
    # A file that was written to meanwhile is known by the time before that.
    pairs = zip(found.result(), before, strict=True)
    return Stamped(loaded, tuple(one if one.is_as(first) else first for one, first in pairs))


@dataclass(frozen=True)
class PhotoStages:
    """The steps of `dpbatch.photo` with the settings of a run.

    weights_sha256: of the network. clip_id: see `dpbatch.tools.models.clip_id`.
    ordinary_sha256: of the network of ordinary photos; "" where they are skipped.
    kept: the restorations that are kept for other choices of depths; None to keep none.
    finds_ahead: whether loading finds of a photo what it can, see `dpbatch.ahead`.
    """

    settings: Settings
    weights_sha256: str
    clip_id: str = ""
    ordinary_sha256: str = ""
    kept: KeptRestorations | None = None
    finds_ahead: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """See `BatchStages`."""
        output = self.settings.output
        return (f".{output.format}", *layer_suffixes(output))

    @property
    def fingerprint(self) -> str:
        """See `BatchStages`."""
        mask = mask_blake2b(self.settings.focus)
        return fingerprint(self.settings, self.weights_sha256, self.clip_id, mask_blake2b=mask)

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
        """See `photo.load` and `ordinary.load`; a restoration that was kept is read instead."""
        kept = self.kept
        if kept is None or not kept.has(job.id):
            return stamped(job.photo, self._load)
        from dpbatch.output.metadata import read_metadata

        found = stamped(job.photo, lambda files: read_metadata(files.paths[0]))
        restored = kept.read(job.id, found.inputs, found.value)
        return Stamped(restored or self._load(job.photo), found.inputs)

    def _load(self, files: Photo) -> Opened:
        raw, look = self.settings.raw, self.settings.output.look
        is_dng, name = self.settings.output.format == "dng", files.paths[0].name
        if is_dng and files.kind == "pair":
            raise no_raw_colours(name)
        if files.kind != "ordinary":
            try:
                find_for = self.settings.restore.blur if self.finds_ahead else None
                return photo.load(files, raw, look, find_for=find_for)
            except NotDualPixelError:
                if not self.ordinary_sha256:
                    raise
        ordinary.canon_warnings(files)  # a burst roll is skipped, whatever is asked for
        if is_dng:
            raise OutputError(
                f"{name}: an ordinary photo is restored as a picture, which has no "
                "mosaic for --format dng; use --format tif"
            )
        if not self.settings.focus.is_everything:
            raise needs_two_views(name)
        return ordinary.load(files, raw, look)

    def restorer(self) -> Callable[[Stamped[Loaded], Progress], Stamped[RestoredPhoto]]:
        """See `photo.Restorer` and `ordinary.OrdinaryRestorer`; what was kept passes through.

        Raises what these raise, and WeightsError too for the network that places depths.
        """
        settings, is_kept = self.settings, self.kept is not None
        layers = settings.output.chosen_layers
        is_looked_at = not {"depth", "blur"}.isdisjoint(layers)
        correct_depth = is_looked_at or settings.focus.needs_depth or is_kept
        if correct_depth:
            from ldp.blur.outline_weights import shipped_placer

            shipped_placer()  # or damaged weights would fail each photo, after it is restored
        restore = self._restorer(
            keep_blur_map=bool(layers) or settings.focus.needs_depth or is_kept,
            keep_original=needs_original_of(settings) or is_kept,
            correct_depth=correct_depth,
        )

        def finish(loaded: Stamped[Loaded], progress: Progress) -> Stamped[RestoredPhoto]:
            if isinstance(loaded.value, RestoredPhoto):
                return Stamped(loaded.value, loaded.inputs)
            return Stamped(restore(loaded.value, progress), loaded.inputs)

        return finish

    def _restorer(
        self, keep_blur_map: bool, keep_original: bool = False, correct_depth: bool = False
    ) -> _Restorer:
        settings = self.settings
        of_two_views = photo.Restorer(
            settings.restore,
            settings.raw,
            keep_blur_map,
            settings.output,
            keep_original=keep_original,
            correct_depth=correct_depth,
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
        part: Opened
        if isinstance(loaded, LoadedOrdinary):
            part = ordinary.centre(loaded, _MEASURED_PX)
        else:
            part = centre(loaded, _MEASURED_PX)
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
            pixels * (_bytes_a_pixel(output) + 2 * len(output.chosen_layers)),
            restorer.device,
        )

    def save(self, job: Job, restored: Stamped[RestoredPhoto]) -> Saved:
        """See `photo.save`."""
        settings, output = self.settings, self.settings.output
        restored = replace(restored, value=restored.value.fitted())
        warnings = restored.value.warnings
        network, sha256 = settings.restore.model, self.weights_sha256
        fingerprint = self.fingerprint
        if restored.value.is_ordinary:
            network, sha256 = ordinary_weights(settings.restore), self.ordinary_sha256
            fingerprint = self.ordinary_fingerprint
            if output.layers_in == "photoshop":
                warnings += ("an ordinary photo, written as a plain TIFF without layers",)
            layers = tuple(layer for layer in output.chosen_layers if layer == "blur")
            form = output.layers_in if layers else "files"
            output = replace(output, layers=layers, layers_in=form)
        note = replace(
            processing_note(job.photo, settings, restored.inputs, fingerprint),
            model=Path(network).stem,
            weights_sha256=sha256,
        )
        written = photo.save(restored.value, job.target, output, note, settings.focus)
        if self.kept is not None:  # only now: the photo needs the room on the disk
            warnings += self.kept.keep(job.id, restored.inputs, restored.value)
        done = saved(job, restored.inputs, written, warnings)
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

    def __call__(self, loaded: Opened, progress: Progress) -> RestoredPhoto:
        if isinstance(loaded, LoadedOrdinary):
            assert self.of_one_view is not None
            return self.of_one_view(loaded, progress)
        return self.of_two_views(loaded, progress)


def _bytes_a_pixel(output: OutputSettings) -> int:
    """Return how large a picture may become."""
    if output.format == "dng":
        return 2 if output.dng == "mosaic" else 6
    if output.layers_in == "photoshop":
        return 20  # the result, the photo before and after, and the mask
    return 3 * output.bit_depth // 8


def layer_suffixes(output: OutputSettings) -> tuple[str, ...]:
    """Return the suffixes of the files that hold a photo's layers."""
    if output.layers_in == "files":
        return tuple(f".{layer}.{output.layer_format}" for layer in output.layers)
    return {"darktable": (".mask.png",), "exr": (".exr",)}.get(output.layers_in, ())


def needs_original_of(settings: Settings) -> bool:
    """Return whether the untouched photo is needed beside the restored one."""
    return not settings.focus.is_everything or settings.output.layers_in == "photoshop"


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
        tuple(dict.fromkeys(chain(warnings, *(file.warnings for file in written.values())))),
        checksums=tuple(written[path].blake2b for path in outputs),
        rescued=written[job.target].rescued,
    )


def centre(loaded: LoadedPhoto, side_px: int) -> LoadedPhoto:
    """Return a square of the photo's middle, smaller where the photo is; side_px is even."""
    from ldp.types import ViewPair

    loaded = replace(loaded, ahead=None)
    height, width = loaded.size
    top, left = (max(0, (side - side_px) // 4 * 2) for side in (height, width))
    area = (slice(top, top + side_px), slice(left, left + side_px))
    stored = loaded.stored
    if isinstance(stored, ViewPair):
        return replace(
            loaded, stored=replace(stored, left=stored.left[area], right=stored.right[area])
        )
    composite, photodiode = stored.composite[area], stored.photodiode[area]
    return replace(
        loaded, stored=replace(stored, composite=composite, photodiode=photodiode, preview=b"")
    )
