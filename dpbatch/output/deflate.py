"""Deflate in threads: with ISA-L where it is installed, elsewhere with libdeflate and zlib.

Level 1 throughout: it is the fastest and, for the noise of 16-bit photos, as small as any. The
bytes depend on the library and the processor, what they hold does not.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import numpy.typing as npt

try:  # four times as fast; there is no wheel of it for Windows on ARM
    from isal import isal_zlib
except ImportError:
    isal_zlib = None  # type: ignore[assignment]

Bytes = npt.NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = min(4, os.cpu_count() or 1)
_LEVEL = 1
_ADLER_MODULUS = 65521


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return function(item) for all items, in their order."""
    with ThreadPoolExecutor(max_workers=max(1, min(_THREADS, len(items)))) as threads:
        return list(threads.map(function, items))


def deflated(block: npt.NDArray[np.generic]) -> bytes:
    """Return a zlib stream of the bytes of a C-contiguous array."""
    if isal_zlib is None:
        return bytes(imagecodecs.deflate_encode(block, level=_LEVEL))
    return isal_zlib.compress(block.data, _LEVEL)


def deflated_in_blocks(block_of: Callable[[Item], Bytes], items: Sequence[Item]) -> list[bytes]:
    """Return one zlib stream (RFC 1950) in pieces, one or more, of all blocks in order.

    block_of: makes the block of an item; called in threads. items: at least one.
    """
    final = len(items) - 1

    def piece(number: int) -> tuple[bytes, int, int]:
        block = block_of(items[number])
        content, checksum = _raw_deflated(block, is_final=number == final)
        return content, checksum, block.nbytes

    pieces = in_threads(piece, range(len(items)))
    checksum = 1
    for _, of_piece, length in pieces:
        checksum = _joined_adler32(checksum, of_piece, length)
    header = b"\x78\x01"  # deflate with a window of 32 KiB, fastest level
    return [header, *(content for content, _, _ in pieces), checksum.to_bytes(4, "big")]


def _raw_deflated(block: Bytes, is_final: bool) -> tuple[bytes, int]:
    """Return deflated data that ends at a whole byte, and the Adler-32 checksum of the block."""
    library: Any = zlib if isal_zlib is None else isal_zlib
    # Of zlib's strategies run lengths are the fastest; filtered photos have no other repetition.
    strategy = zlib.Z_RLE if isal_zlib is None else zlib.Z_DEFAULT_STRATEGY
    compressor = library.compressobj(
        _LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy
    )
    start = compressor.compress(block.data)
    end = compressor.flush(zlib.Z_FINISH if is_final else zlib.Z_SYNC_FLUSH)
    return start + end, library.adler32(block.data)


def _joined_adler32(first: int, second: int, second_length: int) -> int:
    """Return the Adler-32 checksum of two parts, from theirs and the length of the second."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + second_length * ((first & 0xFFFF) - 1)
    return high % _ADLER_MODULUS << 16 | low % _ADLER_MODULUS
