"""The sRGB transfer function, for signed light. The project has no other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ldp.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

# Values a block: the temporaries of a block stay in the processor's cache, those of a whole 45 MP
# picture would double its memory.
_BLOCK_VALUES = 1 << 20
_POWER_FROM = 0.0031308
"""Light up to which the encoding is a line, and from which on it is a power."""


def encode_srgb(linear: FloatArray) -> FloatArray:
    """Encode linear light to sRGB (IEC 61966-2-1), in place, and return the same array.

    linear: float32 of any shape, C-contiguous, white at 1. Negative light, which noise around black
        has, is encoded by odd symmetry, f(-x) = -f(x). Nothing is clipped.

    Raises ValueError for an array that cannot be changed in place.
    """
    for block in _blocks(linear):
        light = np.abs(block)
        curved = np.power(light, np.float32(1 / 2.4))
        curved *= np.float32(1.055)
        curved -= np.float32(0.055)
        light_is_low = light <= np.float32(_POWER_FROM)
        np.multiply(light, np.float32(12.92), out=curved, where=light_is_low)
        np.copysign(curved, block, out=block)
    return linear


def decode_srgb(encoded: FloatArray) -> FloatArray:
    """Decode sRGB to linear light, in place, and return the same array; inverts `encode_srgb`."""
    for block in _blocks(encoded):
        value = np.abs(block)
        light = (value + np.float32(0.055)) / np.float32(1.055)
        np.power(light, np.float32(2.4), out=light)
        np.divide(value, np.float32(12.92), out=light, where=value <= np.float32(0.04045))
        np.copysign(light, block, out=block)
    return encoded


def encode_srgb_tensor(light: Tensor) -> Tensor:
    """Encode linear light as `encode_srgb` does, and return a new tensor.

    light: of any shape and device, 0 and more, white at 1.
    """
    import torch

    curved = (light.pow(1 / 2.4) * 1.055).sub_(0.055)
    return torch.where(light <= _POWER_FROM, light * 12.92, curved)


def encode_signed_srgb_tensor(light: Tensor) -> Tensor:
    """Encode signed linear light as `encode_srgb` does, and return a new tensor.

    light: of any shape and device, white at 1. It differs from encode_srgb_tensor in the last bits:
    a CPU takes a third of the time for logarithm and exponential instead of a power, and the sum of
    the line up to where the power begins and of the power from there on instead of a choice.
    """
    magnitude = light.abs()
    line = magnitude.clamp(max=_POWER_FROM)
    power = magnitude.clamp_(min=_POWER_FROM).log2_().mul_(1 / 2.4).exp2_().mul_(1.055)
    encoded = power.add_(line, alpha=12.92).sub_(0.055 + 12.92 * _POWER_FROM)
    return encoded.copysign_(light)


def decode_srgb_tensor(encoded: Tensor) -> Tensor:
    """Decode sRGB to linear light as `decode_srgb` does, and return a new tensor.

    encoded: of any shape and device, 0 and more, white at 1.
    """
    import torch

    light = ((encoded + 0.055) / 1.055).pow(2.4)
    return torch.where(encoded <= 0.04045, encoded / 12.92, light)


def _blocks(array: FloatArray) -> list[FloatArray]:
    """Return views that cover the whole array, in order."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError("expected a C-contiguous float32 array, which is changed in place")
    flat = array.reshape(-1)
    return [flat[start : start + _BLOCK_VALUES] for start in range(0, flat.size, _BLOCK_VALUES)]
