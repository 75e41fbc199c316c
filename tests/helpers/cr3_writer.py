"""Canon CR3 files with one raw track, two (Dual Pixel RAW), or a burst roll.

Written from the public description of the format (github.com/lclevy/canon_cr3). For small frames:
the pixels take 8 bytes a sample.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.helpers.crx import encode_frame
from training.simulator.cr2.ifd import Field, blob, directory, longs, rationals, shorts, text

Mosaic = npt.NDArray[np.uint16]

_MODEL_IDS = {
    "Canon EOS R": 0x80000424,
    "Canon EOS R5": 0x80000421,
    "Canon EOS R6m2": 0x80000481,
    "Canon EOS R7": 0x80000465,
    "Canon EOS R8": 0x80000487,
}
_CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_PREVIEW = bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16")
_NO_JPEG = b"\xff\xd8\xff\xd9"
_COLOR_DATA_COUNT, _COLOR_DATA_VERSION, _COLOR_DATA_WB = 3656, 33, 0x55
_COLOR_DATA_BLACK, _COLOR_DATA_WHITE = 0x55 + 0x2D1, 0x55 + 0x2D5
_WHEN = "2024:05:06 07:08:09"


@dataclass(frozen=True)
class Cr3Camera:
    """What the metadata says; nothing of it needs to fit the pixels.

    crop, active_origin: Canon's crop begins a little right of and below the first lit photosite;
        both as (left, top). black: None writes no black level. quality: 4 is RAW, 7 C-RAW.
    """

    model: str = "Canon EOS R5"
    crop: tuple[int, int] = (144, 32)
    active_origin: tuple[int, int] = (132, 20)
    black: int | None = 512
    white: int = 16383
    wb_rggb: tuple[int, int, int, int] = (2048, 1024, 1024, 1536)
    bits: int = 14
    orientation: int = 1
    iso: int = 100
    quality: int = 4


def write_cr3(
    path: Path,
    composite: Mosaic,
    second: Mosaic | None = None,
    *,
    camera: Cr3Camera | None = None,
    roll: Sequence[Mosaic] = (),
    trailer: bytes = b"",
) -> None:
    """Write full (H, W) RGGB mosaics, borders included, as they are.

    second: one photodiode's frame. roll: further pictures of the composite's track, as in a burst
    roll. trailer: bytes behind the last box.
    """
    camera = camera or Cr3Camera()
    pictures = [encode_frame(frame, camera.bits) for frame in (composite, *roll)]
    dual = None if second is None else encode_frame(second, camera.bits)
    size = (composite.shape[1], composite.shape[0])
    small = encode_frame(np.full((64, 96), 2048, np.uint16), camera.bits)
    iad1 = _iad1(camera, size)
    metadata = _ctmd(camera)
    data = {
        "jpeg": [_NO_JPEG],
        "small": [small[1]],
        "big": [stream for _, stream in pictures],
        "metadata": [metadata] * len(pictures),
        "dual": [] if dual is None else [dual[1]],
    }

    def moov(place: int) -> bytes:
        places: dict[str, list[int]] = {}
        for name, parts in data.items():
            places[name] = []
            for part in parts:
                places[name].append(place)
                place += len(part)

        def track(number: int, entry: bytes, name: str, handler: bytes = b"vide") -> bytes:
            return _track(number, entry, [len(p) for p in data[name]], places[name], handler)

        tracks = track(1, _craw(size, _box(b"JPEG", bytes(4)), jpeg=True), "jpeg")
        tracks += track(2, _craw((96, 64), _box(b"CMP1", small[0])), "small")
        tracks += track(3, _craw(size, _box(b"CMP1", pictures[0][0]) + iad1), "big")
        ctmd = struct.pack(">III", 0, 1, 1) + struct.pack(">HHI", 0, 8, len(metadata))
        tracks += track(4, _box(b"CTMD", ctmd), "metadata", b"meta")
        if dual is not None:
            tracks += track(5, _craw(size, _box(b"CMP1", dual[0]) + iad1), "dual")
        canon = _canon_box(camera, size, dual is not None)
        return _box(b"moov", canon + _box(b"mvhd", bytes(100)) + tracks)

    head = _box(b"ftyp", b"crx \0\0\0\1crx isom")
    prvw = struct.pack(">IHHHHI", 0, 1, 1620, 1080, 1, len(_NO_JPEG)) + _NO_JPEG
    preview = _box(b"uuid", _PREVIEW + bytes(8) + _box(b"PRVW", prvw))
    pixels = b"".join(part for parts in data.values() for part in parts)
    mdat_header = struct.pack(">I4sQ", 1, b"mdat", 16 + len(pixels))
    before = len(head) + len(moov(0)) + len(preview) + len(mdat_header)
    path.write_bytes(head + moov(before) + preview + mdat_header + pixels + trailer)


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _tiff(fields: list[Field]) -> bytes:
    return b"II*\0\x08\0\0\0" + directory(fields, 8, 0)


def _canon_box(camera: Cr3Camera, size: tuple[int, int], dual: bool) -> bytes:
    width, height = size
    lines = [(0x10, 0, 1), (1, 0, 2), (0, 0, 3)] + ([(4, 1, 5)] if dual else [])
    cctp = struct.pack(">III", 0, 1, len(lines))
    cctp += b"".join(_box(b"CCDT", struct.pack(">QII", *line)) for line in lines)
    cmt1 = [
        shorts(0x100, width),
        shorts(0x101, height),
        shorts(0x102, 8, 8, 8),
        shorts(0x103, 6),
        text(0x10F, "Canon"),
        text(0x110, camera.model),
        shorts(0x112, camera.orientation),
        rationals(0x11A, 72),
        rationals(0x11B, 72),
        shorts(0x128, 2),
        text(0x132, _WHEN),
    ]
    cmt2 = [
        rationals(0x829A, 1 / 200),
        rationals(0x829D, 1.8),
        shorts(0x8827, camera.iso),
        blob(0x9000, b"0231"),
        text(0x9003, _WHEN),
        text(0x9004, _WHEN),
        rationals(0x920A, 50),
        shorts(0xA002, width),
        shorts(0xA003, height),
    ]
    content = _box(b"CNCV", b"CanonCR3_001/00.10.00/00.00.00") + _box(b"CCTP", cctp)
    content += _box(b"CMT1", _tiff(cmt1)) + _box(b"CMT2", _tiff(cmt2))
    content += _box(b"CMT3", _tiff(_maker_note(camera, size, dual)))
    return _box(b"uuid", _CANON + content + _box(b"CMT4", _tiff([blob(0, b"\2\3\0\0", 1)])))


def _maker_note(camera: Cr3Camera, size: tuple[int, int], dual: bool) -> list[Field]:
    width, height = size
    settings = [0] * 51
    settings[0], settings[3], settings[22] = 102, camera.quality, 0xFFFF
    sensor = [0] * 17
    sensor[:5] = [34, width, height, 1, 1]
    sensor[5:9] = [*camera.crop, width - 1, height - 1]
    sensor[9:13] = [0, 0, camera.active_origin[0] - 1, height - 1]
    lighting = [0] * 12
    lighting[0], lighting[11] = 48, int(dual)
    return [
        shorts(0x1, *settings),
        text(0x6, camera.model),
        longs(0x10, _MODEL_IDS.get(camera.model, 0x80000999)),
        shorts(0xE0, *sensor),
        longs(0x4018, *lighting),
    ]


def _ctmd(camera: Cr3Camera) -> bytes:
    """Timed metadata with the colour data: white balance, black and white levels."""
    color = [0] * _COLOR_DATA_COUNT
    color[0] = _COLOR_DATA_VERSION
    for offset in (0, 5, 10):
        color[_COLOR_DATA_WB + offset : _COLOR_DATA_WB + offset + 4] = camera.wb_rggb
    color[_COLOR_DATA_WB + 4] = 5200
    if camera.black is not None:
        color[_COLOR_DATA_BLACK : _COLOR_DATA_BLACK + 4] = [camera.black] * 4
    color[_COLOR_DATA_WHITE : _COLOR_DATA_WHITE + 2] = [max(camera.white - 1000, 0), camera.white]
    note = _tiff([shorts(0x4001, *color)])
    record = struct.pack("<II", 8 + len(note), 0x927C) + note
    return struct.pack("<IHBBHh", 12 + len(record), 8, 1, 1, 1, -1) + record


def _iad1(camera: Cr3Camera, size: tuple[int, int]) -> bytes:
    """The sensor's areas: crop, left and top optical black, active area."""
    width, height = size
    left, top = camera.active_origin
    content = struct.pack(">8H", 0, 0, width, height, 1, 2, 1, 0)
    content += struct.pack(">4H", *camera.crop, width - 1, height - 1)
    content += struct.pack(">4H", 0, 0, left - 1, height - 1)
    content += struct.pack(">4H", left, 0, width - 1, top - 1)
    content += struct.pack(">4H", left, top, width - 1, height - 1)
    return _box(b"CDI1", bytes(4) + _box(b"IAD1", content))


