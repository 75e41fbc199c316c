"""Read the IFDs of a TIFF structure in a file whose every offset and count may be wrong."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from dpbatch.errors import DamagedError

_SHORT = 3
_MAX_IFDS, _MAX_ENTRIES = 16, 512

Entries = dict[int, bytes]
"""The entries of an IFD: tag -> the ten bytes of type, count and value."""


class Tiff:
    """A TIFF structure that starts at byte `base` of a file and ends at byte `end`."""

    def __init__(self, file: BinaryIO, base: int, end: int, name: str) -> None:
        self.file, self.base, self.end, self.name = file, base, end, name
        file.seek(base)
        self.order = "<" if exactly(file, 2, name) == b"II" else ">"

    def ifds(self) -> Iterator[Entries]:
        """Yield the IFDs of the chain, at least one."""
        self.file.seek(self.base + 4)
        (offset,) = self._unpack("I")
        seen: set[int] = set()
        while offset or not seen:
            if offset in seen or len(seen) == _MAX_IFDS or not 8 <= offset < self.end - self.base:
                raise DamagedError(f"{self.name}: {self._broken_chain(offset)}")
            seen.add(offset)
            entries, offset = self._ifd(offset)
            yield entries

    def _broken_chain(self, offset: int) -> str:
        size = self.file.seek(0, os.SEEK_END)
        if self.end == size <= self.base + offset:  # the structure is the whole file, as in a CR2
            return (
                f"the chain of IFDs leads to byte {offset}, the file has {size}; it was cut off, "
                "copy it from the card again"
            )
        return f"the chain of IFDs is broken at byte {offset}"

    def ifd_at(self, entry: bytes) -> Entries:
        """Return the IFD at an entry's offset, such as EXIF's; the link to a next one is ignored.

        Raises DamagedError where the offset lies outside the structure.
        """
        (offset,) = struct.unpack_from(self.order + "I", entry, 6)
        if not 8 <= offset < self.end - self.base:
            raise DamagedError(f"{self.name}: an IFD is said to lie at byte {offset}")
        return self._ifd(offset)[0]

    def _ifd(self, offset: int) -> tuple[Entries, int]:
        """Read one IFD and the offset of the next."""
        self.file.seek(self.base + offset)
        (count,) = self._unpack("H")
        if count > _MAX_ENTRIES:
            raise DamagedError(f"{self.name}: the IFD at byte {offset} claims {count} entries")
        table = exactly(self.file, 12 * count, self.name)
        (following,) = self._unpack("I")
        rows = (table[12 * entry : 12 * entry + 12] for entry in range(count))
        return {struct.unpack_from(self.order + "H", row)[0]: row[2:] for row in rows}, following

    def first_value(self, entry: bytes) -> int:
        """Return the first SHORT or LONG of an entry whose value is stored in the entry itself."""
        (kind,) = struct.unpack_from(self.order + "H", entry)
        return int(struct.unpack_from(self.order + ("H" if kind == _SHORT else "I"), entry, 6)[0])

    def shorts(self, entry: bytes, count: int) -> tuple[int, ...]:
        """Return the first `count` SHORTs, at least three, at an entry's offset."""
        (place,) = struct.unpack_from(self.order + "I", entry, 6)
        self.file.seek(self.base + place)
        return self._unpack(f"{count}H")

    def longs(self, entry: bytes, count: int) -> tuple[int, ...]:
        """Return the first `count` LONGs, at least two, at an entry's offset."""
        (place,) = struct.unpack_from(self.order + "I", entry, 6)
        self.file.seek(self.base + place)
        return self._unpack(f"{count}I")

    def value_count(self, entry: bytes) -> int:
        """Return how many values an entry claims to hold."""
        return int(struct.unpack_from(self.order + "I", entry, 2)[0])

    def text(self, entries: Entries, tag: int) -> str:
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
        return unpack(self.file, self.order + layout, self.name)


def exactly(file: BinaryIO, count: int, name: str) -> bytes:
    """Read `count` bytes; raises DamagedError where the file ends before."""
    content = file.read(count)
    if len(content) < count:
        raise DamagedError(
            f"{name}: the file ends within its own structure; it was cut off, copy it again"
        )
    return content


def unpack(file: BinaryIO, layout: str, name: str) -> tuple[int, ...]:
    """Read what struct's `layout` describes; raises DamagedError where the file ends before."""
    return struct.unpack(layout, exactly(file, struct.calcsize(layout), name))
