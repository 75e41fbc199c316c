"""The kind of a Canon raw file and the number of its raw frames, without decoding any.

CR2 is a TIFF: every IFD of the chain that has both StripOffsets and CR2Slice holds a raw frame.
CR3 is an ISO base media file: Canon's CCTP box has one CCDT line a track, four for Dual Pixel RAW.
At most a few kilobytes are read, and every offset is checked before it is used.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dpbatch.errors import DamagedError, UnreadableError

RAW_SUFFIXES = (".cr2", ".cr3", ".crw")
"""Canon's raw files, lower case. A .crw is older than Dual Pixel RAW and always has one frame."""

_MAKE, _MODEL, _STRIP_OFFSETS, _STRIP_BYTES, _CR2_SLICE = 0x10F, 0x110, 0x111, 0x117, 0xC640
_SHORT = 3
_MAX_IFDS, _MAX_ENTRIES = 16, 512
_MAX_BOXES = 64
_CANON_UUID = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
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


_Entries = dict[int, bytes]
"""The entries of an IFD: tag -> the ten bytes of type, count and value."""


class _Tiff:
    """A TIFF structure that starts at byte `base` of a file and ends at byte `end`."""

    def __init__(self, file: BinaryIO, base: int, end: int, name: str) -> None:
        self.file, self.base, self.end, self.name = file, base, end, name
        file.seek(base)
        self.order = "<" if _exactly(file, 2, name) == b"II" else ">"

    def ifds(self) -> Iterator[_Entries]:
        """Yield the IFDs of the chain, at least one."""
        self.file.seek(self.base + 4)
        (offset,) = self._unpack("I")
        seen: set[int] = set()
        while offset or not seen:
            if offset in seen or len(seen) == _MAX_IFDS or not 8 <= offset < self.end - self.base:
                raise DamagedError(f"{self.name}: the chain of IFDs is broken at byte {offset}")
            seen.add(offset)
            self.file.seek(self.base + offset)
            (count,) = self._unpack("H")
            if count > _MAX_ENTRIES:
                raise DamagedError(f"{self.name}: the IFD at byte {offset} claims {count} entries")
            table = _exactly(self.file, 12 * count, self.name)
            (offset,) = self._unpack("I")
            rows = (table[12 * entry : 12 * entry + 12] for entry in range(count))
            yield {struct.unpack_from(self.order + "H", row)[0]: row[2:] for row in rows}

    def first_value(self, entry: bytes) -> int:
        """Return the first SHORT or LONG of an entry whose value is stored in the entry itself."""
        (kind,) = struct.unpack_from(self.order + "H", entry)
        return int(struct.unpack_from(self.order + ("H" if kind == _SHORT else "I"), entry, 6)[0])

    def shorts(self, entry: bytes, count: int) -> tuple[int, ...]:
        """Return the first `count` SHORTs, at least three, at an entry's offset."""
        (place,) = struct.unpack_from(self.order + "I", entry, 6)
        self.file.seek(self.base + place)
        return self._unpack(f"{count}H")

    def text(self, entries: _Entries, tag: int) -> str:
        """Return an ASCII entry, cut after 64 characters; "" where it is missing or unreadable."""
        entry = entries.get(tag, bytes(10))
        count, place = struct.unpack_from(self.order + "II", entry, 2)
        if count <= 4:
            content = entry[6:10]
        else:
            self.file.seek(self.base + place)
            content = self.file.read(min(count, 64))
        return content.split(b"\0")[0].decode("ascii", errors="replace").strip()

    def _unpack(self, layout: str) -> tuple[int, ...]:
        return _unpack(self.file, self.order + layout, self.name)


@dataclass(frozen=True)
class _Box:
    """A box of an ISO base media file; its content is bytes [start, end).

    kind: four bytes; for a `uuid` box, followed by the 16 bytes of the UUID.
    """

    kind: bytes
    start: int
    end: int


def probe(path: Path) -> Container:
    """Read the file's structure; takes well under a millisecond.

    Raises UnreadableError for a file that is missing, empty, not permitted or no Canon raw;
    DamagedError for one that is broken or cut off, or whose two raw frames differ in size or
    slices or lie at the same place.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"{path}: not a file but a folder or a device")
        with path.open("rb") as file:
            return _probe(file, status.st_size, path.name)
    except FileNotFoundError as error:
        raise UnreadableError(f"{path}: there is no such file") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableError(f"{path}: cannot be read ({reason})") from error


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
    tiff = _Tiff(file, 0, size, name)
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


def _cr2_frame(tiff: _Tiff, entries: _Entries) -> _Cr2Frame:
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


def _probe_cr3(file: BinaryIO, size: int, name: str) -> Container:
    boxes = list(_boxes(file, 0, size, name))
    moov = _the_box(boxes, b"moov", name)
    uuid = _the_box(_boxes(file, moov.start, moov.end, name), b"uuid" + _CANON_UUID, name)
    canon = list(_boxes(file, uuid.start, uuid.end, name))
    cctp = _the_box(canon, b"CCTP", name)
    lines = _boxes(file, cctp.start + _CCTP_HEADER_BYTES, cctp.end, name)
    tracks = sum(box.kind == b"CCDT" for box in lines)
    if tracks not in (_SINGLE_TRACKS, _DUAL_TRACKS):
        raise DamagedError(f"{name}: {tracks} tracks in the CR3 structure, expected 3 or 4")
    if tracks == _DUAL_TRACKS:
        _the_box(boxes, b"mdat", name)  # a file cut off before its pixels
    cmt1 = _the_box(canon, b"CMT1", name)
    tiff = _Tiff(file, cmt1.start, cmt1.end, name)
    ifd0 = next(tiff.ifds())
    frames = tracks - _SINGLE_TRACKS + 1
    return Container("cr3", frames, tiff.text(ifd0, _MAKE), tiff.text(ifd0, _MODEL))


def _boxes(file: BinaryIO, start: int, end: int, name: str) -> Iterator[_Box]:
    """Yield the boxes in bytes [start, end)."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        length, kind = struct.unpack(">I4s", _exactly(file, 8, name))
        header = 8
        if length == 1:
            (length,) = _unpack(file, ">Q", name)
            header = 16
        elif length == 0:
            length = end - start
        if length < header or start + length > end:
            raise DamagedError(
                f"{name}: the box at byte {start} claims {length} bytes, {end - start} are there; "
                "it was cut off, copy it from the card again"
            )
        if kind == b"uuid":
            kind += _exactly(file, 16, name)
            header += 16
        yield _Box(kind, start + header, start + length)
        start += length


def _the_box(boxes: Iterable[_Box], kind: bytes, name: str) -> _Box:
    for box in boxes:
        if box.kind == kind:
            return box
    raise DamagedError(f"{name}: the box {kind[:4].decode()} is missing from the CR3 structure")


def _exactly(file: BinaryIO, count: int, name: str) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise DamagedError(
            f"{name}: the file ends within its own structure; it was cut off, copy it again"
        )
    return content


def _unpack(file: BinaryIO, layout: str, name: str) -> tuple[int, ...]:
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout), name))