def _craw(size: tuple[int, int], inner: bytes, jpeg: bool = False) -> bytes:
    content = bytes(6) + struct.pack(">H", 1) + bytes(16)
    content += struct.pack(">HHIIIH", *size, 0x480000, 0x480000, 0, 1) + bytes(32)
    content += struct.pack(">HhHH", 24, -1, 3 if jpeg else 1, 0 if jpeg else 1)
    return _box(b"CRAW", content + inner + _box(b"free", b"\0\0"))


def _track(number: int, entry: bytes, sizes: list[int], places: list[int], handler: bytes) -> bytes:
    count = len(sizes)
    same = len(set(sizes)) == 1
    stsz = struct.pack(">III", 0, sizes[0] if same else 0, count)
    stsz += b"" if same else struct.pack(f">{count}I", *sizes)
    table = _box(b"stsd", struct.pack(">II", 0, 1) + entry)
    table += _box(b"stts", struct.pack(">IIII", 0, 1, count, 1))
    table += _box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
    table += _box(b"stsz", stsz) + _box(b"free", bytes(8))
    table += _box(b"co64", struct.pack(f">II{count}Q", 0, count, *places))
    header = _box(b"vmhd" if handler == b"vide" else b"nmhd", bytes(12))
    reference = _box(b"dref", struct.pack(">II", 0, 1) + _box(b"url ", b"\0\0\0\1"))
    minf = _box(b"minf", header + _box(b"dinf", reference) + _box(b"stbl", table))
    media = _box(b"mdhd", bytes(24)) + _box(b"hdlr", bytes(8) + handler + bytes(13)) + minf
    head = _box(b"tkhd", struct.pack(">IIIII", 7, 0, 0, number, 0) + bytes(64))
    return _box(b"trak", head + _box(b"mdia", media))
