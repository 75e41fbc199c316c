"""The three steps of one photo: load, restore, save."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ldp
from dpbatch.ahead import UnfittedLook
from dpbatch.errors import RestoreError, SettingsError, no_raw_colours, too_large
from dpbatch.focus_settings import FocusSettings
from dpbatch.hints import hinted
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings
from dpbatch.types import Photo, Progress

# Each step runs in a process of its own and imports only what it needs, torch only the second one.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from dpbatch.ahead import FoundAhead
    from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written
    from dpbatch.output.tone import ToneCurve
    from dpbatch.raw.collector import Collector
    from dpbatch.raw.frames import RawPair
    from dpbatch.raw.restored import RestoredRaw
    from ldp import BlurMap, ViewPair
    from ldp.restore.photo_views import PhotoViews


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo as it is stored, in the sensor's orientation, and the metadata of its files.

    stored: the two mosaics of a raw, or the two views of a pair.
    warnings: what may be wrong with them, see `dpbatch.types.Saved`.
    ahead: what was found of the photo already; None leaves that to restoring.
    """

    stored: RawPair | ViewPair
    metadata: PhotoMetadata
    name: str
    warnings: tuple[str, ...] = ()
    ahead: FoundAhead | None = None

    @property
    def preview(self) -> bytes:
        """The camera's JPEG where its look is wanted, else b""."""
        return getattr(self.stored, "preview", b"")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        from ldp.types import ViewPair

        stored = self.stored
        shape = stored.left.shape if isinstance(stored, ViewPair) else stored.composite.shape
        return shape[0], shape[1]


@dataclass(frozen=True)
class RestoredPhoto:
    """sharp: (H, W, 3) uint16, sRGB-encoded, in the sensor's orientation.

    original, original_raw: the photo before it was restored, like sharp and raw; None where nothing
        needs it.
    blur_map: None where nothing needs it.
    orientation: the EXIF orientation that turns it upright.
    curve: the camera's tone curve; None for a neutral look, and where it is not `fitted` yet.
    unfitted: what it is fitted to.
    has_look: whether curve and exposure have been applied.
    raw: what editors go on with; None where only the picture is wanted.
    is_ordinary: whether it has one view. map_is_change: whether the amounts of its map are those
        of the network's change.
    """

    sharp: npt.NDArray[np.uint16]
    blur_map: BlurMap | None
    orientation: int
    metadata: PhotoMetadata
    curve: ToneCurve | None = None
    warnings: tuple[str, ...] = ()
    has_look: bool = False
    raw: RestoredRaw | None = None
    is_ordinary: bool = False
    map_is_change: bool = False
    unfitted: UnfittedLook | None = None
    original: npt.NDArray[np.uint16] | None = None
    original_raw: RestoredRaw | None = None

    def fitted(self) -> RestoredPhoto:
        """Return it with the camera's curve, and the warnings of fitting it."""
        if self.unfitted is None:
            return self
        curve, warnings = self.unfitted.fit()
        return replace(self, curve=curve, warnings=self.warnings + warnings, unfitted=None)


def load(
    photo: Photo, settings: RawSettings, look: str = "neutral", *, find_for: str | None = None
) -> LoadedPhoto:
    """Read and check a photo. Raises PhotoError; NotDualPixelError for an ordinary raw.

    look: for "camera" the camera's preview is read too; a pair has none.
    find_for: the blur map for which to find ahead what can be; None leaves it to restoring.
    """
    from dpbatch.output.metadata import read_metadata

    name = photo.paths[0].name
    try:
        with ThreadPoolExecutor(1) as beside:
            metadata = beside.submit(read_metadata, photo.paths[0])
            stored, warnings = _load_stored(photo, settings, look)
        loaded = LoadedPhoto(stored, metadata.result(), name, warnings)
        return loaded if find_for is None else _with_ahead(loaded, settings, find_for)
    except MemoryError as error:
        raise too_large(name, error) from error


