"""Write restored pictures as TIFF, PNG or JPEG, with ICC profile and metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from dpbatch.errors import OutputError
from dpbatch.output.atomic import atomic_file
from dpbatch.output.color_spaces import SPACES, icc_profile
from dpbatch.output.deflate import deflated, deflated_in_blocks, in_threads
from dpbatch.output.late_tag import LateTag
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written, write_with_metadata
from dpbatch.settings import OutputSettings

Pixels = npt.NDArray[np.uint16] | npt.NDArray[np.uint8]

Encode = Callable[[Pixels, bytes | None, float], tuple[bytes, LateTag | None]]
"""Makes a TIFF of (H, W, 3) pixels, an ICC profile and pixels per inch, and a tag that it lacks."""

_ROWS_AT_ONCE = 256
_ROWS_PER_STRIP = 32
_LARGEST_JPEG_PX = 65_500  # of libjpeg


def write_picture(
    target: Path,
    rgb: npt.NDArray[np.uint16],
    settings: OutputSettings,
    metadata: PhotoMetadata,
    note: ProcessingNote,
    orientation: int = 1,
    *,
    encode: Encode | None = None,
) -> Written:
    """Write a finished picture to `target` in the format and bit depth of the settings.

    rgb: (H, W, 3) uint16, encoded as the settings' color space has it, 65535 is white.
    orientation: the EXIF tag to write; 1 for an upright picture.
    encode: what makes a TIFF of it; None for a plain one.

    Its warnings are about metadata that could not be carried over. Raises OutputError or
    DiskFullError and then leaves `target` as it was.
    """
    height, width = rgb.shape[:2]
    is_8_bit = settings.bit_depth == 8 or settings.format == "jpg"
    pixels = to_8_bit(rgb) if is_8_bit else rgb
    icc, pixels_per_inch = icc_profile(settings.color_space), metadata.pixels_per_inch
    encoded: bytes
    late_tag: LateTag | None = None
    if settings.format == "jpg":
        if max(width, height) > _LARGEST_JPEG_PX:
            raise OutputError(
                f"{target}: {width} x {height} pixels do not fit into a JPEG, which has at most "
                f"{_LARGEST_JPEG_PX} on a side; use --format tif"
            )
        encoded = encode_jpeg(pixels, icc, settings.jpeg_quality, pixels_per_inch)
    elif settings.format == "png":
        title = SPACES[settings.color_space].title
        encoded = encode_png(pixels, icc, pixels_per_inch, profile_name=title)
    elif encode is not None:
        encoded, late_tag = encode(pixels, icc, pixels_per_inch)
    else:
        encoded = encode_tiff(pixels, icc, pixels_per_inch)
    with atomic_file(target) as temporary:
        return write_with_metadata(
            temporary,
            encoded,
            metadata,
            note,
            width=width,
            height=height,
            orientation=orientation,
            late_tag=late_tag,
        )


def to_8_bit(rgb: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Return the nearest 8-bit value of each 16-bit value, 65535 to 255; any shape."""
    result = np.empty(rgb.shape, np.uint8)
    for start in range(0, len(rgb), _ROWS_AT_ONCE):
        rows = rgb[start : start + _ROWS_AT_ONCE].astype(np.uint32)
        rows += 128  # x * 255 / 65535 is x / 257; half of 257 less a half rounds to the nearest
        rows //= 257
        result[start : start + _ROWS_AT_ONCE] = rows
    return result


def encode_tiff(
    pixels: Pixels,
    icc: bytes | None,
    pixels_per_inch: float = 72.0,
    description: str | None = None,
    *,
    extra_tags: Sequence[tuple[int, int, bytes]] = (),
    byteorder: Literal["<", ">"] = "<",
) -> bytes:
    """Return a TIFF file of one page, compressed by deflate with horizontal prediction.

    pixels: (H, W, 3) RGB, (H, W) grey, or (H, W, 3 + n) RGB and n channels that are no colours.
    extra_tags: number, TIFF type (of bytes) and content of each.
    """
    starts = range(0, len(pixels), _ROWS_PER_STRIP)

    def strip(start: int) -> bytes:
        differences = _differences(pixels, start)
        return deflated(differences.astype(differences.dtype.newbyteorder(byteorder), copy=False))

    strips = in_threads(strip, starts)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        iter(strips),  # compressed ones
        shape=pixels.shape,
        dtype=pixels.dtype.newbyteorder(byteorder),
        photometric="rgb" if pixels.ndim == 3 else "minisblack",
        planarconfig="contig" if pixels.ndim == 3 else None,
        extrasamples=["unspecified"] * max(0, pixels.shape[2] - 3) if pixels.ndim == 3 else None,
        byteorder=byteorder,
        # Not "deflate": that writes the obsolete code 32946.
        compression="adobe_deflate",
        predictor=True,
        rowsperstrip=_ROWS_PER_STRIP,
        iccprofile=icc,
        description=description,
        resolution=(pixels_per_inch, pixels_per_inch),
        resolutionunit="inch",
        extratags=[(code, kind, len(value), value, True) for code, kind, value in extra_tags],
        metadata=None,
        software=False,
    )
    # Not getbuffer(): where the traceback of an error still holds that view, the garbage collector
    # of Python 3.12.0 and 3.12.1 crashes (CPython issue 111049). getvalue() does not copy either.
    return file.getvalue()


