"""A picture and its layers in one TIFF: as named alpha channels, or as layers with a mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from dpbatch.output.images import Pixels, encode_tiff
from dpbatch.output.late_tag import PLACEHOLDER, LateTag
from dpbatch.output.photoshop import (
    IMAGE_RESOURCES,
    IMAGE_SOURCE_DATA,
    Layer,
    channel_names,
    layer_data,
)
from ldp.types import Plane16

_BYTE, _UNDEFINED = 1, 7
ORIGINAL, SHARP = "Original", "Sharp"
"""Names of the layers."""


def encode_with_channels(
    rgb: Pixels,
    channels: Mapping[str, Plane16],
    icc: bytes | None,
    pixels_per_inch: float = 72.0,
) -> tuple[bytes, None]:
    """Return a TIFF with the named channels behind red, green and blue, complete.

    rgb: (H, W, 3). channels: (H, W) each.
    """
    pixels = np.asarray(np.dstack([rgb, *channels.values()]), np.uint16)
    names = channel_names(list(channels))
    tags = ((IMAGE_RESOURCES, _BYTE, names),)
    return encode_tiff(pixels, icc, pixels_per_inch, extra_tags=tags), None


def encode_with_layers(
    shown: Pixels,
    original: npt.NDArray[np.uint16],
    sharp: npt.NDArray[np.uint16],
    mask: Plane16,
    icc: bytes | None,
    pixels_per_inch: float = 72.0,
) -> tuple[bytes, LateTag]:
    """Return a TIFF, and the tag with its layers: ORIGINAL and, above it, SHARP behind a mask.

    shown: (H, W, 3), what programs without layers show, and what the layers give together.
    mask: (H, W), 65535 where SHARP is shown: black paint brings the original back.
    """
    content = layer_data([Layer(ORIGINAL, original), Layer(SHARP, sharp, mask)])
    encoded = encode_tiff(
        shown,
        icc,
        pixels_per_inch,
        extra_tags=((IMAGE_SOURCE_DATA, _UNDEFINED, PLACEHOLDER),),
        byteorder=">",
    )
    return encoded, LateTag(IMAGE_SOURCE_DATA, content)
