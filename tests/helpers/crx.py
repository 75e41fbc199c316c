"""Lossless crx, the raw compression of CR3, as LibRaw decodes it bit-exactly.

Every sample is coded with the decoder's escape (41 zeros, a one, 21 bits), so no adaptive state is
needed. Not compact: 8 bytes a sample.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_ESCAPE_ZEROS, _ESCAPE_BITS = 41, 21
_COLUMNS = 1 + _ESCAPE_ZEROS + 1 + _ESCAPE_BITS  # the first one is the run flag


def encode_frame(mosaic: npt.NDArray[np.uint16], bits: int = 14) -> tuple[bytes, bytes]:
    """Return the CMP1 box's content and the track's data of an (H, W) RGGB mosaic."""
    height, width = mosaic.shape
    planes = [mosaic[row::2, column::2] for row, column in np.ndindex(2, 2)]
    coded = []
    for plane in planes:
        stream = _encode_plane(plane, bits)
        coded.append(stream + bytes(-len(stream) % 8 + 8))
    head = struct.pack(">HHIHH", 0xFF01, 8, sum(map(len, coded)), 0, 0)
    for number, stream in enumerate(coded):
        head += struct.pack(">HHIBBH", 0xFF02, 8, len(stream), (number << 4) | 8, 0, 0)
        head += struct.pack(">HHII", 0xFF03, 8, len(stream), 4 << 19)
    head += bytes(-len(head) % 8)
    cmp1 = struct.pack(">hHHHIIII", -1, 0x30, 0x100, 0, width, height, width, height)
    cmp1 += bytes([bits, 4 << 4, 0, 0]) + struct.pack(">I", len(head)) + bytes(4)
    return cmp1 + b"\1\1\0\0" * 4, head + b"".join(coded)


def _encode_plane(plane: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Code one colour plane: the median predictor, and its run mode with runs of length 0."""
    value = plane.astype(np.int64) - (1 << (bits - 1))
    left = np.empty_like(value)
    left[:, 1:] = value[:, :-1]
    left[0, 0] = 0
    left[1:, 0] = value[:-1, 0]  # a line begins with the value above it
    up = np.zeros_like(value)
    up[1:] = value[:-1]
    up_left = np.zeros_like(value)
    up_left[:, 1:] = up[:, :-1]
    up_left[2:, 0] = value[:-2, 0]
    up_right = np.empty_like(value)
    up_right[:, :-1] = up[:, 1:]
    up_right[:, -1] = up[:, -1] + 1
    delta = up - up_left
    falls = delta < 0
    index = 2 * ((up_left < left) ^ falls) + ((left < up) ^ falls)
    median = np.where(index <= 1, delta + left, np.where(index == 2, left, up))
    run = (left == up) & (left == up_right)
    run[:, -1] = False
    predicted = np.where(run, up, median)
    predicted[0] = left[0]
    run[0] = left[0] == 0
    run[0, -1] = False
    return _pack((value - predicted).ravel(), run.ravel())


def _pack(error: npt.NDArray[np.int64], run_flag: npt.NDArray[np.bool_]) -> bytes:
    """Code prediction errors; where run_flag is set, a zero bit says that the run is empty."""
    code = np.where(error >= 0, 2 * error, -2 * error - 1)
    columns = np.zeros((error.size, _COLUMNS), np.uint8)
    columns[:, 1 + _ESCAPE_ZEROS] = 1
    for bit in range(_ESCAPE_BITS):
        columns[:, _COLUMNS - 1 - bit] = (code >> bit) & 1
    kept = np.ones(columns.shape, np.bool_)
    kept[:, 0] = run_flag
    return np.packbits(columns[kept]).tobytes()