def encode_jpeg(
    pixels: Pixels, icc: bytes, quality: int = 95, pixels_per_inch: float = 72.0
) -> bytes:
    """Return a JPEG file (JFIF, 4:4:4) with an ICC profile.

    pixels: (H, W, 3) uint8 RGB. quality: 1 to 100. icc: of at most 65,519 bytes, one segment.
    """
    encoded = bytes(
        imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444", optimize=True)
    )
    density = min(65535, round(pixels_per_inch))
    # SOI, then APP0: marker, length, "JFIF", version; unit (1: inch) and density, thumbnail size.
    header = encoded[:13] + struct.pack(">BHH", 1, density, density) + encoded[18:20]
    content = b"ICC_PROFILE\0\1\1" + icc  # segment 1 of 1
    segment = b"\xff\xe2" + struct.pack(">H", 2 + len(content)) + content
    return header + segment + encoded[20:]


def encode_png(
    pixels: Pixels,
    icc: bytes | None,
    pixels_per_inch: float = 72.0,
    description: str | None = None,
    profile_name: str = "sRGB",
) -> bytes:
    """Return a PNG file with a named ICC profile.

    pixels: (H, W, 3) RGB or (H, W) grey. description: ASCII. profile_name: Latin, to 79 letters.
    """
    height, width = pixels.shape[:2]
    is_rgb = pixels.ndim == 3
    # Bits a sample, colour type; then the only methods of compression and filtering; no interlace.
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * pixels.itemsize, 2 if is_rgb else 0, 0, 0, 0
    )
    chunks = [b"\x89PNG\r\n\x1a\n", _png_chunk(b"IHDR", header)]
    if icc is not None:  # before all others
        named = profile_name.encode("latin-1") + b"\0\0"  # end of the name, method 0
        chunks.append(_png_chunk(b"iCCP", named + zlib.compress(icc)))
    pixels_per_metre = round(pixels_per_inch / 0.0254)
    chunks.append(_png_chunk(b"pHYs", struct.pack(">IIB", pixels_per_metre, pixels_per_metre, 1)))
    if description is not None:
        chunks.append(_png_chunk(b"tEXt", b"Description\0" + description.encode("ascii")))
    starts = range(0, height, _ROWS_PER_STRIP)
    pieces = deflated_in_blocks(lambda start: _filtered(pixels, start), starts)
    chunks += in_threads(lambda piece: _png_chunk(b"IDAT", piece), pieces)
    return b"".join((*chunks, _png_chunk(b"IEND", b"")))


def _differences(pixels: Pixels, start: int) -> Pixels:
    """Return a strip of rows, each pixel as its difference to the left one (TIFF predictor 2)."""
    rows = pixels[start : start + _ROWS_PER_STRIP]
    differences = np.empty(rows.shape, rows.dtype)  # C-contiguous, also where the rows are not
    differences[:, :1] = rows[:, :1]
    np.subtract(rows[:, 1:], rows[:, :-1], out=differences[:, 1:])  # modulo the range of the type
    return differences


def _filtered(pixels: Pixels, start: int) -> npt.NDArray[np.uint8]:
    """Return rows of a PNG, each byte as its difference to the one above (filter 2)."""
    first = max(0, start - 1)
    rows = pixels[first : start + _ROWS_PER_STRIP]
    of_file = rows.astype(rows.dtype.newbyteorder(">"), order="C")
    octets = of_file.view(np.uint8).reshape(len(rows), -1)
    if start == 0:
        octets = np.concatenate([np.zeros_like(octets[:1]), octets])
    filtered = np.empty((len(octets) - 1, octets.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    np.subtract(octets[1:], octets[:-1], out=filtered[:, 1:])
    return filtered


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
