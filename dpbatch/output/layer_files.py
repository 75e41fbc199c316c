"""The files of layers beside a picture, in the form that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from dpbatch.output.color import apply_orientation
from dpbatch.output.layers import LayerPlane, layer_values, write_darktable_mask, write_layers
from dpbatch.output.light import Wide, decode_wide
from dpbatch.output.metadata import ProcessingNote, Written
from dpbatch.settings import OutputSettings
from ldp.srgb import decode_srgb
from ldp.types import FloatArray, Picture16, as_float

_ROWS_AT_ONCE = 256


def write_layer_files(
    target: Path,
    planes: Mapping[str, LayerPlane],
    shown: Picture16,
    orientation: int,
    settings: OutputSettings,
    note: ProcessingNote,
    *,
    light: Wide | None = None,
) -> dict[Path, Written]:
    """Write the files of layers beside the picture; returns them by path. Raises OutputError.

    shown: (H, W, 3) uint16, sRGB-encoded, in the orientation of the sensor. light: the same with
        what lies above white; None where nothing does, or it was not recovered.
    """
    stem = target.with_suffix("")
    turn = orientation if settings.layer_geometry == "upright" else 1
    if settings.layers_in == "files":
        return write_layers(stem, planes, turn, note, format=settings.layer_format)
    if settings.layers_in == "darktable":
        path = stem.with_name(f"{stem.name}.mask.png")
        return {path: write_darktable_mask(path, planes, note)}
    if settings.layers_in == "exr":
        from dpbatch.output.exr import write_exr

        path = stem.with_name(f"{stem.name}.exr")
        values = {
            name: apply_orientation(layer_values(plane), turn) for name, plane in planes.items()
        }
        linear = _linear(shown) if light is None else _linear(light, _decode_light)
        return {path: write_exr(path, apply_orientation(linear, turn), values, note)}
    return {}


def _decode_picture(rows: Picture16) -> FloatArray:
    return decode_srgb(as_float(rows))


def _decode_light(rows: Wide) -> FloatArray:
    """Return light of sRGB's primaries; a colour outside them loses what is negative."""
    return np.maximum(decode_wide(rows), np.float32(0))


def _linear(
    picture: Picture16, decode: Callable[[Picture16], FloatArray] = _decode_picture
) -> FloatArray:
    """Return linear light, white at 1."""
    result = np.empty(picture.shape, np.float32)
    for start in range(0, len(picture), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        result[rows] = decode(picture[rows])
    return result
