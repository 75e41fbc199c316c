"""The first two steps of an ordinary photo, which has one view: load, restore."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ldp
from dpbatch.ahead import curve_of_preview
from dpbatch.errors import NotDualPixelError, RestoreError, SettingsError, too_large
from dpbatch.hints import hinted
from dpbatch.networks import ordinary_weights
from dpbatch.photo import RestoredPhoto
from dpbatch.raw.container import RAW_SUFFIXES
from dpbatch.raw.pairs import PAIR_SUFFIXES
from dpbatch.settings import CLIP_MAPS, RawSettings, RestoreSettings
from dpbatch.types import Photo, Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.output.metadata import PhotoMetadata
    from ldp import BlurEstimator, BlurMap
    from ldp.types import Picture

_CELL_PX = 8
_WHOLE_CHANGE = 0.1
"""Mean change of a cell, white at 1, that the map of the change shows as 1."""


@dataclass(frozen=True)
class LoadedOrdinary:
    """An ordinary photo in the orientation of its file.

    picture: (H, W, 3) RGB, sRGB-encoded. orientation: EXIF, turns it upright.
    preview: the camera's JPEG where its look is wanted, else b"".
    warnings: see `dpbatch.types.Saved`.
    """

    picture: Picture
    orientation: int
    metadata: PhotoMetadata
    preview: bytes = b""
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.picture.shape[0], self.picture.shape[1]


def load(photo: Photo, settings: RawSettings, look: str = "neutral") -> LoadedOrdinary:
    """Read and develop an ordinary photo: a raw with one frame, a TIFF, a PNG or a JPEG.

    look: for "camera" the preview of a raw is read too.

    Raises PhotoError; NotDualPixelError for a burst roll, of which a run restores none.
    """
    from dpbatch.output.metadata import read_metadata

    path = photo.paths[0]
    try:
        if path.suffix.lower() in PAIR_SUFFIXES:
            from dpbatch.raw.pictures import read_picture

            file = read_picture(path)
            return LoadedOrdinary(file.pixels, file.orientation, read_metadata(path))
        from dpbatch.raw.ordinary import read_ordinary

        warnings = canon_warnings(photo)
        raw = read_ordinary(path, settings.white_balance, with_preview=look == "camera")
        return LoadedOrdinary(
            raw.picture, raw.orientation, read_metadata(path), raw.preview, warnings
        )
    except MemoryError as error:
        raise too_large(path.name, error) from error


def canon_warnings(photo: Photo) -> tuple[str, ...]:
    """Return what is odd about a Canon raw with one frame. Raises NotDualPixelError, PhotoError."""
    path = photo.paths[0]
    if path.suffix.lower() not in RAW_SUFFIXES:
        return ()
    from dpbatch.raw.canon_tags import read_canon_tags, single_frame_reason
    from dpbatch.raw.container import probe

    container = probe(path)
    tags = read_canon_tags(path, container.format)
    reason = single_frame_reason(tags, container)
    if tags.pictures > 1:
        raise NotDualPixelError(f"{path.name}: {reason}")
    return (reason,) if tags.dual_pixel_on else ()


def centre(photo: LoadedOrdinary, side_px: int) -> LoadedOrdinary:
    """Return a square of the photo's middle, smaller where the photo is."""
    height, width = photo.size
    rows = slice(max(0, (height - side_px) // 2), (height + side_px) // 2)
    columns = slice(max(0, (width - side_px) // 2), (width + side_px) // 2)
    return replace(photo, picture=photo.picture[rows, columns], preview=b"")


class OrdinaryRestorer:
    """The second step: a network of single pictures, loaded once for many photos."""

    def __init__(self, settings: RestoreSettings, keep_blur_map: bool) -> None:
        """Load the weights. settings: `ordinary` is not skip.

        Raises ldp.errors.WeightsError or ClipUnavailableError where there are none that fit,
        SettingsError where this machine has no such device.
        """
        self._estimator: BlurEstimator | None = None
        try:
            self._model = ldp.load_single(
                ordinary_weights(settings),
                device=settings.device,
                tile=settings.tile,
                protect=settings.protect,
                window_stride=settings.window_stride,
            )
            if keep_blur_map and settings.blur in CLIP_MAPS:
                self._estimator = ldp.load_estimator(
                    settings.blur, device=settings.device, clip_weights=settings.clip_weights
                )
        except ValueError as error:
            raise SettingsError(hinted(error)) from error
        self._keep_blur_map = keep_blur_map

    def __call__(self, loaded: LoadedOrdinary, progress: Progress) -> RestoredPhoto:
        """Remove the blur. Raises RestoreError."""
        try:
            sharp = self._model.restore_uint16(loaded.picture, progress=progress)
            blur_map = self._map(loaded.picture, sharp) if self._keep_blur_map else None
        except ldp.LdpError as error:
            raise RestoreError(hinted(error)) from error
        curve, warnings = None, loaded.warnings
        if loaded.preview:
            views = ldp.ViewPair(loaded.picture, loaded.picture)
            curve, of_look = curve_of_preview(views, loaded.preview)
            warnings += of_look
        return RestoredPhoto(
            sharp,
            blur_map,
            loaded.orientation,
            loaded.metadata,
            curve,
            warnings,
            is_ordinary=True,
            map_is_change=self._estimator is None,
        )

    def _map(self, picture: Picture, sharp: npt.NDArray[np.uint16]) -> BlurMap:
        """Return CLIP's blur map where it is wanted, else how much the network changed."""
        if self._estimator is not None:
            return self._estimator.estimate(ldp.ViewPair(picture, picture))
        return change_map(picture, sharp)


def change_map(picture: Picture, sharp: npt.NDArray[np.uint16]) -> BlurMap:
    """Return how much a network changed a picture: the mean of a cell of 8x8 pixels, in [0, 1].

    A mean change of a tenth of white, or more, is 1.
    """
    import cv2
    import numpy as np

    from ldp.types import as_float

    height, width = picture.shape[:2]
    size = -(-width // _CELL_PX), -(-height // _CELL_PX)
    change = np.empty((height, width), np.float32)
    for row in range(0, height, 64):  # a float copy of a large picture takes half a gigabyte
        rows = slice(row, row + 64)
        change[rows] = np.abs(as_float(sharp[rows]) - as_float(picture[rows])).mean(2)
    cells = cv2.resize(change, size, interpolation=cv2.INTER_AREA) / np.float32(_WHOLE_CHANGE)
    return ldp.BlurMap(np.minimum(cells, np.float32(1)))
