"""How a file was at one moment, and whether it is still so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from dpbatch.types import FileStamp

FOLDER = ".dpbatch"
"""Below the output folder: the journal, the lock and what else a run keeps beside its results."""

_READ_BYTES = 1 << 20

Stamper = Callable[[Path, bool], FileStamp]
"""`stamp`, or what does the same for files elsewhere; raises OSError where there is no file."""


def stamp(path: Path, content: bool = True) -> FileStamp:
    """A file's stamp; with `content` the whole file is read and hashed (about 1 GB/s)."""
    before = path.stat()
    digest = ""
    if content:
        running = hashlib.blake2b(digest_size=16)
        with path.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                running.update(block)
        digest = running.hexdigest()
    return FileStamp(str(path), before.st_size, before.st_mtime_ns, digest)


def same_content(
    known: Sequence[FileStamp], paths: Sequence[Path], stamp_of: Stamper = stamp
) -> bool:
    """Whether files still have the content of their stamps.

    Same size and same modification time count as the same content, as for make and rsync; where
    only the time differs (a copy, a touched file) the content is read, if the file is here.
    """
    if len(known) != len(paths):
        return False
    for old, path in zip(known, paths, strict=True):
        try:
            now = stamp_of(path, False)
            if now.size != old.size:
                return False
            if now.is_as(old):
                continue
            digest = stamp_of(path, True).blake2b
            if not digest or digest != old.blake2b:
                return False
        except OSError:
            return False  # unreadable now: loading it will say why
    return True


def unchanged(known: Sequence[FileStamp], folder: Path, stamp_of: Stamper = stamp) -> bool:
    """Whether the files of a record that still lie below `folder` are as they were written."""
    for old in known:
        try:
            now = stamp_of(folder / old.path, False)
        except FileNotFoundError:
            continue
        if not now.is_as(old):
            return False
    return True
