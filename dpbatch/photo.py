"""The three steps of one photo: load, restore, save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch.errors import RestoreError, SettingsError
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings
from dpbatch.types import Photo, Progress

# Each step runs in a process of its own and imports only what it needs, torch only the second one.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.output.metadata import PhotoMetadata, ProcessingNote
    from ldp.types import BlurMap, ViewPair


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo's views in the sensor's orientation, and the metadata of its files."""

    views: ViewPair
    metadata: PhotoMetadata


@dataclass(frozen=True)
class RestoredPhoto:
    """sharp: (H, W, 3) uint16, sRGB-encoded, in the sensor's orientation.

    blur_map: None where no layer needs it.
    orientation: the EXIF orientation that turns it upright.
    """

    sharp: npt.NDArray[np.uint16]
    blur_map: BlurMap | None
    orientation: int
    metadata: PhotoMetadata


def load(photo: Photo, settings: RawSettings) -> LoadedPhoto:
    """Read and develop a photo. Raises PhotoError; NotDualPixelError for an ordinary raw."""
    from dpbatch.output.metadata import read_metadata

    return LoadedPhoto(_load_views(photo, settings), read_metadata(photo.paths[0]))


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
    """The second step: the blur map's estimator and the network, loaded once for many photos."""

    def __init__(self, settings: RestoreSettings, keep_blur_map: bool) -> None:
        """Load the weights.

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
        """Restore one tile of uniform grey.

        A GPU loads its libraries and chooses its kernels at the first use, which would otherwise
        count against the first photo's time limit.
        """
        import numpy as np

        from ldp.types import ViewPair

        side = self._deblurrer.tile_px
        grey = np.full((side, side, 3), 0.5, np.float32)
        views = ViewPair(grey, grey)
        self._deblurrer.restore(views, self._estimator.estimate(views))

    def __call__(self, loaded: LoadedPhoto, progress: Progress) -> RestoredPhoto:
        """Estimate the blur map and remove the blur. Raises RestoreError."""
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
        )


def save(
    restored: RestoredPhoto, target: Path, settings: OutputSettings, note: ProcessingNote
) -> tuple[str, ...]:
    """Turn the photo upright and write it to `target`, its layers beside it and before it.

    Returns warnings. Raises OutputError.
    """
    from dpbatch.output.color import apply_orientation
    from dpbatch.output.images import write_picture
    from dpbatch.output.layers import write_layers

    if restored.blur_map is not None:
        size = restored.sharp.shape[0], restored.sharp.shape[1]
        stem = target.with_suffix("")
        write_layers(stem, restored.blur_map, restored.orientation, size, settings.layers, note)
    upright = apply_orientation(restored.sharp, restored.orientation)
    return write_picture(target, upright, settings, restored.metadata, note)
