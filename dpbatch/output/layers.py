"""Maps of a photo as layers for other programs: beside the picture, or in it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.errors import OutputError
from dpbatch.output.atomic import atomic_file
from dpbatch.output.color import apply_orientation
from dpbatch.output.images import encode_png, encode_tiff
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written, write_with_metadata
from ldp.blur.outlines import enlarged_bands
from ldp.types import BlurMap, Plane, Plane16

DISPARITY_OFFSET = 32768
_FINEST_DISPARITY_SCALE = 256.0
_DEPTH_PERCENTILES = (0.1, 99.9)
"""Of the disparities; the nearest and farthest specks are cut off."""
DARKTABLE_CHANNELS = ("depth", "blur", "confidence")
"""Red, green and blue of the mask for darktable."""


@dataclass(frozen=True)
class LayerPlane:
    """values: (H, W) uint16 in the orientation of the sensor.

    description: what they mean, for the file. properties: the same for the XMP.
    """

    values: Plane16
    description: Mapping[str, str | float]
    properties: Mapping[str, str] = field(default_factory=dict)


def layer_planes(
    blur_map: BlurMap,
    aligned: BlurMap,
    sharp: npt.NDArray[np.uint16],
    which: Collection[str],
    *,
    amount_is: Literal["blur", "change"] = "blur",
) -> dict[str, LayerPlane]:
    """Return the layers by name at the size of the picture.

    blur_map: as it was measured. aligned: with its steps at the outlines (ldp.blur.outlines.align).
    sharp: (H, W, 3) uint16, the restored picture in the orientation of the sensor.

    depth: disparity along the outlines of the picture, the farthest 0, the nearest 65535.
    blur: amount in [0, 1] as 0..65535, along the outlines. amount_is: "change" where the amounts
        say how much a network changed the photo, since nothing else is known of its blur; the
        description and the XMP name the layer so.
    confidence: in [0, 1] as 0..65535, how far the others are measured rather than filled in.
    disparity: disparity_px = (value - offset) / scale as it was measured, which is
        x_left - x_right along the x of the sensor in pixels of the full-size view, near of the
        focus plane positive. offset is 32768. scale is 256, or 128, 64 and so on for disparities of
        128 px and more.

    The description of a layer has its formula. Raises OutputError for a layer that this map does
    not have.
    """
    makers = {
        "depth": lambda: _depth(_needed(aligned.disparity_px, "depth"), sharp),
        "blur": lambda: _amount(aligned.amount, sharp, amount_is, "amount"),
        "confidence": lambda: _amount(
            _needed(aligned.confidence, "confidence"), sharp, "confidence", "confidence"
        ),
        "disparity": lambda: _disparity(_needed(blur_map.disparity_px, "disparity"), sharp),
    }
    return {name: makers[name]() for name in which}


def layer_values(plane: LayerPlane) -> Plane:
    """Return a layer's values as numbers: disparities in px, and shares in [0, 1]."""
    values, about = plane.values.astype(np.float32), plane.description
    if about["layer"] == "disparity":
        return (values - np.float32(about["offset"])) / np.float32(about["scale"])
    values /= np.float32(65535)
    if about["layer"] == "depth":
        low, high = np.float32(about["low"]), np.float32(about["high"])
        return low + values * (high - low)
    return values


def write_layers(
    target_stem: Path,
    planes: Mapping[str, LayerPlane],
    orientation: int,
    note: ProcessingNote,
    *,
    format: str = "tif",
) -> dict[Path, Written]:
    """Write STEM.LAYER.tif for each layer in 16-bit grey; with format "png" as PNG.

    target_stem: path of the picture without suffix. orientation: the EXIF tag that turns the layers
    upright; 1 leaves them as the sensor saw them. The description of a layer is in the file (JSON;
    the tag ImageDescription of a TIFF, the text Description of a PNG).

    Returns the files by path. Raises OutputError or DiskFullError.
    """
    written = {}
    for layer, plane in planes.items():
        path = target_stem.with_name(f"{target_stem.name}.{layer}.{format}")
        turned = apply_orientation(plane.values, orientation)
        encode = encode_png if format == "png" else encode_tiff
        encoded = encode(turned, None, description=json.dumps(dict(plane.description)))
        written[path] = _write(path, encoded, turned.shape, note, plane.properties)
    return written


