"""Read a TIFF, PNG or JPEG file as stored: no colour conversion, no rotation."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import exifread
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from dpbatch.errors import DamagedError, UnreadableError

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# What tifffile, imagecodecs and exifread raise on inconsistent files.
_BROKEN_CONTENT = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, struct.error,
)  # fmt: skip

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class PictureFile:
    """pixels: (H, W, 3) uint8 or uint16 RGB as stored. orientation: EXIF, 1 to 8."""

    pixels: Pixels
    orientation: int

    @property
    def size(self) -> str:
        """Width x height, for messages."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"

    @property
    def depth(self) -> str:
        """Bits a sample, for messages."""
        return f"{self.pixels.itemsize * 8} bit"


def read_picture(path: Path) -> PictureFile:
    """Decode an 8 or 16 bit picture; grey becomes RGB, alpha is dropped.

    Raises UnreadableError for a file that is missing or of another kind, DamagedError for one that
    does not decode or is cut off.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path.name}: {error.strerror or error}") from error
    try:
        if content.startswith(_TIFF_SIGNATURES):
            stored = _decode_tiff(content, path.name)
        elif content.startswith(_PNG_SIGNATURE):
            stored = imagecodecs.png_decode(content)
        elif content.startswith(_JPEG_SIGNATURE):
            stored = _decode_jpeg(content, path.name)
        else:
            found = f"begins with {content[:8]!r}" if content else "is empty"
            raise UnreadableError(f"{path.name}: {found}, expected a TIFF, PNG or JPEG")
    except _BROKEN_CONTENT as error:
        raise DamagedError(f"{path.name}: cannot be decoded ({error}); copy it again") from error
    return PictureFile(_as_rgb(stored, path.name), _orientation(content))


def _decode_jpeg(content: bytes, name: str) -> npt.NDArray[np.generic]:
    # The decoder fills up a file that was cut off with grey and says nothing. In a scan's data
    # FF D9 cannot occur, so its absence after the first scan begins shows the cut.
    position = 2
    while content[position : position + 1] == b"\xff" and content[position + 1] != 0xDA:
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    if content.find(b"\xff\xd9", position) < 0:
        raise DamagedError(f"{name}: the end of the JPEG is missing; copy it again")
    stored = np.asarray(imagecodecs.jpeg8_decode(content))
    if stored.ndim == 3 and stored.shape[2] != 3:
        raise UnreadableError(f"{name}: a CMYK JPEG, expected RGB or grey")
    return stored


def _decode_tiff(content: bytes, name: str) -> npt.NDArray[np.generic]:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        kind = tifffile.PHOTOMETRIC(page.photometric)
        if kind.name not in ("RGB", "MINISBLACK", "YCBCR"):
            raise UnreadableError(f"{name}: a TIFF of kind {kind.name}, expected RGB or grey")
        # A strip that was cut off would otherwise come back as zeros.
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > len(content):
            raise DamagedError(
                f"{name}: {len(content)} bytes, its pixels need {max(ends)}; copy it again"
            )
        stored = page.asarray()
        return stored.transpose(1, 2, 0) if page.axes == "SYX" else stored


def _as_rgb(stored: npt.NDArray[np.generic], name: str) -> Pixels:
    if stored.dtype not in (np.uint8, np.uint16):
        raise UnreadableError(f"{name}: {stored.dtype} samples, expected 8 or 16 bit integers")
    planes = stored.shape[2] if stored.ndim == 3 else 1
    if stored.ndim not in (2, 3) or planes > 4:
        raise UnreadableError(f"{name}: {stored.shape} samples, expected RGB or grey")
    if planes <= 2:
        grey = stored if stored.ndim == 2 else stored[..., 0]
        stored = np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(stored[..., :3])


def _orientation(content: bytes) -> int:
    """Return the EXIF orientation, 1 where it is missing or invalid."""
    logging.getLogger("exifread").setLevel(logging.ERROR)  # it warns about files without EXIF
    try:
        tags = exifread.process_file(io.BytesIO(content), details=False)
    except _BROKEN_CONTENT:
        return 1  # the pixels are intact, only the metadata is broken
    values = tags["Image Orientation"].values if "Image Orientation" in tags else [1]
    return values[0] if values and values[0] in range(1, 9) else 1
