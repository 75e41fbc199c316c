"""Put a large tag into a TIFF that has its metadata already: exiv2 copies every tag repeatedly."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

Buffer = bytes | memoryview

_BIG_ENDIAN = b"MM\0*"
_ENTRY = 12
PLACEHOLDER = bytes(8)
"""Content of the tag until then; more than the four bytes that an entry holds itself."""


@dataclass(frozen=True)
class LateTag:
    """A tag of bytes of the first directory of a big-endian TIFF, which holds PLACEHOLDER in it.

    content: in pieces.
    """

    code: int
    content: Sequence[Buffer]

    def put_into(self, tiff: memoryview) -> list[Buffer]:
        """Return the pieces of the file with the tag's content at its end."""
        assert bytes(tiff[:4]) == _BIG_ENDIAN
        (start,) = struct.unpack(">I", tiff[4:8])
        (count,) = struct.unpack(">H", tiff[start : start + 2])
        entries = (start + 2 + _ENTRY * number for number in range(count))
        at = next(at for at in entries if tiff[at : at + 2] == struct.pack(">H", self.code))
        padding = bytes(len(tiff) % 2)
        size = sum(map(len, self.content))
        place = struct.pack(">II", size, len(tiff) + len(padding))
        # Of an entry: the code and the type in two bytes each, then how many and where.
        return [tiff[: at + 4], place, tiff[at + _ENTRY :], padding, *self.content]