def write_darktable_mask(
    path: Path, planes: Mapping[str, LayerPlane], note: ProcessingNote
) -> Written:
    """Write an RGB PNG for darktable's external raster masks, in the geometry of the sensor.

    red, green and blue are DARKTABLE_CHANNELS; one that is missing is black.
    """
    shape = next(iter(planes.values())).values.shape
    channels = [
        planes[name].values if name in planes else np.zeros(shape, np.uint16)
        for name in DARKTABLE_CHANNELS
    ]
    meaning = dict(zip(("red", "green", "blue"), DARKTABLE_CHANNELS, strict=True))
    encoded = encode_png(np.dstack(channels), None, description=json.dumps(meaning))
    return _write(path, encoded, shape, note, {})


def _write(
    path: Path,
    encoded: bytes,
    shape: tuple[int, ...],
    note: ProcessingNote,
    properties: Mapping[str, str],
) -> Written:
    height, width = shape[:2]
    with atomic_file(path) as temporary:
        return write_with_metadata(
            temporary,
            encoded,
            PhotoMetadata(),
            note,
            width=width,
            height=height,
            properties=properties,
        )


def quantise_amount(amount: Plane) -> Plane16:
    """Scale and clip [0, 1] to 0..65535."""
    return np.rint(amount.clip(0, 1) * np.float32(65535)).astype(np.uint16)


def quantise_disparity(disparity_px: Plane, scale: float) -> Plane16:
    """Return 32768 + disparity_px * scale, clipped to 16 bits."""
    steps: Plane = np.rint(disparity_px * np.float32(scale))
    return (steps + np.float32(DISPARITY_OFFSET)).clip(0, 65535).astype(np.uint16)


def disparity_scale(disparity_px: Plane) -> float:
    """Return the steps a px: 256, halved until the largest disparity fits into 16 bits."""
    largest_px = float(np.abs(disparity_px).max())
    scale = _FINEST_DISPARITY_SCALE
    while largest_px * scale > 32767:
        scale /= 2
    return scale


def _needed(plane: Plane | None, layer: str) -> Plane:
    if plane is None:
        raise OutputError(
            f"this blur estimator gives no signed disparity; leave out the layer {layer!r}"
        )
    return plane


def _depth(disparity_px: Plane, sharp: npt.NDArray[np.uint16]) -> LayerPlane:
    low, high = (float(value) for value in np.percentile(disparity_px, _DEPTH_PERCENTILES))
    span = max(high - low, 1e-6)
    values = np.empty(sharp.shape[:2], np.uint16)
    for rows, band in enlarged_bands(disparity_px, sharp):
        values[rows] = quantise_amount((band - np.float32(low)) / np.float32(span))
    description: dict[str, str | float] = {
        "layer": "depth",
        "formula": "disparity_px = low + value / 65535 * (high - low)",
        "low": low,
        "high": high,
    }
    properties = {"Layer": "depth", "DepthLow": f"{low:g}", "DepthHigh": f"{high:g}"}
    return LayerPlane(values, description, properties)


def _amount(plane: Plane, sharp: npt.NDArray[np.uint16], layer: str, quantity: str) -> LayerPlane:
    values = np.empty(sharp.shape[:2], np.uint16)
    for rows, band in enlarged_bands(plane, sharp):
        values[rows] = quantise_amount(band)
    description = {"layer": layer, "formula": f"{quantity} = value / 65535"}
    return LayerPlane(values, description, {"Layer": layer})


def _disparity(disparity_px: Plane, sharp: npt.NDArray[np.uint16]) -> LayerPlane:
    scale = disparity_scale(disparity_px)
    # In 16 bits: half the memory of floats, an error of one step.
    values: Plane16 = np.empty(sharp.shape[:2], np.uint16)
    size = (sharp.shape[1], sharp.shape[0])
    small = quantise_disparity(disparity_px, scale)
    cv2.resize(small, size, dst=values, interpolation=cv2.INTER_LINEAR)
    description: dict[str, str | float] = {
        "layer": "disparity",
        "formula": "disparity_px = (value - offset) / scale",
        "offset": DISPARITY_OFFSET,
        "scale": scale,
    }
    properties = {
        "Layer": "disparity",
        "DisparityOffset": str(DISPARITY_OFFSET),
        "DisparityScale": f"{scale:g}",
    }
    return LayerPlane(values, description, properties)
