"""Walk the boxes of an ISO base media file whose every length may be wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dpbatch.errors import DamagedError
from dpbatch.raw.tiff import exactly, unpack

_MAX_BOXES = 64


@dataclass(frozen=True)
class Box:
    """A box of an ISO base media file; its content is bytes [start, end).

    kind: four bytes; for a `uuid` box, followed by the 16 bytes of the UUID.
    """

    kind: bytes
    start: int
    end: int


def boxes_in(file: BinaryIO, start: int, end: int, name: str) -> Iterator[Box]:
    """Yield the boxes in bytes [start, end)."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        length, kind = struct.unpack(">I4s", exactly(file, 8, name))
        header = 8
        if length == 1:
            (length,) = unpack(file, ">Q", name)
            header = 16
        elif length == 0:
            length = end - start
        if length < header or start + length > end:
            raise DamagedError(
                f"{name}: the box at byte {start} claims {length} bytes, {end - start} are there; "
                "it was cut off, copy it from the card again"
            )
        if kind == b"uuid":
            kind += exactly(file, 16, name)
            header += 16
        yield Box(kind, start + header, start + length)
        start += length


def the_box(boxes: Iterable[Box], kind: bytes, name: str) -> Box:
    for box in boxes:
        if box.kind == kind:
            return box
    raise DamagedError(f"{name}: the box {kind[:4].decode()} is missing from the CR3 structure")
