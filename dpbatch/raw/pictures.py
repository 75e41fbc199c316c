"""Read a TIFF, PNG or JPEG file as RGB, in its own orientation.

Sizes are looked at before anything is decoded, so that a file cannot claim more memory than a
picture needs.
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.raw.color_profile import (
    ADOBE_RGB,
    Integers,
    convert_to_srgb,
    grey_to_rgb,
    jpeg_profile,
    jpeg_segments,
    png_chunks,
    png_profile,
)
from dpbatch.raw.tiff import Tiff

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# What tifffile and imagecodecs raise on inconsistent files.
_BROKEN_CONTENT = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError,
    struct.error,
)  # fmt: skip
_NOT_PRINTED = logging.NullHandler()

_MAX_PIXELS = 1 << 28  # five times the largest camera's
_MAX_CHANNELS = 4
_BITS = range(4, 17)
_ICC_TAG = 34675
_ORIENTATION, _EXIF_IFD, _INTEROPERABILITY, _INTEROPERABILITY_INDEX = 0x112, 0x8769, 0xA005, 1
_JPEG_SOF = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_SOF = {0xC3: "lossless", 0xC9: "arithmetic-coded", 0xCA: "arithmetic-coded"}

Stored = npt.NDArray[np.generic]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class PictureFile:
    """pixels: (H, W, 3) RGB, sRGB-encoded; uint8 or uint16 as stored, float32 with white at 1 where
        an embedded colour profile was converted.
    bits: of a stored sample. converted: whether there was such a profile.
    orientation: EXIF, 1 to 8.
    """

    pixels: Pixels
    bits: int
    converted: bool
    orientation: int

    @property
    def size(self) -> str:
        """Width x height, for messages."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"

    @property
    def depth(self) -> str:
        """Bits a sample, for messages."""
        return f"{self.bits} bit"

    @property
    def colors(self) -> str:
        """The colour space, for messages."""
        return "by its own profile" if self.converted else "sRGB"


@dataclass(frozen=True)
class _Decoded:
    """stored: samples as decoded. bits: their real depth. profile: empty without one."""

    stored: Stored
    bits: int
    profile: bytes
    exif: bytes


def read_picture(path: Path) -> PictureFile:
    """Decode a picture of 4 to 16 bits; grey becomes RGB, alpha is dropped.

    Depths between 8 and 16 bits are scaled to 16, lower ones to 8. An embedded colour profile is
    converted to sRGB; a picture without one is taken as sRGB.

    Raises UnreadableError for a file that is missing or of a kind that is not read, DamagedError
    for one that does not decode, is cut off, or claims an impossible size.
    """
    content = _content(path)
    name = path.name
    try:
        if content.startswith(_TIFF_SIGNATURES):
            decoded = _decode_tiff(content, name)
        elif content.startswith(_PNG_SIGNATURE):
            decoded = _decode_png(content, name)
        elif content.startswith(_JPEG_SIGNATURE):
            decoded = _decode_jpeg(content, name)
        else:
            found = f"begins with {content[:8]!r}" if content else "is empty"
            raise UnreadableError(f"{name}: {found}, expected a TIFF, PNG or JPEG")
        return _as_picture(decoded, name)
    except _BROKEN_CONTENT as error:
        raise DamagedError(f"{name}: cannot be decoded ({error}); copy it again") from error
    except MemoryError as error:
        raise UnreadableError(f"{name}: not enough memory to decode it") from error


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UnreadableError(f"{path.name}: a device or a pipe, expected a file")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path.name}: {error.strerror or error}") from error


def _check_size(width: int, height: int, channels: int, name: str) -> None:
    if channels > _MAX_CHANNELS:
        raise UnreadableError(f"{name}: {channels} samples a pixel, expected RGB or grey")
    if not 0 < width * height <= _MAX_PIXELS:
        raise DamagedError(
            f"{name}: claims {width}x{height} pixels, expected 1 to {_MAX_PIXELS}; copy it again"
        )


def _decode_png(content: bytes, name: str) -> _Decoded:
    width, height = struct.unpack_from(">II", content, 16)
    _check_size(width, height, 1, name)
    exif = dict(png_chunks(content)).get(b"eXIf", b"")
    stored = np.asarray(imagecodecs.png_decode(content))  # low depths come as 8 bits
    return _Decoded(stored, stored.itemsize * 8, png_profile(content, name), exif)


