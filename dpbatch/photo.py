"""One photo's way through the house: load, restore, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch import __version__
from dpbatch.errors import RestoreError, SettingsError, UnreadableError
from dpbatch.settings import (
    CLIP_MAPS,
    RawSettings,
    RestoreSettings,
    Settings,
    described,
    fingerprint,
)
from dpbatch.storage.stamps import stamp
from dpbatch.types import FileStamp, Job, Photo, Progress, Saved

# The steps run in processes of their own: each imports only what it needs, torch only the second.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.output.metadata import PhotoMetadata, ProcessingNote
    from ldp.types import BlurMap, ViewPair


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo's views in the sensor's orientation, and what else its files say."""

    views: ViewPair
    metadata: PhotoMetadata
    inputs: tuple[FileStamp, ...]


@dataclass(frozen=True)
class RestoredPhoto:
    """sharp: (H, W, 3) uint16, sRGB-encoded, in the sensor's orientation.

    orientation: the EXIF orientation that turns it upright. blur_map: None where no layer needs it.
    """

    sharp: npt.NDArray[np.uint16]
    blur_map: BlurMap | None
    orientation: int
    metadata: PhotoMetadata
    inputs: tuple[FileStamp, ...]


def load(photo: Photo, settings: RawSettings) -> LoadedPhoto:
    """Reads and develops a photo. Raises PhotoError; NotDualPixelError for an ordinary raw."""
    from dpbatch.output.metadata import read_metadata

    try:
        inputs = tuple(stamp(path) for path in photo.paths)
    except OSError as error:
        raise UnreadableError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return LoadedPhoto(_load_views(photo, settings), read_metadata(photo.paths[0]), inputs)


def _load_views(photo: Photo, settings: RawSettings) -> ViewPair:
    if photo.kind == "pair":
        from dpbatch.raw.pairs import read_pair_views

        left, right = reversed(photo.paths) if settings.swap else photo.paths
        return read_pair_views(left, right)
    from dpbatch.raw.develop import develop
    from dpbatch.raw.reader import open_dual

    with open_dual(photo.paths[0]) as dual:
        return develop(dual, settings)


class Restorer:
    """The blur map's estimator and the network, ready for one photo after the other."""

    def __init__(self, settings: RestoreSettings, keep_blur_map: bool) -> None:
        """Loads the weights.

        settings.blur is the name of an estimator (settle_blur); auto counts as disparity.

        Raises ldp.errors.WeightsError or ClipUnavailableError where there are none that fit,
        SettingsError where this machine has no such device.
        """
        from ldp.blur import load_estimator
        from ldp.restore.deblur import Deblurrer

        try:
            self._estimator = load_estimator(settings.blur, settings.device, settings.clip_weights)
            self._deblurrer = Deblurrer.load(settings.model, settings.device, settings.tile)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._keep_blur_map = keep_blur_map
        if self._deblurrer.device.type == "cuda":
            self.warm_up()

    def warm_up(self) -> None:
        """Restores one tile of even grey.

        A GPU's libraries are loaded and their kernels chosen at the first use, which would count as
        the first photo's time, against its limit.
        """
        import numpy as np

        from ldp.types import ViewPair

        side = self._deblurrer.tile_px
        grey = np.full((side, side, 3), 0.5, np.float32)
        views = ViewPair(grey, grey)
        self._deblurrer.restore(views, self._estimator.estimate(views))

    def __call__(self, loaded: LoadedPhoto, progress: Progress) -> RestoredPhoto:
        """Estimates where the photo is blurred and takes the blur away."""
        from ldp.errors import LdpError

        views = loaded.views
        try:
            blur_map = self._estimator.estimate(views)
            deblurred = self._deblurrer.restore(views, blur_map, progress)
        except LdpError as error:
            raise RestoreError(str(error)) from error
        return RestoredPhoto(
            deblurred.sharp,
            blur_map if self._keep_blur_map else None,
            views.orientation,
            loaded.metadata,
            loaded.inputs,
        )


def require_clip(settings: RestoreSettings) -> None:
    """Sees to it, before the first photo, that the weights of a CLIP map are on this machine.

    Raises ldp.errors.ClipUnavailableError.
    """
    if settings.blur in CLIP_MAPS:
        from dpbatch.tools.models import clip_file

        clip_file(settings.blur, settings.clip_weights)


def clip_id(settings: RestoreSettings) -> str:
    """What tells the CLIP of a blur map from others, so that another one redoes the photos.

    The SHA-256 of a weights file, which takes about a second, or open_clip's tag; "" where the map
    needs none.
    """
    if settings.blur not in CLIP_MAPS:
        return ""
    from ldp.models.weights import sha256

    path = Path(settings.clip_weights)
    return sha256(path) if path.is_file() else settings.clip_weights


def save(job: Job, restored: RestoredPhoto, settings: Settings, weights_sha256: str) -> Saved:
    """Turns the photo upright, once, and writes it with its layers. Raises OutputError."""
    from dpbatch.output.color import apply_orientation
    from dpbatch.output.images import write_picture
    from dpbatch.output.layers import write_layers

    model = Path(settings.restore.model).stem
    note = note_of(job.photo, settings, model=model, weights_sha256=weights_sha256)
    if restored.blur_map is not None:
        stem, which = job.target.with_suffix(""), settings.output.layers
        size = restored.sharp.shape[0], restored.sharp.shape[1]
        write_layers(stem, restored.blur_map, restored.orientation, size, which, note)
    upright = apply_orientation(restored.sharp, restored.orientation)
    warnings = write_picture(job.target, upright, settings.output, restored.metadata, note)
    return Saved(restored.inputs, job.outputs, warnings)


def note_of(
    photo: Photo, settings: Settings, model: str = "", weights_sha256: str = ""
) -> ProcessingNote:
    """What is noted in a photo's results about how they were made."""
    from dpbatch.output.metadata import ProcessingNote

    return ProcessingNote(
        version=__version__,
        source=" + ".join(path.name for path in photo.paths),
        model=model,
        weights_sha256=weights_sha256,
        settings=described(settings),
    )


@dataclass(frozen=True)
class PhotoStages:
    """The steps above as an engine runs them."""

    settings: Settings
    weights_sha256: str
    clip_id: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows a photo's name in its outputs, the main one first."""
        output = self.settings.output
        return (f".{output.format}", *(f".{layer}.tif" for layer in output.layers))

    @property
    def fingerprint(self) -> str:
        """Equal for equal results."""
        return fingerprint(self.settings, self.weights_sha256, self.clip_id)

    def load(self, job: Job) -> LoadedPhoto:
        """See `load`."""
        return load(job.photo, self.settings.raw)

    def restorer(self) -> Callable[[LoadedPhoto, Progress], RestoredPhoto]:
        """See `Restorer`."""
        return Restorer(self.settings.restore, keep_blur_map=bool(self.settings.output.layers))

    def save(self, job: Job, restored: RestoredPhoto) -> Saved:
        """See `save`."""
        return save(job, restored, self.settings, self.weights_sha256)
