"""TIFFs that claim far more pixels than they hold."""

from __future__ import annotations

import struct
from pathlib import Path

_STRIPS_AT, _PIXELS_AT, _STRIP_BYTES = 260, 300, 20


def write_huge_tiff(path: Path, side: int = 65535, samples: int = 900) -> None:
    """Write 340 bytes that claim side x side pixels of `samples` 8-bit samples each."""
    entries = [
        (0x100, 4, 1, side),
        (0x101, 4, 1, side),
        (0x102, 3, 1, 8),
        (0x103, 3, 1, 8),
        (0x106, 3, 1, 2),
        (0x111, 4, 2, _STRIPS_AT),
        (0x115, 3, 1, samples),
        (0x116, 4, 1, 40000),
        (0x117, 4, 2, _STRIPS_AT + 8),
        (0x11C, 3, 1, 1),
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    strips = struct.pack("<4I", _PIXELS_AT, _PIXELS_AT + _STRIP_BYTES, 8, 8)
    content = (head.ljust(_STRIPS_AT, b"\0") + strips).ljust(_PIXELS_AT, b"\0")
    path.write_bytes(content + b"x\x9c\x03\0\0\0\0\1".ljust(2 * _STRIP_BYTES, b"\0"))