def _load_stored(
    photo: Photo, settings: RawSettings, look: str
) -> tuple[RawPair | ViewPair, tuple[str, ...]]:
    """Return what the files hold, and warnings."""
    if photo.kind == "pair":
        from dpbatch.raw.pairs import pair_warnings, read_pair_views

        left, right = reversed(photo.paths) if settings.swap else photo.paths
        views = read_pair_views(left, right)
        return views, pair_warnings(views)
    from dpbatch.raw.reader import read_dual
    from dpbatch.raw.white_balance import with_white_balance

    pair = read_dual(photo.paths[0], with_preview=look == "camera")
    return with_white_balance(pair, settings.white_balance), pair.warnings


def _with_ahead(loaded: LoadedPhoto, settings: RawSettings, blur: str) -> LoadedPhoto:
    import torch

    from dpbatch.ahead import find_ahead

    views = views_of(loaded, settings, torch.device("cpu"))
    return replace(loaded, ahead=find_ahead(views, loaded.preview, blur))


def developed(loaded: LoadedPhoto, settings: RawSettings) -> ViewPair:
    """Return a photo's views as arrays; those of a pair as they are."""
    from ldp.types import ViewPair

    if isinstance(loaded.stored, ViewPair):
        return loaded.stored
    from dpbatch.raw.develop import develop

    return develop(loaded.stored, settings)


class Restorer:
    """The second step: network and blur map's estimator, loaded once for many photos."""

    def __init__(
        self,
        settings: RestoreSettings,
        raw: RawSettings,
        keep_blur_map: bool,
        output: OutputSettings | None = None,
        *,
        keep_original: bool = False,
        correct_depth: bool = False,
    ) -> None:
        """Load the weights.

        settings: the network is named (settle_network). raw: how photos are developed. output: what
            is to be written; None for a plain picture. keep_original: also return the photo before.
            correct_depth: look again at the depths of the map that is kept.

        Raises ldp.errors.WeightsError or ClipUnavailableError where there are none that fit,
        SettingsError where this machine has no such device.
        """
        try:
            self._model = ldp.load(
                settings.model,
                device=settings.device,
                tile=settings.tile,
                blur=settings.blur,
                clip_weights=settings.clip_weights,
                protect=None if settings.protect else False,
                scale=settings.chosen_scale,
                whole=settings.whole,
            )
        except ValueError as error:
            raise SettingsError(hinted(error)) from error
        self._raw, self._keep_original = raw, keep_original
        self._output = output or OutputSettings(look="neutral")
        self._keep_blur_map, self._correct_depth = keep_blur_map, correct_depth
        if self._model.device.type == "cuda":
            self._model.warm_up()  # or it would count against the first photo's time limit
            self._model.compile_in_background()
        else:
            from ldp.devices import keep_freed_memory

            keep_freed_memory()

    @property
    def device(self) -> str:
        """The device's name, such as "cpu" or "cuda:0"."""
        return str(self._model.device)

    def __call__(self, loaded: LoadedPhoto, progress: Progress) -> RestoredPhoto:
        """Develop the photo, estimate the blur map and remove the blur. Raises RestoreError."""
        # What a photo is blended with, and the light in an EXR, are without the look.
        with_look = not self._keep_original and self._output.layers_in != "exr"
        opened = _OpenedPhoto(loaded, self._raw, self._output, with_look)
        try:
            deblurred = self._model.restore_photo(
                opened.on,
                matched=loaded.ahead.matched if loaded.ahead else None,
                progress=progress,
                finish=opened.with_look,
                also=opened.collect,
            )
        except ldp.LdpError as error:
            raise RestoreError(hinted(error)) from error
        blur_map = deblurred.blur_map if self._keep_blur_map else None
        if blur_map is not None:
            from ldp.blur.depth import depth_map

            sharp = deblurred.sharp if self._correct_depth else None
            blur_map = depth_map(blur_map, opened.views, self._model.estimator, sharp)
        original, original_raw = opened.untouched() if self._keep_original else (None, None)
        return RestoredPhoto(
            deblurred.sharp,
            blur_map,
            loaded.stored.orientation,
            loaded.metadata,
            opened.curve,
            loaded.warnings + opened.warnings,
            opened.has_look,
            opened.collector.result() if opened.collector else None,
            unfitted=opened.unfitted,
            original=original,
            original_raw=original_raw,
        )


