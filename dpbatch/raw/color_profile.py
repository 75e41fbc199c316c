"""Convert pictures from their embedded colour profile to sRGB, with LittleCMS."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import imagecodecs
import numpy as np
import numpy.typing as npt

from dpbatch.errors import UnreadableError
from ldp.srgb import encode_srgb

Float = npt.NDArray[np.float32]
Integers = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ADOBE_RGB = "Adobe RGB"
"""In place of a profile: cameras state Adobe RGB in EXIF and embed none."""

_LARGEST_PROFILE = 16 << 20
_SRGB_TOLERANCE = 0.004  # about one step of 8 bits
_ROWS = 256
_JPEG_ICC = b"ICC_PROFILE\0"


def convert_to_srgb(stored: Integers, profile: bytes | str, name: str) -> Float | None:
    """Return a picture as sRGB-encoded float32, white at 1, nothing clipped; None for sRGB itself.

    stored: (H, W, 3) RGB or (H, W) grey, uint8 or uint16. profile: ICC, or ADOBE_RGB.
    Colours outside sRGB come out below 0 and above 1. Raises UnreadableError where the profile is
    broken or describes another kind of picture.
    """
    source = imagecodecs.cms_profile("adobergb") if isinstance(profile, str) else profile
    space = source[16:20].decode("ascii", errors="replace").strip()
    expected = "RGB" if stored.ndim == 3 else "GRAY"
    if space == "RGB" and expected == "GRAY":
        stored, expected = grey_to_rgb(stored), "RGB"
    if space != expected:
        raise UnreadableError(
            f"{name}: its colour profile is for {space!r} pictures, expected {expected}; assign "
            "the right profile, or export as sRGB"
        )
    try:
        if space == "RGB" and _is_srgb(source):
            return None
        return _converted(stored, source, space)
    except imagecodecs.CmsError as error:
        raise UnreadableError(
            f"{name}: its colour profile cannot be used ({error}); export as sRGB"
        ) from error


def grey_to_rgb(grey: Integers) -> Integers:
    """Return an (H, W) picture as (H, W, 3)."""
    rgb = np.repeat(grey[..., None], 3, axis=2)
    return rgb.astype(np.uint8) if grey.dtype == np.uint8 else rgb.astype(np.uint16)


@lru_cache(maxsize=1)
def _linear_srgb() -> bytes:
    return bytes(
        imagecodecs.cms_profile(
            "rgb",
            whitepoint=[0.3127, 0.3290, 1.0],
            primaries=[0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0],
            gamma=1.0,
        )
    )


def _transform(pixels: Float, source: bytes, space: str, target: bytes) -> Float:
    return np.asarray(
        imagecodecs.cms_transform(
            pixels, source, target, colorspace=space, outcolorspace="RGB", outdtype="float32"
        ),
        np.float32,
    )


def _is_srgb(source: bytes) -> bool:
    """Whether a profile changes no colour visibly when it is converted to sRGB."""
    levels = np.linspace(0, 1, 6, dtype=np.float32)
    lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    converted = _transform(lattice, source, "RGB", _linear_srgb())
    return bool(np.abs(encode_srgb(converted) - lattice).max() < _SRGB_TOLERANCE)


def _converted(stored: Integers, source: bytes, space: str) -> Float:
    """Convert in slices, with threads: LittleCMS takes half a second a megapixel."""
    scale = np.float32(1 / (255 if stored.dtype == np.uint8 else 65535))
    result = np.empty((*stored.shape[:2], 3), np.float32)

    def convert(start: int) -> None:
        rows = slice(start, start + _ROWS)
        pixels = stored[rows].astype(np.float32) * scale
        if space == "GRAY":
            pixels = pixels[..., None]
        light = _transform(pixels, source, space, _linear_srgb()).reshape(result[rows].shape)
        result[rows] = encode_srgb(np.ascontiguousarray(light))

    with ThreadPoolExecutor() as threads:
        list(threads.map(convert, range(0, stored.shape[0], _ROWS)))
    return result


def jpeg_profile(content: bytes, name: str) -> bytes:
    """Return the ICC profile of a JPEG, joined from its segments; empty without one."""
    parts: dict[int, bytes] = {}
    total = 0
    for marker, payload, _ in jpeg_segments(content):
        if marker == 0xE2 and payload.startswith(_JPEG_ICC) and len(payload) > 14:
            parts[payload[12]], total = payload[14:], payload[13]
    if not parts:
        return b""
    if sorted(parts) != list(range(1, total + 1)):
        raise UnreadableError(
            f"{name}: {len(parts)} of {total} pieces of its colour profile are there; export as "
            "sRGB"
        )
    return b"".join(parts[number] for number in sorted(parts))


def jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (marker, payload, end in the file) of a JPEG's segments up to the pixels."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        end = position + 2 + length
        yield marker, content[position + 4 : end], end
        position = end


def png_profile(content: bytes, name: str) -> bytes:
    """Return the ICC profile of a PNG; empty without one, or where an sRGB chunk overrules it.

    Raises UnreadableError for a broken profile, and for the colour spaces of a cICP chunk other
    than sRGB.
    """
    chunks = dict(png_chunks(content))
    if (code := chunks.get(b"cICP")) is not None and code[:2] != b"\x01\x0d":
        raise UnreadableError(
            f"{name}: a PNG with the colours of cICP {'/'.join(map(str, code))}, expected sRGB "
            "(1/13/0/1) or an ICC profile; export as sRGB"
        )
    if b"iCCP" not in chunks or b"sRGB" in chunks:
        return b""
    _, _, packed = chunks[b"iCCP"].partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error as error:
        raise UnreadableError(
            f"{name}: its colour profile does not unpack ({error}); export as sRGB"
        ) from error


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, payload) of a PNG's chunks up to the pixels."""
    position = 8
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, content[position + 8 : position + 8 + length]
        position += 12 + length
