"""Encode lossless JPEG (ITU-T T.81 process 14, SOF3) as Canon's CR2 has it: four components.

Predictor 1 (the sample to the left), one Huffman table for all components, no restart markers. Our
own rather than libjpeg-turbo's, so that one seed gives the same bytes with every version of it.
Encoding is vectorised: a 30 MP frame takes about two seconds.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PRECISION_BITS = 14
COMPONENTS = 4
_CATEGORIES = PRECISION_BITS + 1  # a difference of 14-bit samples needs 0 to 14 extra bits
_BLOCK_LINES = 256


@dataclass(frozen=True)
class _HuffmanTable:
    """Code and length of each category, and the two lists that a DHT segment stores."""

    code: npt.NDArray[np.uint64]
    length: npt.NDArray[np.int64]
    counts: bytes
    symbols: bytes


def encode_lossless_jpeg(samples: npt.NDArray[np.uint16]) -> bytes:
    """Encode a complete lossless JPEG stream.

    samples: (lines, columns, 4) uint16 in [0, 16383]; the components are interleaved.
    Raises ValueError for another shape or for samples that do not fit 14 bits.
    """
    if samples.ndim != 3 or samples.shape[2] != COMPONENTS or 0 in samples.shape:
        raise ValueError(f"samples are (lines, columns, {COMPONENTS}), found {samples.shape}")
    if int(samples.max()) >> PRECISION_BITS:
        raise ValueError(f"sample {int(samples.max())} does not fit {PRECISION_BITS} bits")
    lines, columns, _ = samples.shape
    if max(lines, columns) > 0xFFFF:
        raise ValueError(f"{columns}x{lines} JPEG samples; the format ends at 65535x65535")

    histogram = np.zeros(_CATEGORIES, np.int64)
    for differences in _differences(samples):
        histogram += np.bincount(_category(differences), minlength=_CATEGORIES)
    table = _huffman_table(histogram)
    return _headers(lines, columns, table) + _entropy_coded(samples, table) + b"\xff\xd9"


def _differences(samples: npt.NDArray[np.uint16]) -> Iterator[npt.NDArray[np.int32]]:
    """Yield prediction errors in coding order, a block of lines at a time."""
    for start in range(0, samples.shape[0], _BLOCK_LINES):
        block = samples[start : start + _BLOCK_LINES].astype(np.int32)
        errors = np.empty_like(block)
        errors[:, 1:] = block[:, 1:] - block[:, :-1]
        # The first column is predicted by the line above, the very first sample by half the range.
        above = samples[start - 1, 0].astype(np.int32) if start else 1 << (PRECISION_BITS - 1)
        errors[0, 0] = block[0, 0] - above
        errors[1:, 0] = block[1:, 0] - block[:-1, 0]
        yield errors.ravel()


def _category(differences: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the number of extra bits of each difference: the bit length of its absolute value."""
    return np.frexp(np.abs(differences).astype(np.float32))[1]


def _huffman_table(histogram: npt.NDArray[np.int64]) -> _HuffmanTable:
    """Return an optimal prefix code; the all-ones code stays free, as JPEG demands."""
    reserved = len(histogram)
    heap: list[tuple[int, int, tuple[int, ...]]] = [(0, reserved, (reserved,))]
    heap += [(int(n), symbol, (symbol,)) for symbol, n in enumerate(histogram) if n]
    heapq.heapify(heap)
    depth = dict.fromkeys(range(reserved + 1), 0)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        merged = first[2] + second[2]
        for symbol in merged:
            depth[symbol] += 1
        heapq.heappush(heap, (first[0] + second[0], first[1], merged))

    used = sorted((symbol for symbol in range(reserved) if depth[symbol]), key=lambda s: depth[s])
    codes = np.zeros(len(histogram), np.uint64)
    lengths = np.zeros(len(histogram), np.int64)
    code, previous = 0, 0
    for symbol in used:
        code <<= depth[symbol] - previous
        codes[symbol], lengths[symbol], previous = code, depth[symbol], depth[symbol]
        code += 1
    counts = bytes(int((lengths == n).sum()) for n in range(1, 17))
    return _HuffmanTable(codes, lengths, counts, bytes(used))


def _headers(lines: int, columns: int, table: _HuffmanTable) -> bytes:
    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    component_ids = range(1, COMPONENTS + 1)
    frame = struct.pack(">BHHB", PRECISION_BITS, lines, columns, COMPONENTS)
    frame += b"".join(bytes((n, 0x11, 0)) for n in component_ids)
    scan = bytes((COMPONENTS,)) + b"".join(bytes((n, 0)) for n in component_ids) + b"\x01\x00\x00"
    return (
        b"\xff\xd8"
        + segment(0xFFC4, b"\x00" + table.counts + table.symbols)
        + segment(0xFFC3, frame)
        + segment(0xFFDA, scan)
    )


def _entropy_coded(samples: npt.NDArray[np.uint16], table: _HuffmanTable) -> bytes:
    """Return the bit stream, zero bytes stuffed after every 0xFF, the last byte filled with ones.

    Every code is shorter than 32 bits, so at least one starts in each 32-bit word of the stream:
    the codes that start in one word are or-ed into a 64-bit window, and a window's lower half
    belongs to the word after it.
    """
    highest = 1 << PRECISION_BITS
    every_difference = np.arange(1 - highest, highest, dtype=np.int32)
    category = _category(every_difference)
    # A negative difference is stored as the low bits of (difference - 1).
    low_bits = (every_difference - (every_difference < 0)) & ((1 << category) - 1)
    code_of = (table.code[category] << category.astype(np.uint64)) | low_bits.astype(np.uint64)
    length_of = table.length[category] + category

    parts: list[bytes] = []
    carry, carry_bits = np.uint64(0), 0
    for differences in _differences(samples):
        index = differences + (highest - 1)
        length = length_of[index]
        end = np.cumsum(length) + carry_bits
        start = end - length
        word = start >> 5
        window = code_of[index] << (64 - length - (start & 31)).astype(np.uint64)
        window[0] |= carry << np.uint64(32)
        group_starts = np.flatnonzero(np.diff(word, prepend=-1))
        grouped = np.bitwise_or.reduceat(window, group_starts)
        stream = np.zeros(len(grouped) + 1, np.uint64)
        stream[:-1] = grouped >> np.uint64(32)
        stream[1:] |= grouped & np.uint64(0xFFFFFFFF)
        whole_words, carry_bits = divmod(int(end[-1]), 32)
        carry = stream[whole_words] if carry_bits else np.uint64(0)
        parts.append(_stuffed(stream[:whole_words].astype(">u4").tobytes()))
    if carry_bits:
        filled = int(carry) | ((1 << (32 - carry_bits)) - 1)
        parts.append(_stuffed(filled.to_bytes(4, "big")[: -(-carry_bits // 8)]))
    return b"".join(parts)


def _stuffed(stream: bytes) -> bytes:
    return stream.replace(b"\xff", b"\xff\x00")
