"""The sRGB transfer function, for signed light."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# A 45 MP picture is worked through in slices of about this many values, so that the temporaries
# stay in the processor's cache instead of doubling the memory.
_BLOCK_VALUES = 1 << 20

FloatArray = npt.NDArray[np.float32]


def encode_srgb(linear: FloatArray) -> FloatArray:
    """Linear light to sRGB-encoded values (IEC 61966-2-1), in place; returns the same array.

    linear: float32 of any shape, C-contiguous, white at 1. Negative light, as noise around black
    has it, is encoded by odd symmetry, f(-x) = -f(x). Nothing is clipped.
    """
    for block in _blocks(linear):
        light = np.abs(block)
        curved = np.power(light, np.float32(1 / 2.4))
        curved *= np.float32(1.055)
        curved -= np.float32(0.055)
        light_is_low = light <= np.float32(0.0031308)
        np.multiply(light, np.float32(12.92), out=curved, where=light_is_low)
        np.copysign(curved, block, out=block)
    return linear


def decode_srgb(encoded: FloatArray) -> FloatArray:
    """The inverse of `encode_srgb`, in place; returns the same array."""
    for block in _blocks(encoded):
        value = np.abs(block)
        light = (value + np.float32(0.055)) / np.float32(1.055)
        np.power(light, np.float32(2.4), out=light)
        np.divide(value, np.float32(12.92), out=light, where=value <= np.float32(0.04045))
        np.copysign(light, block, out=block)
    return encoded


def _blocks(array: FloatArray) -> list[FloatArray]:
    """Views that cover the whole array, in order."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError("expected a C-contiguous float32 array, which is changed in place")
    flat = array.reshape(-1)
    return [flat[start : start + _BLOCK_VALUES] for start in range(0, flat.size, _BLOCK_VALUES)]
