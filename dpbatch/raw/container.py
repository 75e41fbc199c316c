"""The kind of a Canon raw file and the number of its raw frames, without decoding any.

CR2 is a TIFF: every IFD of the chain that has both StripOffsets and CR2Slice holds a raw frame.
CR3 is an ISO base media file: Canon's CCTP box has one CCDT line a track, four for Dual Pixel RAW.
At most a few kilobytes are read, and every offset is checked before it is used.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.raw.boxes import Box, boxes_in, the_box
from dpbatch.raw.tiff import Entries, Tiff

RAW_SUFFIXES = (".cr2", ".cr3", ".crw")
"""Canon's raw files, lower case. A .crw is older than Dual Pixel RAW and always has one frame."""

OTHER_RAW_SUFFIXES = (
    *(".3fr", ".arw", ".bay", ".cap", ".dcr", ".dcs", ".dng", ".erf", ".fff", ".iiq", ".k25"),
    *(".kdc", ".mdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2"),
    *(".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
"""Raw files of other makers than Canon that LibRaw reads, lower case."""

_MAKE, _MODEL, _STRIP_OFFSETS, _STRIP_BYTES, _CR2_SLICE = 0x10F, 0x110, 0x111, 0x117, 0xC640
CANON_UUID = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_CCTP_HEADER_BYTES = 12
_SINGLE_TRACKS, _DUAL_TRACKS = 3, 4


@dataclass(frozen=True)
class Container:
    """What the file's structure says.

    format: "cr2", "cr3" or "crw". raw_frames: 2 for Dual Pixel RAW, 1 for an ordinary raw.
    make, model: the camera's names as stored in the file; empty where not found, as in a CRW.
    """

    format: str
    raw_frames: int
    make: str = ""
    model: str = ""

    @property
    def is_dual_pixel(self) -> bool:
        return self.raw_frames == 2


@dataclass(frozen=True)
class _Cr2Frame:
    """A raw frame's place in the file, its vertical slices and the size in its JPEG header."""

    offset: int
    byte_count: int
    slices: tuple[int, ...]
    jpeg_size: tuple[int, int, int] | None


def probe(path: Path) -> Container:
    """Read the file's structure; takes well under a millisecond.

    Raises UnreadableError for a file that is missing, empty, not permitted or no Canon raw;
    DamagedError for one that is broken or cut off, or whose two raw frames differ in size or
    slices or lie at the same place.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a pipe" if stat.S_ISFIFO(status.st_mode) else "a folder or a device"
            raise UnreadableError(f"{path.name}: not a file but {kind}")
        with path.open("rb") as file:
            return _probe(file, status.st_size, path.name)
    except FileNotFoundError as error:
        raise UnreadableError(f"{path.name}: there is no such file") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableError(f"{path.name}: cannot be read ({reason})") from error


def _probe(file: BinaryIO, size: int, name: str) -> Container:
    head = file.read(16)
    if not head:
        raise UnreadableError(f"{name}: the file is empty; copy it from the card again")
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return _probe_cr2(file, size, name)
    if head[4:12] == b"ftypcrx ":
        return _probe_cr3(file, size, name)
    if head[6:14] == b"HEAPCCDR":
        return Container("crw", 1)
    raise UnreadableError(
        f"{name}: not a Canon raw file (starts with {head[:4].hex(' ')}); "
        "expected CR2, CR3 or CRW content"
    )


def _probe_cr2(file: BinaryIO, size: int, name: str) -> Container:
    tiff = Tiff(file, 0, size, name)
    ifds = list(tiff.ifds())
    frames = [
        _cr2_frame(tiff, entries)
        for entries in ifds
        if _STRIP_OFFSETS in entries and _CR2_SLICE in entries
    ]
    for number, frame in enumerate(frames):
        if frame.offset + frame.byte_count > size:
            raise DamagedError(
                f"{name}: raw frame {number} should end at byte {frame.offset + frame.byte_count}, "
                f"the file has {size}; it was cut off, copy it from the card again"
            )
    if len(frames) == 2:
        _check_pair(frames[0], frames[1], name)
    if len(frames) > 2:
        raise DamagedError(
            f"{name}: {len(frames)} raw frames in the CR2 structure, expected 1 or 2"
        )
    # The first CR2 cameras stored one unsliced frame, without CR2Slice.
    return Container(
        "cr2", max(1, len(frames)), tiff.text(ifds[0], _MAKE), tiff.text(ifds[0], _MODEL)
    )


def _check_pair(first: _Cr2Frame, second: _Cr2Frame, name: str) -> None:
    """Refuse frames that LibRaw would decode to wrong pixels without an error.

    LibRaw applies one set of slices to both frames, and ignores the smaller of two frames.
    """
    if first.offset == second.offset:
        raise DamagedError(
            f"{name}: both raw frames lie at byte {first.offset}, expected two frames"
        )
    if first.slices != second.slices:
        raise DamagedError(
            f"{name}: the raw frames are sliced {first.slices} and {second.slices}, expected alike"
        )
    if first.jpeg_size is None or first.jpeg_size != second.jpeg_size:
        raise DamagedError(
            f"{name}: the raw frames are {first.jpeg_size} and {second.jpeg_size} JPEG samples, "
            "expected one size"
        )


def _cr2_frame(tiff: Tiff, entries: Entries) -> _Cr2Frame:
    offset = tiff.first_value(entries[_STRIP_OFFSETS])
    byte_count = tiff.first_value(entries[_STRIP_BYTES]) if _STRIP_BYTES in entries else 0
    slices = tiff.shorts(entries[_CR2_SLICE], 3)
    return _Cr2Frame(offset, byte_count, slices, _jpeg_size(tiff.file, offset))


def _jpeg_size(file: BinaryIO, offset: int) -> tuple[int, int, int] | None:
    """Return (width, height, components) of the lossless JPEG at `offset`, None without one."""
    file.seek(offset)
    header = file.read(4096)
    at = 2
    while header[:2] == b"\xff\xd8" and at + 10 <= len(header):
        marker, length = struct.unpack_from(">HH", header, at)
        if marker == 0xFFC3:
            height, width, components = struct.unpack_from(">HHB", header, at + 5)
            return width, height, components
        at += 2 + length
    return None


def _top_boxes(file: BinaryIO, size: int, name: str) -> list[Box]:
    """Return the file's boxes; bytes after the pixels that are no box are ignored."""
    boxes: list[Box] = []
    try:
        for box in boxes_in(file, 0, size, name):
            boxes.append(box)
    except DamagedError:
        if not boxes or boxes[-1].kind != b"mdat":
            raise
    return boxes


def _probe_cr3(file: BinaryIO, size: int, name: str) -> Container:
    boxes = _top_boxes(file, size, name)
    moov = the_box(boxes, b"moov", name)
    uuid = the_box(boxes_in(file, moov.start, moov.end, name), b"uuid" + CANON_UUID, name)
    canon = list(boxes_in(file, uuid.start, uuid.end, name))
    cctp = the_box(canon, b"CCTP", name)
    lines = boxes_in(file, cctp.start + _CCTP_HEADER_BYTES, cctp.end, name)
    tracks = sum(box.kind == b"CCDT" for box in lines)
    if tracks not in (_SINGLE_TRACKS, _DUAL_TRACKS):
        raise DamagedError(f"{name}: {tracks} tracks in the CR3 structure, expected 3 or 4")
    if tracks == _DUAL_TRACKS:
        the_box(boxes, b"mdat", name)  # a file cut off before its pixels
    cmt1 = the_box(canon, b"CMT1", name)
    tiff = Tiff(file, cmt1.start, cmt1.end, name)
    ifd0 = next(tiff.ifds())
    frames = tracks - _SINGLE_TRACKS + 1
    return Container("cr3", frames, tiff.text(ifd0, _MAKE), tiff.text(ifd0, _MODEL))
