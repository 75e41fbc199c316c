"""A restored photo as it was asked for: what of it is sharp, its maps in files or in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dpbatch import editing
from dpbatch.errors import needs_two_views
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.af_areas import af_areas
from dpbatch.output.color import apply_orientation
from dpbatch.output.focus import (
    blended,
    depth_ranges,
    focus_weights,
    mask_weights,
    without_unseen,
)
from dpbatch.output.images import Encode, write_picture
from dpbatch.output.layer_files import write_layer_files
from dpbatch.output.layered_tiff import encode_with_channels, encode_with_layers
from dpbatch.output.layers import LayerPlane, layer_planes
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written
from dpbatch.output.refocus import Redrawing
from dpbatch.output.tone import ToneCurve
from dpbatch.raw.masks import read_mask
from dpbatch.raw.restored import RestoredRaw
from dpbatch.settings import OutputSettings
from ldp.blur.outlines import align
from ldp.types import BlurMap, Picture16, Plane, Plane16


class Restored(Protocol):
    """dpbatch.photo.RestoredPhoto."""

    @property
    def sharp(self) -> Picture16:
        """The restored picture."""

    @property
    def original(self) -> Picture16 | None:
        """The photo before that."""

    @property
    def raw(self) -> RestoredRaw | None:
        """The restored photo for editors."""

    @property
    def original_raw(self) -> RestoredRaw | None:
        """The photo before that for editors."""

    @property
    def blur_map(self) -> BlurMap | None:
        """As it was measured."""

    @property
    def orientation(self) -> int:
        """Turns them upright."""

    @property
    def curve(self) -> ToneCurve | None:
        """Of the camera."""

    @property
    def map_is_change(self) -> bool:
        """Whether the map says how much the network changed the photo."""

    @property
    def has_look(self) -> bool:
        """Whether curve and exposure have been applied."""

    @property
    def metadata(self) -> PhotoMetadata:
        """Of the photo."""


@dataclass(frozen=True)
class Chosen:
    """A photo as it is written, in the orientation of the sensor.

    picture: (H, W, 3) uint16, sRGB-encoded. weights: (H, W) uint16, 65535 where the restored
    picture is kept whole; None where it is everywhere.
    raw: for editors. planes: the layers. how: what was chosen, in words; "" for everything.
    warnings: where that is nothing of the photo, or not what was asked for.
    """

    picture: Picture16
    weights: Plane16 | None = None
    raw: RestoredRaw | None = None
    planes: Mapping[str, LayerPlane] = field(default_factory=dict)
    how: str = ""
    warnings: tuple[str, ...] = ()


def save(
    restored: Restored,
    target: Path,
    settings: OutputSettings,
    note: ProcessingNote,
    focus: FocusSettings,
) -> dict[Path, Written]:
    """Write a photo and its layers, see `dpbatch.photo.save`. Raises OutputError."""
    if restored.original is None and not focus.is_everything:
        raise needs_two_views(note.source)
    chosen = choose(restored, focus, settings)
    note = replace(note, rescued=chosen.how)
    raw = chosen.raw
    written = write_layer_files(
        target,
        chosen.planes,
        chosen.picture,
        restored.orientation,
        settings,
        note,
        light=None if raw is None else raw.light,
    )
    look = (None, 0.0) if restored.has_look else (restored.curve, settings.exposure)
    if settings.format == "dng" and raw is not None:
        picture = editing.write_raw(
            target,
            raw,
            editing.preview_of(chosen.picture, *look),
            restored.orientation,
            settings,
            metadata=restored.metadata,
            note=note,
            depth=chosen.planes["depth"].values if settings.layers_in == "dng" else None,
        )
    else:

        def finish(picture: Picture16, of_picture: RestoredRaw | None) -> Picture16:
            shown = editing.finished(picture, of_picture, restored.curve, look, settings)
            return apply_orientation(shown, restored.orientation)

        finished, encode = with_layers(restored, chosen, settings, finish)
        picture = write_picture(target, finished, settings, restored.metadata, note, encode=encode)
    warnings = picture.warnings + chosen.warnings
    written[target] = replace(picture, rescued=chosen.how, warnings=warnings)
    return written


def choose(restored: Restored, focus: FocusSettings, output: OutputSettings) -> Chosen:
    """Blend a restored photo over the original where it is asked for, and make its layers.

    restored: has the original, unless all of it is wanted.

    Raises OutputError for a mask that does not fit, and for what the map does not have.
    """
    sharp, blur_map = restored.sharp, restored.blur_map
    wants_layers = bool(output.chosen_layers)
    aligned = None
    if blur_map is not None and (focus.needs_depth or wants_layers):
        aligned = align(blur_map, sharp)
    planes: dict[str, LayerPlane] = {}
    if blur_map is not None and aligned is not None and wants_layers:
        planes = layer_planes(
            blur_map,
            aligned,
            sharp,
            output.chosen_layers,
            amount_is="change" if restored.map_is_change else "blur",
        )
    if focus.is_everything:
        return Chosen(sharp, raw=restored.raw, planes=planes)
    assert restored.original is not None
    if focus.redraws:
        return _redrawn(restored, aligned, focus, planes)
    weights, how = weights_of(
        blur_map, aligned, sharp, focus, restored.metadata.carrier, restored.orientation
    )
    is_empty = not weights.any() and focus.strength > 0
    warnings = (_nothing_chosen(aligned, how),) if is_empty else ()
    if focus.needs_depth and blur_map is not None and output.layers_in != "photoshop":
        # A mask that is painted on would have holes.
        weights = without_unseen(
            weights,
            restored.original,
            sharp,
            blur_map.confidence,
            has_more_light=restored.raw is not None,
        )
    picture = blended(restored.original, sharp, weights)
    raw = blended_raw(restored.raw, restored.original_raw, weights)
    return Chosen(picture, weights, raw, planes, how, warnings)


def _redrawn(
    restored: Restored,
    aligned: BlurMap | None,
    focus: FocusSettings,
    planes: Mapping[str, LayerPlane],
) -> Chosen:
    """Return a photo with another focus or moved bokeh, and its layers. Raises OutputError."""
    assert restored.blur_map is not None
    assert aligned is not None
    redrawing = Redrawing.of(
        restored.blur_map, aligned, restored.sharp, focus, restored.orientation
    )
    raw = restored.raw
    if raw is not None and raw.light is not None:
        raw = replace(raw, light=redrawing.picture(raw.light))
    moved = {
        name: replace(plane, values=redrawing.plane(plane.values)) for name, plane in planes.items()
    }
    picture = redrawing.picture(restored.sharp)
    return Chosen(picture, None, raw, moved, redrawing.how, redrawing.warnings)


def _nothing_chosen(aligned: BlurMap | None, how: str) -> str:
    """Return a warning that names the depths that the photo has, where they decide."""
    disparity_px = None if aligned is None else aligned.disparity_px
    depths = ""
    if disparity_px is not None:
        depths = f"; its depths are {disparity_px.max():+.1f} to {disparity_px.min():+.1f} px"
    return f"nothing was restored: no part of the photo is chosen by {how.split(';')[0]}{depths}"


def with_layers(
    restored: Restored,
    chosen: Chosen,
    output: OutputSettings,
    finish: Callable[[Picture16, RestoredRaw | None], Picture16],
) -> tuple[Picture16, Encode | None]:
    """Return the picture as it is shown, and what encodes it with its layers in it; None for a
    plain picture.

    finish: gives a picture its look and colours, and turns it upright.
    """
    orientation = restored.orientation
    if output.layers_in == "photoshop" and restored.original is not None:
        original = finish(restored.original, restored.original_raw)
        if chosen.weights is None:
            sharp = shown = finish(chosen.picture, chosen.raw)
            mask = np.full(sharp.shape[:2], 65535, np.uint16)
        else:
            sharp = finish(restored.sharp, restored.raw)
            mask = apply_orientation(chosen.weights, orientation)
            # An editor puts finished pictures together; blended before the look they differ.
            shown = blended(original, sharp, mask)
        return shown, lambda rgb, icc, inch: encode_with_layers(
            rgb, original, sharp, mask, icc, inch
        )
    finished = finish(chosen.picture, chosen.raw)
    if output.layers_in != "alpha":
        return finished, None
    channels = {
        name: apply_orientation(plane.values, orientation) for name, plane in chosen.planes.items()
    }
    return finished, lambda rgb, icc, inch: encode_with_channels(rgb, channels, icc, inch)


def blended_raw(
    sharp: RestoredRaw | None, original: RestoredRaw | None, weights: Plane16 | None
) -> RestoredRaw | None:
    """Return what editors go on with, blended as the picture is."""
    if sharp is None or original is None or weights is None:
        return sharp
    light, mosaic = sharp.light, sharp.mosaic
    if light is not None and original.light is not None:
        light = blended(original.light, light, weights)
    if mosaic is not None and original.mosaic is not None:
        top, left, height, width = sharp.active
        all_weights = np.zeros(mosaic.shape, np.uint16)
        all_weights[top : top + height, left : left + width] = weights
        mosaic = blended(original.mosaic[..., None], mosaic[..., None], all_weights)[..., 0]
    return replace(sharp, light=light, mosaic=mosaic)


def weights_of(
    blur_map: BlurMap | None,
    aligned: BlurMap | None,
    sharp: Picture16,
    settings: FocusSettings,
    carrier: bytes = b"",
    orientation: int = 1,
) -> tuple[Plane16, str]:
    """Return where the restored picture is kept, (H, W), 65535 for whole, and that in words.

    blur_map: as it was measured. aligned: with its steps at the outlines. Both are None where no
        depth is asked for.
    sharp: (H, W, 3).
    carrier: of the photo's metadata. orientation: turns the sensor's picture upright.

    Raises OutputError for a mask that does not fit and for a map without disparity.
    """
    size = sharp.shape[0], sharp.shape[1]
    mask: Plane | None = None
    if settings.mask:
        path = Path(settings.mask)
        mask = mask_weights(read_mask(path), orientation, size, path.name)
    if blur_map is None or aligned is None:
        blur_map = aligned = BlurMap(np.ones((1, 1), np.float32))
    ranges = depth_ranges(aligned, settings, af_areas(carrier))
    weights = focus_weights(blur_map, aligned, sharp, settings, ranges, mask)
    parts = [depth.described for depth in ranges]
    if settings.mask:
        parts.append(f"mask {Path(settings.mask).name}")
    if settings.strength < 1:
        parts.append(f"strength {settings.strength:g}")
    share = float(weights.mean()) / 65535
    return weights, f"{', '.join(parts) or 'all'}; {share:.0%} of the photo"
