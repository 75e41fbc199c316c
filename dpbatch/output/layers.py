"""Write the blur map beside the picture, in 16-bit grey of the full size."""

from __future__ import annotations

import json
from collections.abc import Collection
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
from ldp.types import BlurMap, Plane

DISPARITY_OFFSET = 32768
_FINEST_DISPARITY_SCALE = 256.0


def write_layers(
    target_stem: Path,
    blur_map: BlurMap,
    orientation: int,
    size: tuple[int, int],
    which: Collection[str],
    note: ProcessingNote,
    *,
    format: str = "tif",
    amount_is: Literal["blur", "change"] = "blur",
) -> dict[Path, Written]:
    """Write STEM.blur.tif, STEM.disparity.tif or both, upright; with format "png" as PNG.

    target_stem: path of the picture without suffix. size: (height, width) of the views in the
    orientation of the sensor; orientation: the EXIF tag that turns them upright. which: names of
    layers.

    blur: amount in [0, 1] as 0..65535. amount_is: "change" where the amounts say how much a network
        changed the photo, since nothing else is known of its blur; the description and the XMP name
        the layer so.
    disparity: disparity_px = (value - offset) / scale, which is x_left - x_right along the x of the
        sensor in pixels of the full-size view, near of the focus plane positive; turning the
        picture upright does not change it. offset is 32768. scale is 256, or 128, 64 and so on for
        disparities of 128 px and more. Both are in the description of the file (JSON; the tag
        ImageDescription of a TIFF, the text Description of a PNG) and in the XMP
        (dpbatch:DisparityOffset, dpbatch:DisparityScale).

    Returns the files by path. Raises OutputError or DiskFullError.
    """
    written = {}
    description: dict[str, str | float]
    properties: dict[str, str]
    for layer in which:
        if layer == "blur":
            values = quantise_amount(blur_map.amount)
            description = {"layer": amount_is, "formula": "amount = value / 65535"}
            properties = {"Layer": amount_is}
        elif blur_map.disparity_px is None:
            raise OutputError(
                f"{target_stem}: this blur estimator gives no signed disparity; leave out the "
                "layer 'disparity'"
            )
        else:
            scale = disparity_scale(blur_map.disparity_px)
            values = quantise_disparity(blur_map.disparity_px, scale)
            description = {
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
        path = target_stem.with_name(f"{target_stem.name}.{layer}.{format}")
        upright = apply_orientation(_enlarge(values, size), orientation)
        encode = encode_png if format == "png" else encode_tiff
        encoded = encode(upright, None, description=json.dumps(description))
        height, width = upright.shape
        with atomic_file(path) as temporary:
            written[path] = write_with_metadata(
                temporary,
                encoded,
                PhotoMetadata(),
                note,
                width=width,
                height=height,
                properties=properties,
            )
    return written


def quantise_amount(amount: Plane) -> npt.NDArray[np.uint16]:
    """Scale and clip [0, 1] to 0..65535."""
    return np.rint(amount.clip(0, 1) * np.float32(65535)).astype(np.uint16)


def quantise_disparity(disparity_px: Plane, scale: float) -> npt.NDArray[np.uint16]:
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


def _enlarge(values: npt.NDArray[np.uint16], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Resize to (height, width) in 16 bits: half the memory of floats, an error of one step."""
    height, width = size
    enlarged: npt.NDArray[np.uint16] = np.empty(size, np.uint16)
    cv2.resize(values, (width, height), dst=enlarged, interpolation=cv2.INTER_LINEAR)
    return enlarged