@dataclass
class _OpenedPhoto:
    """A photo on the device that restores it, once it is `on` one.

    curve: of the camera. has_look: whether it and the exposure have been applied. collector: of
        what editors go on with, where that is wanted.
    """

    loaded: LoadedPhoto
    raw: RawSettings
    output: OutputSettings
    wants_look: bool
    views: PhotoViews = field(init=False)
    device: torch.device = field(init=False)
    curve: ToneCurve | None = None
    unfitted: UnfittedLook | None = None
    warnings: tuple[str, ...] = ()
    has_look: bool = False
    collector: Collector | None = None

    def on(self, device: torch.device) -> PhotoViews:
        """Return its views on a device. Raises RestoreError for a DNG of what is no raw."""
        views = views_of(self.loaded, self.raw, device)
        ahead = self.loaded.ahead
        self.curve, self.unfitted, self.warnings = None, None, ()
        if ahead is not None:
            self.curve, self.warnings = ahead.curve, ahead.warnings
        elif unfitted := UnfittedLook.of(self.loaded.preview, views):
            if device.type == "cpu":
                self.unfitted = unfitted
            else:
                self.curve, self.warnings = unfitted.fit()
        self.views, self.device, self.has_look = views, device, False
        self.collector = self._collector()
        return views

    def untouched(self) -> tuple[npt.NDArray[np.uint16], RestoredRaw | None]:
        """Return the photo that `on` opened before it was restored, and what editors need of it."""
        from ldp.restore.untouched import untouched_parts, untouched_uint16

        collector = self._collector()
        if collector is None:
            return untouched_uint16(self.views), None
        for rows, columns, pixels in untouched_parts(self.views):
            collector(rows, columns, pixels)
        return untouched_uint16(self.views), collector.result()

    def collect(self, rows: slice, columns: slice, pixels: torch.Tensor) -> None:
        """Hand a part of the restored picture to the collector."""
        if self.collector is not None:
            self.collector(rows, columns, pixels)

    def _collector(self) -> Collector | None:
        from dpbatch.raw.develop import RawViews
        from dpbatch.raw.frames import RawPair

        stored, views = self.loaded.stored, self.views
        if isinstance(views, RawViews) and isinstance(stored, RawPair):
            from dpbatch.editing import collector_for

            return collector_for(stored, views, self.output, self.device)
        if self.output.format == "dng":
            raise no_raw_colours(self.loaded.name)
        return None

    def with_look(self, rows: torch.Tensor) -> torch.Tensor:
        """Apply the look on a GPU; beside a CPU that restores, the process that saves does it."""
        if rows.device.type == "cpu" or not self.wants_look:
            return rows
        from dpbatch.output.tone import apply_look_tensor

        self.has_look = True
        return apply_look_tensor(rows, self.curve, self.output.exposure, channels=-1)


def views_of(loaded: LoadedPhoto, settings: RawSettings, device: torch.device) -> PhotoViews:
    """Return a photo's views on a device."""
    from ldp.restore.photo_views import as_photo
    from ldp.types import ViewPair

    if isinstance(loaded.stored, ViewPair):
        return as_photo(loaded.stored, device)
    from dpbatch.raw.develop import RawViews

    return RawViews(loaded.stored, settings, device)


def save(
    restored: RestoredPhoto,
    target: Path,
    settings: OutputSettings,
    note: ProcessingNote,
    focus: FocusSettings | None = None,
) -> dict[Path, Written]:
    """Turn the photo upright and write it to `target`, its layers beside it and before it.

    focus: what of the photo is to be sharp; None for all of it. Returns the files by path.

    Raises OutputError.
    """
    from dpbatch import rescue

    return rescue.save(restored.fitted(), target, settings, note, focus or FocusSettings())
