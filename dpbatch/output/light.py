"""Linear light between the restoration and the file, in 16 bits and without losses to speak of.

The network's pictures hold the colours of sRGB up to white. What a photo has beyond goes around the
network: in "wide" pictures, whose primaries hold nearly every colour of a camera and whose range
ends one stop above white. 65536 numbers under the curve of sRGB are closer together than the steps
of the camera.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dpbatch.output.color_spaces import SPACES, from_linear_srgb
from ldp.srgb import decode_srgb, encode_srgb_tensor
from ldp.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

Wide = npt.NDArray[np.uint16]
"""(H, W, 3), primaries of ProPhoto RGB, the curve of sRGB over light / LARGEST_LIGHT."""

LARGEST_LIGHT = 2.0
"""The light of 65535; white is 1."""
_PRIMARIES = "prophoto"


def encode_wide(light: Tensor) -> Tensor:
    """Return linear light as a wide picture, uint16 of the same shape.

    light: (3, h, w) float32, sRGB primaries, white at 1; negative where colours are outside sRGB.
    What is outside ProPhoto RGB or above LARGEST_LIGHT is clipped.
    """
    import torch

    matrix = torch.from_numpy(from_linear_srgb(_PRIMARIES).astype(np.float32)).to(light.device)
    wide = torch.einsum("ij,jhw->ihw", matrix, light) / LARGEST_LIGHT
    return (encode_srgb_tensor(wide.clamp(0, 1)) * 65535 + 0.5).to(torch.uint16)


def decode_wide(wide: Wide, primaries: str = "srgb") -> FloatArray:
    """Return the linear light of a wide picture, or of rows of one, (h, w, 3), white at 1.

    primaries: of which color space; light outside it has negative parts.
    """
    return np.asarray(_table()[wide] @ _matrix(primaries), np.float32)


@functools.cache
def _table() -> FloatArray:
    values = np.arange(65536, dtype=np.float32) / np.float32(65535)
    return decode_srgb(values) * np.float32(LARGEST_LIGHT)


@functools.cache
def _matrix(primaries: str) -> FloatArray:
    matrix = from_linear_srgb(primaries) @ np.linalg.inv(from_linear_srgb(_PRIMARIES))
    return np.ascontiguousarray(matrix.T, np.float32)


def luminance_weights(primaries: str) -> FloatArray:
    """Return how much each primary of a space adds to the luminance, (3,), sum 1."""
    return np.asarray(SPACES[primaries].to_xyz[1], np.float32)
