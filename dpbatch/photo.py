"""The three steps of one photo: load, restore, save."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ldp
from dpbatch.errors import RestoreError, SettingsError, UnreadableError
from dpbatch.hints import hinted
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings
from dpbatch.types import Photo, Progress

# Each step runs in a process of its own and imports only what it needs, torch only the second one.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written
    from dpbatch.output.tone import ToneCurve
    from ldp import BlurMap, ViewPair


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo's views in the sensor's orientation, and the metadata of its files.

    curve: the tone curve of the camera; None for a neutral look.
    warnings: what may be wrong with the views, each with the file's name.
    """

    views: ViewPair
    metadata: PhotoMetadata
    curve: ToneCurve | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RestoredPhoto:
    """sharp: (H, W, 3) uint16, sRGB-encoded, in the sensor's orientation.

    blur_map: None where no layer needs it.
    orientation: the EXIF orientation that turns it upright.
    curve: the tone curve to be applied to it; None for a neutral look.
    """

    sharp: npt.NDArray[np.uint16]
    blur_map: BlurMap | None
    orientation: int
    metadata: PhotoMetadata
    curve: ToneCurve | None = None
    warnings: tuple[str, ...] = ()


def load(photo: Photo, settings: RawSettings, look: str = "neutral") -> LoadedPhoto:
    """Read and develop a photo. Raises PhotoError; NotDualPixelError for an ordinary raw.

    look: for "camera" the tone curve of the camera is estimated; a pair has none.
    """
    from dpbatch.output.metadata import read_metadata

    try:
        views, curve, warnings = _load_views(photo, settings, look)
        return LoadedPhoto(views, read_metadata(photo.paths[0]), curve, warnings)
    except MemoryError as error:
        reason = str(error) or "out of memory"
        raise UnreadableError(
            f"{photo.paths[0].name}: too large for this machine's memory: {reason}; "
            "expected a photo that fits (a damaged file may claim any size); close other programs "
            "or leave the file out with --exclude"
        ) from error


def _load_views(
    photo: Photo, settings: RawSettings, look: str
) -> tuple[ViewPair, ToneCurve | None, tuple[str, ...]]:
    """Return the views, the camera's tone curve where one is wanted and found, and warnings."""
    if photo.kind == "pair":
        from dpbatch.raw.pairs import pair_warnings, read_pair_views

        left, right = reversed(photo.paths) if settings.swap else photo.paths
        views = read_pair_views(left, right)
        return views, None, pair_warnings(views, left, right)
    from dpbatch.raw.develop import develop
    from dpbatch.raw.reader import open_dual

    with open_dual(photo.paths[0]) as dual:
        views, warnings = develop(dual, settings), dual.pair.warnings
        preview = dual.preview_jpeg() if look == "camera" else b""
    if not preview:
        return views, None, warnings
    from dpbatch.output.look import fit_preview

    curve = fit_preview(views, preview)
    if curve is None:
        name = photo.paths[0].name
        warnings += (f"{name}: the preview does not fit the photo; the look is neutral",)
    return views, curve, warnings


def centre(photo: LoadedPhoto, side_px: int) -> LoadedPhoto:
    """Return a square of the photo's middle, smaller where the photo is."""
    views = photo.views
    height, width = views.size
    rows = slice(max(0, (height - side_px) // 2), (height + side_px) // 2)
    columns = slice(max(0, (width - side_px) // 2), (width + side_px) // 2)
    left, right = views.left[rows, columns], views.right[rows, columns]
    return replace(photo, views=replace(views, left=left, right=right))


class Restorer:
    """The second step: network and blur map's estimator, loaded once for many photos."""

    def __init__(self, settings: RestoreSettings, keep_blur_map: bool) -> None:
        """Load the weights.

        settings: the network is named (settle_network).

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
                scale=settings.scale,
            )
        except ValueError as error:
            raise SettingsError(hinted(error)) from error
        self._keep_blur_map = keep_blur_map
        if self._model.device.type == "cuda":
            self._model.warm_up()  # or it would count against the first photo's time limit

    @property
    def device(self) -> str:
        """The device's name, such as "cpu" or "cuda:0"."""
        return str(self._model.device)

    def __call__(self, loaded: LoadedPhoto, progress: Progress) -> RestoredPhoto:
        """Estimate the blur map and remove the blur. Raises RestoreError."""
        views = loaded.views
        try:
            deblurred = self._model.restore_uint16(views, progress=progress)
        except ldp.LdpError as error:
            raise RestoreError(hinted(error)) from error
        return RestoredPhoto(
            deblurred.sharp,
            deblurred.blur_map if self._keep_blur_map else None,
            views.orientation,
            loaded.metadata,
            loaded.curve,
            loaded.warnings,
        )


def save(
    restored: RestoredPhoto, target: Path, settings: OutputSettings, note: ProcessingNote
) -> dict[Path, Written]:
    """Turn the photo upright and write it to `target`, its layers beside it and before it.

    Returns the files by path. Raises OutputError.
    """
    from dpbatch.output.color import apply_orientation
    from dpbatch.output.images import write_picture
    from dpbatch.output.layers import write_layers
    from dpbatch.output.tone import apply_look

    written: dict[Path, Written] = {}
    if restored.blur_map is not None:
        size = restored.sharp.shape[0], restored.sharp.shape[1]
        stem = target.with_suffix("")
        written = write_layers(
            stem,
            restored.blur_map,
            restored.orientation,
            size,
            settings.layers,
            note,
            format=settings.layer_format,
        )
    finished = apply_look(restored.sharp, restored.curve, settings.exposure)
    upright = apply_orientation(finished, restored.orientation)
    written[target] = write_picture(target, upright, settings, restored.metadata, note)
    return written
