"""File stamps: size, time and hash of a file, and comparison with its present state."""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from dpbatch.location import P
from dpbatch.types import FileStamp

_READ_BYTES = 1 << 20


def stamp(path: Path, content: bool = True) -> FileStamp:
    """Return a file's stamp; with `content` the whole file is read and hashed (about 1 GB/s).

    Raises OSError, also for what is not a regular file.
    """
    before = path.stat()
    if not stat.S_ISREG(before.st_mode):  # reading a pipe or a device may never end
        kind = "a pipe" if stat.S_ISFIFO(before.st_mode) else "a folder or a device"
        raise OSError(errno.EINVAL, f"not a file but {kind}", str(path))
    digest = ""
    if content:
        running = hashlib.blake2b(digest_size=16)
        with path.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                running.update(block)
        digest = running.hexdigest()
    return FileStamp(str(path), before.st_size, before.st_mtime_ns, digest)


def same_content(
    known: Sequence[FileStamp], paths: Sequence[P], stamp_of: Callable[[P, bool], FileStamp]
) -> bool:
    """Return whether files still have the content of their stamps.

    stamp_of: returns a file's stamp, with its hash or without; raises OSError where there is none.

    Same size and same modification time count as the same content, as for make and rsync; where
    only the time differs (a copy, a touched file) the content is read, if it can be.
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
