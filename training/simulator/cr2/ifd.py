"""Encode TIFF image file directories, little-endian."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

BYTE, LONG, UNDEFINED = 1, 4, 7
_ASCII, _SHORT, _RATIONAL = 2, 3, 5


@dataclass(frozen=True)
class Field:
    """One IFD entry; place: the byte where its payload starts, if that is a block of its own."""

    tag: int
    kind: int
    count: int
    payload: bytes
    place: int | None = None


def directory(fields: Sequence[Field], place: int, following: int) -> bytes:
    """Encode an IFD that starts at byte `place` of the file, with its payloads behind it."""
    entries, payloads = [], b""
    payload_place = place + 2 + 12 * len(fields) + 4
    for field in sorted(fields, key=lambda f: f.tag):
        if field.place is not None:
            value = struct.pack("<I", field.place)
        elif len(field.payload) <= 4:
            value = field.payload.ljust(4, b"\0")
        else:
            value = struct.pack("<I", payload_place + len(payloads))
            payloads += field.payload + b"\0" * (len(field.payload) & 1)
        entries.append(struct.pack("<HHI", field.tag, field.kind, field.count) + value)
    return (
        struct.pack("<H", len(fields)) + b"".join(entries) + struct.pack("<I", following) + payloads
    )


def text(tag: int, text: str) -> Field:
    """Return an entry of zero-terminated UTF-8 text."""
    payload = text.encode() + b"\0"
    return Field(tag, _ASCII, len(payload), payload)


def shorts(tag: int, *values: int) -> Field:
    """Return an entry of 16-bit integers."""
    return Field(tag, _SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def longs(tag: int, *values: int) -> Field:
    """Return an entry of 32-bit integers."""
    return Field(tag, LONG, len(values), struct.pack(f"<{len(values)}I", *values))


def rationals(tag: int, *values: float) -> Field:
    """Return an entry of fractions with denominators of at most 100,000."""
    fractions = [Fraction(value).limit_denominator(100_000) for value in values]
    parts = [part for f in fractions for part in (f.numerator, f.denominator)]
    return Field(tag, _RATIONAL, len(values), struct.pack(f"<{len(parts)}I", *parts))


def blob(tag: int, payload: bytes, kind: int = UNDEFINED) -> Field:
    """Return an entry of bytes."""
    return Field(tag, kind, len(payload), payload)
