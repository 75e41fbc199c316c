"""What Canon's own metadata says about the sensor and the kind of recording.

Everything here is optional: a tag that is missing, or that a file claims to hold and does not,
counts as unknown.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dpbatch.errors import DamagedError
from dpbatch.raw.boxes import Box, boxes_in, the_box
from dpbatch.raw.container import CANON_UUID, Container
from dpbatch.raw.tiff import Entries, Tiff

_EXIF_IFD, _MAKER_NOTE = 0x8769, 0x927C
_SENSOR_INFO, _LIGHTING = 0xE0, 0x4018
_SENSOR_INFO_LEFT, _SENSOR_INFO_COUNT = 5, 9
_LIGHTING_DUAL_PIXEL, _LIGHTING_COUNT = 11, 12
_CRAW_FIELD_BYTES = 82  # of a CRAW entry, before the boxes in it
_STSD_HEADER_BYTES, _CDI1_HEADER_BYTES = 8, 4


@dataclass(frozen=True)
class CanonTags:
    """first_lit_column: the columns left of it are optically black; 0 where it is not known.
    dual_pixel_on: whether Dual Pixel RAW was switched on in the camera.
    pictures: in the raw track; more than one is a burst roll.
    """

    first_lit_column: int = 0
    dual_pixel_on: bool = False
    pictures: int = 1


def read_canon_tags(path: Path, container_format: str) -> CanonTags:
    """Read the tags of a CR2 or CR3 that `container.probe` has accepted; unknown ones of others."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if container_format == "cr2":
            return _of_cr2(file, size, path.name)
        if container_format == "cr3":
            return _of_cr3(file, size, path.name)
    return CanonTags()


def single_frame_message(path: Path, container: Container) -> str:
    """Return the message of the error for a readable raw file without a second frame."""
    tags = read_canon_tags(path, container.format)
    return f"{path.name}: {single_frame_reason(tags, container)}"


def single_frame_reason(tags: CanonTags, container: Container) -> str:
    """Return why a readable raw file has no second frame, and what to do."""
    if tags.pictures > 1:
        return (
            f"a burst roll of {tags.pictures} pictures, expected one Dual Pixel RAW; it has no "
            "second frame"
        )
    if tags.dual_pixel_on:
        return (
            "1 raw frame, expected 2; the camera recorded Dual Pixel RAW (the metadata says "
            "DualPixelRaw = On), so another program has rewritten the file and dropped the second "
            "frame; use the original from the card"
        )
    frames = f"{container.raw_frames} raw frame, expected 2"
    return f"{frames}; switch on Dual Pixel RAW in the camera"


def _of_cr2(file: BinaryIO, size: int, name: str) -> CanonTags:
    try:
        tiff = Tiff(file, 0, size, name)
        exif = tiff.ifd_at(next(tiff.ifds())[_EXIF_IFD])
        note = tiff.ifd_at(exif[_MAKER_NOTE])
    except (DamagedError, KeyError, struct.error):
        return CanonTags()
    return CanonTags(_sensor_left(tiff, note), _dual_pixel_on(tiff, note))


def _of_cr3(file: BinaryIO, size: int, name: str) -> CanonTags:
    dual_pixel_on, left, pictures = False, 0, 1
    try:
        moov = the_box(boxes_in(file, 0, size, name), b"moov", name)
        inside = list(boxes_in(file, moov.start, moov.end, name))
        canon = the_box(inside, b"uuid" + CANON_UUID, name)
        cmt3 = the_box(boxes_in(file, canon.start, canon.end, name), b"CMT3", name)
        tiff = Tiff(file, cmt3.start, cmt3.end, name)
        note = next(tiff.ifds())
        dual_pixel_on, left = _dual_pixel_on(tiff, note), _sensor_left(tiff, note)
        tracks = [box for box in inside if box.kind == b"trak"]
        if len(tracks) >= 3:
            table = _descend(file, tracks[2], (b"mdia", b"minf", b"stbl"), name)
            boxes = list(boxes_in(file, table.start, table.end, name))
            pictures = _sample_count(file, the_box(boxes, b"stsz", name))
            left = _active_left(file, the_box(boxes, b"stsd", name), name) or left
    except (DamagedError, StopIteration, struct.error):
        pass  # what was read so far is right
    return CanonTags(left, dual_pixel_on, pictures)


def _sensor_left(tiff: Tiff, note: Entries) -> int:
    """Return the first column of Canon's crop, which may begin right of the first lit one."""
    entry = note.get(_SENSOR_INFO)
    if entry is None or tiff.value_count(entry) < _SENSOR_INFO_COUNT:
        return 0
    try:
        values = tiff.shorts(entry, _SENSOR_INFO_COUNT)
    except DamagedError:
        return 0
    width, left = values[1], values[_SENSOR_INFO_LEFT]
    return left if 0 < left < width // 2 else 0


def _dual_pixel_on(tiff: Tiff, note: Entries) -> bool:
    entry = note.get(_LIGHTING)
    if entry is None or tiff.value_count(entry) < _LIGHTING_COUNT:
        return False
    try:
        return tiff.longs(entry, _LIGHTING_COUNT)[_LIGHTING_DUAL_PIXEL] == 1
    except DamagedError:
        return False


def _descend(file: BinaryIO, box: Box, kinds: tuple[bytes, ...], name: str) -> Box:
    for kind in kinds:
        box = the_box(boxes_in(file, box.start, box.end, name), kind, name)
    return box


def _sample_count(file: BinaryIO, stsz: Box) -> int:
    file.seek(stsz.start + 8)
    return int(struct.unpack(">I", file.read(4))[0])


def _active_left(file: BinaryIO, stsd: Box, name: str) -> int:
    """Return the active area's first column from the IAD1 box of the raw track; 0 without one.

    IAD1: eight shorts, the crop, the left and the top optical black, and the active area, each as
    left, top, right, bottom.
    """
    craw = the_box(boxes_in(file, stsd.start + _STSD_HEADER_BYTES, stsd.end, name), b"CRAW", name)
    cdi1 = the_box(boxes_in(file, craw.start + _CRAW_FIELD_BYTES, craw.end, name), b"CDI1", name)
    iad1 = the_box(boxes_in(file, cdi1.start + _CDI1_HEADER_BYTES, cdi1.end, name), b"IAD1", name)
    file.seek(iad1.start)
    values = struct.unpack(">24H", file.read(48))
    width, left = values[2], values[20]
    return left if 0 < left < width // 2 else 0
