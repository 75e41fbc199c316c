"""Write a picture and its maps as OpenEXR, for compositing programs; needs the package OpenEXR."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dpbatch.errors import SettingsError
from dpbatch.output.atomic import atomic_file
from dpbatch.output.metadata import ProcessingNote, Written
from ldp.types import FloatArray, Plane

EXR_SIGNATURE = b"\x76\x2f\x31\x01"
_NOTE_PREFIX = "dpbatch_"
_LINES_OF_A_CHUNK = 16  # with the compression that is written here
_LONGEST = 1_000_000


def require_openexr() -> None:
    """Raise SettingsError where OpenEXR is not installed."""
    _openexr()


def write_exr(
    path: Path, linear: FloatArray, planes: Mapping[str, Plane], note: ProcessingNote
) -> Written:
    """Write half floats: the channels R, G, B in linear light, and one for each plane.

    linear: (H, W, 3), white at 1. planes: (H, W) each, by the name of the channel.

    Raises OutputError or DiskFullError and then leaves `path` as it was.
    """
    library = _openexr()
    channels = {"RGB": linear.astype(np.float16)}
    channels |= {name: plane.astype(np.float16) for name, plane in planes.items()}
    header: dict[str, Any] = {
        "compression": library.ZIP_COMPRESSION,
        "type": library.scanlineimage,
    }
    texts = {f"{_NOTE_PREFIX}{name}": text for name, text in asdict(note).items() if text}
    with atomic_file(path) as temporary:
        with library.File(header | texts, channels) as file:
            file.write(str(temporary))
        digest = hashlib.blake2b(temporary.read_bytes(), digest_size=16).hexdigest()
        return Written(digest)


def read_exr_note(path: Path) -> ProcessingNote | None:
    """Return how a file was made, None for one that `write_exr` did not make. Raises OSError."""
    with path.open("rb") as stream:
        found = _attributes(stream)
    texts = {
        item.name: found[_NOTE_PREFIX + item.name].decode("utf-8", "replace")
        for item in fields(ProcessingNote)
        if _NOTE_PREFIX + item.name in found
    }
    return ProcessingNote(**texts) if "version" in texts else None


def exr_opens(path: Path) -> bool:
    """Return whether a file of `write_exr` is there to its last line. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        window = _attributes(stream).get("dataWindow", b"")
        if len(window) != 16:
            return False
        _, top, _, bottom = struct.unpack("<4i", window)
        chunks = -(-(bottom - top + 1) // _LINES_OF_A_CHUNK)
        table = stream.read(8 * max(0, chunks))
        if not table or len(table) < 8 * chunks:
            return False
        last = max(struct.unpack(f"<{chunks}Q", table))
        stream.seek(min(last, size))
        header = stream.read(8)  # the first line, and the number of bytes that follow
        return len(header) == 8 and last + 8 + struct.unpack("<4xI", header)[0] <= size


def _attributes(stream: BinaryIO) -> dict[str, bytes]:
    """Return what the header holds; the stream is then behind it. {} where it is not whole."""
    if stream.read(4) != EXR_SIGNATURE:
        return {}
    stream.read(4)  # version and flags
    found: dict[str, bytes] = {}
    while True:
        name = _text(stream)
        if not name:
            return found
        _text(stream)  # its type
        length = stream.read(4)
        if len(length) < 4:
            return {}
        found[name.decode("latin-1")] = stream.read(min(_LONGEST, int.from_bytes(length, "little")))


def _text(stream: BinaryIO) -> bytes:
    """Return the bytes up to the next zero, which is skipped."""
    letters = b""
    while (letter := stream.read(1)) not in (b"", b"\0"):
        letters += letter
    return letters


def _openexr() -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise SettingsError(
            "layers in exr: the package OpenEXR is not installed; run: pip install OpenEXR"
        ) from error
    return OpenEXR