def _decode_jpeg(content: bytes, name: str) -> _Decoded:
    bits, exif, pixels_at = 8, b"", 2
    for marker, payload, end in jpeg_segments(content):
        pixels_at = end
        if marker in _OTHER_SOF:
            raise UnreadableError(f"{name}: a {_OTHER_SOF[marker]} JPEG, expected an ordinary one")
        if marker in _JPEG_SOF:
            bits, height, width, channels = struct.unpack_from(">BHHB", payload)
            _check_size(width, height, channels, name)
        elif marker == 0xE1 and payload.startswith(b"Exif\0\0"):
            exif = payload[6:]
    # The decoder fills up a file that was cut off with grey and says nothing. In a scan's data
    # FF D9 cannot occur, so its absence after the first scan begins shows the cut.
    if content.find(b"\xff\xd9", pixels_at) < 0:
        raise DamagedError(f"{name}: the end of the JPEG is missing; copy it again")
    stored = np.asarray(imagecodecs.jpeg8_decode(content))
    if stored.ndim == 3 and stored.shape[2] != 3:
        raise UnreadableError(f"{name}: a CMYK JPEG, expected RGB or grey")
    return _Decoded(stored, bits, jpeg_profile(content, name), exif)


def _decode_tiff(content: bytes, name: str) -> _Decoded:
    # tifffile's messages would be printed; a program that configures logging still sees them.
    logging.getLogger("tifffile").addHandler(_NOT_PRINTED)
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        _check_size(page.imagewidth, page.imagelength, page.samplesperpixel, name)
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        # Only a JPEG's YCbCr is converted when it is decoded.
        by_jpeg = kind == "YCBCR" and tifffile.COMPRESSION(page.compression).name == "JPEG"
        if kind not in ("RGB", "MINISBLACK") and not by_jpeg:
            raise UnreadableError(f"{name}: a TIFF of kind {kind}, expected RGB or grey")
        # A strip that was cut off would otherwise come back as zeros.
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > len(content):
            raise DamagedError(
                f"{name}: {len(content)} bytes, its pixels need {max(ends)}; copy it again"
            )
        profile = page.tags.valueof(_ICC_TAG, b"")
        stored = page.asarray()
        if page.axes == "SYX":
            stored = stored.transpose(1, 2, 0)
        return _Decoded(stored, int(page.bitspersample), bytes(profile), content)


def _as_picture(decoded: _Decoded, name: str) -> PictureFile:
    stored, bits = decoded.stored, decoded.bits
    if stored.dtype not in (np.uint8, np.uint16) or bits not in _BITS:
        found = f"{bits} bit {stored.dtype}"
        raise UnreadableError(f"{name}: {found} samples, expected integers of 4 to 16 bits")
    channels = stored.shape[2] if stored.ndim == 3 else 1
    if stored.ndim not in (2, 3) or channels > _MAX_CHANNELS:
        raise UnreadableError(f"{name}: {stored.shape} samples, expected RGB or grey")
    picture = _full_scale(stored, bits)
    if channels <= 2:
        picture = picture if stored.ndim == 2 else picture[..., 0]
    else:
        picture = picture[..., :3]
    orientation, is_adobe_rgb = _exif(decoded.exif)
    profile = decoded.profile or (ADOBE_RGB if is_adobe_rgb else b"")
    converted = convert_to_srgb(picture, profile, name) if profile else None
    if converted is not None:
        return PictureFile(converted, bits, True, orientation)
    pixels = grey_to_rgb(picture) if channels <= 2 else picture
    pixels = pixels if pixels.flags.c_contiguous else pixels.copy()
    return PictureFile(pixels, bits, False, orientation)


def _full_scale(stored: Stored, bits: int) -> Integers:
    """Scale samples of other depths than 8 and 16 bits so that white is 255 or 65535."""
    if bits in (8, 16):
        return np.asarray(stored, np.uint8) if bits == 8 else np.asarray(stored, np.uint16)
    largest, white = (1 << bits) - 1, 255 if bits < 8 else 65535
    scaled = np.minimum(stored.astype(np.uint32), largest) * white + largest // 2
    scaled //= largest
    return scaled.astype(np.uint8) if bits < 8 else scaled.astype(np.uint16)


def _exif(content: bytes) -> tuple[int, bool]:
    """Return the orientation, 1 where it is missing or invalid, and whether it says Adobe RGB.

    content: a TIFF structure with EXIF tags, empty where there is none.
    """
    if not content:
        return 1, False
    orientation, is_adobe_rgb = 1, False
    try:
        tiff = Tiff(io.BytesIO(content), 0, len(content), "EXIF")
        entries = next(tiff.ifds())
        if _ORIENTATION in entries:
            orientation = tiff.first_value(entries[_ORIENTATION])
        if _EXIF_IFD in entries:
            exif = tiff.ifd_at(entries[_EXIF_IFD])
            if _INTEROPERABILITY in exif:
                index = tiff.text(tiff.ifd_at(exif[_INTEROPERABILITY]), _INTEROPERABILITY_INDEX)
                is_adobe_rgb = index == "R03"
    except (DamagedError, StopIteration, struct.error):
        pass  # the pixels are intact, only the metadata is broken
    return (orientation if orientation in range(1, 9) else 1), is_adobe_rgb
