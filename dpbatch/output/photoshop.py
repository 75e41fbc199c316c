"""What makes a TIFF more than a picture in Photoshop and its kin: named channels, and layers.

Both are tags of an ordinary TIFF (Adobe Photoshop File Formats Specification, sections "Image
resources" and "Layer and mask information"; Adobe Photoshop TIFF Technical Notes, 2002). Programs
that do not know them show the picture.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpbatch.output.deflate import deflated_in_blocks
from dpbatch.output.late_tag import Buffer
from ldp.types import Plane16

IMAGE_RESOURCES, IMAGE_SOURCE_DATA = 34377, 37724
_ALPHA_NAMES, _UNICODE_ALPHA_NAMES = 1006, 1045
_BLOCK_TITLE = b"Adobe Photoshop Document Data Block\0"
# As in a big-endian file: programs differ in what they expect in a little-endian one.
_SIGNATURE, _NORMAL, _LAYERS_16_BIT, _UNICODE_NAME = b"8BIM", b"norm", b"Lr16", b"luni"
_USER_MASK = -2
# Pixels are stored as they are: zlib makes them 4 % smaller and takes as long as all else together.
# With prediction (3) it would be a fifth, but Krita 5.1 reads wrong values from 16 bits of that.
_STORED, _ZIP = 0, 2
_ROWS_AT_ONCE = 128
_OPAQUE = 255


@dataclass(frozen=True)
class Layer:
    """rgb: (H, W, 3) uint16. mask: (H, W) uint16, 65535 shows the layer; None shows all of it."""

    name: str
    rgb: npt.NDArray[np.uint16]
    mask: Plane16 | None = None


def channel_names(names: Sequence[str]) -> bytes:
    """Return the content of the tag IMAGE_RESOURCES that names the channels behind red, green and
    blue; names are of ASCII letters, at most 255."""
    pascal = b"".join(bytes([len(name)]) + name.encode("ascii") for name in names)
    unicode = b"".join(
        struct.pack(">I", len(name) + 1) + name.encode("utf-16-be") + b"\0\0" for name in names
    )
    return _resource(_ALPHA_NAMES, pascal) + _resource(_UNICODE_ALPHA_NAMES, unicode)


def layer_data(layers: Sequence[Layer]) -> list[Buffer]:
    """Return the content of the tag IMAGE_SOURCE_DATA of a big-endian TIFF, in pieces.

    layers: from the lowest to the topmost, all of one size.
    """
    records: list[bytes] = []
    contents: list[Buffer] = []
    for layer in layers:
        channels = {channel: _stored(layer.rgb[..., channel]) for channel in range(3)}
        if layer.mask is not None:
            channels[_USER_MASK] = _zipped(layer.mask)
        lengths = {channel: sum(map(len, pieces)) for channel, pieces in channels.items()}
        records.append(_record(layer, lengths))
        for pieces in channels.values():
            contents += pieces
    pieces = [struct.pack(">h", len(layers)), *records, *contents]
    size = sum(map(len, pieces))
    padding = -size % 4
    start = (_BLOCK_TITLE, _SIGNATURE, _LAYERS_16_BIT, struct.pack(">I", size + padding))
    return [b"".join(start), *pieces, bytes(padding)]


def _resource(number: int, content: bytes) -> bytes:
    """Return one image resource, of which every number is big-endian in any file."""
    return b"8BIM" + struct.pack(">H2xI", number, len(content)) + content + bytes(len(content) % 2)


def _record(layer: Layer, lengths: dict[int, int]) -> bytes:
    """Return the record of a layer. lengths: bytes of each channel's data."""
    height, width = layer.rgb.shape[:2]
    rectangle = struct.pack(">4i", 0, 0, height, width)
    channels = b"".join(struct.pack(">hI", *channel) for channel in lengths.items())
    mask = b"" if layer.mask is None else rectangle + bytes(4)  # black outside; no flags; padding
    short = layer.name.encode("ascii", "replace")[:255]
    name = bytes([len(short)]) + short
    name += bytes(-len(name) % 4)
    whole = layer.name.encode("utf-16-be")
    unicode_name = struct.pack(">I", len(whole) // 2) + whole
    unicode_name += bytes(-len(unicode_name) % 4)
    extra = b"".join((
        struct.pack(">I", len(mask)), mask,
        struct.pack(">I", 0),  # no blending ranges
        name,
        _SIGNATURE, _UNICODE_NAME, struct.pack(">I", len(unicode_name)), unicode_name,
    ))  # fmt: skip
    return b"".join((
        rectangle, struct.pack(">H", len(lengths)), channels,
        _SIGNATURE, _NORMAL, bytes([_OPAQUE, 0, 0, 0]),  # not clipped; visible; filler
        struct.pack(">I", len(extra)), extra,
    ))  # fmt: skip


def _stored(plane: Plane16) -> list[Buffer]:
    """Return a channel in pieces: how it is compressed, then its rows as they are."""
    octets = plane.astype(">u2", order="C").view(np.uint8).reshape(-1)
    return [struct.pack(">H", _STORED), octets.data]


def _zipped(plane: Plane16) -> list[Buffer]:
    """Return a channel in pieces: how it is compressed, then one zlib stream of all its rows."""
    starts = range(0, len(plane), _ROWS_AT_ONCE)
    pieces = deflated_in_blocks(lambda start: _rows(plane, start), starts)
    return [struct.pack(">H", _ZIP), *pieces]


def _rows(plane: Plane16, start: int) -> npt.NDArray[np.uint8]:
    return plane[start : start + _ROWS_AT_ONCE].astype(">u2", order="C").view(np.uint8)
