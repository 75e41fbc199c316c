"""Find results that are cut off, without decoding them."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import BinaryIO

import tifffile

from dpbatch.output.exr import EXR_SIGNATURE, exr_opens

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# What tifffile raises on inconsistent files.
_BROKEN_CONTENT = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, MemoryError,
    ArithmeticError, struct.error,
)  # fmt: skip

_CLASSIC_TIFF = 42
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Of the numbers of a tag; 1 of the other types."""
_NOT_PRINTED = logging.NullHandler()


def opens(path: Path) -> bool:
    """Return whether a TIFF, PNG, JPEG, DNG or EXR opens and is there to its end.

    The pixels are not decoded: any program may have saved them. Raises OSError.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
        if start.startswith(_TIFF_SIGNATURES):
            return _tiff_opens(path)
        if start == _PNG_SIGNATURE:
            return _png_ends(stream, path.stat().st_size)
        if start.startswith(EXR_SIGNATURE):
            return exr_opens(path)
        return start.startswith(_JPEG_SIGNATURE) and _jpeg_ends(path.read_bytes())


def _tiff_opens(path: Path) -> bool:
    """Return whether the first page, and those below it, have pixels and tags that end within the
    file."""
    # tifffile's messages would be printed; a program that configures logging still sees them.
    logging.getLogger("tifffile").addHandler(_NOT_PRINTED)
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            pages = [first, *(first.pages or ())]  # of a DNG: its preview and the raw pixels
            return all(0 < _end(page) <= size for page in pages) and _tags_end(path, size)
    except _BROKEN_CONTENT:
        return False


def _tags_end(path: Path, size: int) -> bool:
    """Return whether the tags of the first directory end within the file: tifffile leaves out those
    that do not. A BigTIFF, which dpbatch does not write, is not looked at."""
    with path.open("rb") as stream:
        order = ">" if stream.read(2) == b"MM" else "<"
        version, start = struct.unpack(f"{order}HI", stream.read(6))
        if version != _CLASSIC_TIFF:
            return True
        stream.seek(start)
        (count,) = struct.unpack(f"{order}H", stream.read(2))
        entries = struct.iter_unpack(f"{order}HHII", stream.read(12 * count))
        lengths = ((number * _TYPE_BYTES.get(kind, 1), place) for _, kind, number, place in entries)
        return all(length <= 4 or place + length <= size for length, place in lengths)


def _end(page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """Return where the pixels of a page end; 0 if it has none."""
    pieces = zip(page.dataoffsets, page.databytecounts, strict=True)
    return max((offset + count for offset, count in pieces), default=0)


def _png_ends(stream: BinaryIO, size: int) -> bool:
    """Walk the chunks from the first one on to the last, IEND."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= size:
        stream.seek(position)
        length, kind = struct.unpack(">I4s", stream.read(8))
        position += 12 + length
        if kind == b"IEND":
            return bool(position <= size)
    return False


def _jpeg_ends(content: bytes) -> bool:
    """Find the end of the image after its first scan; a thumbnail's lies before that."""
    position = 2
    while content[position : position + 1] == b"\xff" and content[position + 1 : position + 2]:
        if content[position + 1] == 0xDA:
            return content.find(b"\xff\xd9", position) >= 0
        position += 2 + max(int.from_bytes(content[position + 2 : position + 4], "big"), 2)
    return False
