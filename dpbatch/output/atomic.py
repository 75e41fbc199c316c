"""Write files atomically: under a temporary name in the same folder, flushed, then renamed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from dpbatch.errors import DISK_FULL, DiskFullError, OutputError

# .IMG_1.dpbatch-HOST-PID-RANDOM.tif
_TEMPORARY = re.compile(
    r"^\..*\.dpbatch-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}(\.[^.]*)?$", re.DOTALL
)
# No file takes this long to write.
_FOREIGN_LIFETIME_S = 24 * 3600


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` to write to; rename it to `target` on success.

    The temporary file exists, empty, with the permissions of the umask and the suffix of `target`.
    Parent folders are made. At the end of the block the file is flushed to the disk and renamed; if
    the block raises, the file is removed and `target` stays as it was.

    Raises DiskFullError or OutputError for every OSError, also for those of the block.
    """
    temporary = target.with_name(_temporary_name(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Mode 0666 minus the umask, as open() does; mkstemp would give 0600.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _flush_folder(target.parent)


def output_error(target: Path, error: OSError) -> OutputError:
    """Return the error for the user after writing `target` failed with `error`."""
    if error.errno in DISK_FULL:
        return DiskFullError(
            f"{target}: no space left on the disk (or the quota is used up); free some space and "
            "run again, finished photos are skipped"
        )
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return OutputError(
            f"{target}: {reason}; expected a folder that this user may write to and a file that no "
            "other program holds open"
        )
    return OutputError(f"{target}: could not be written: {reason}")


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove the temporary files that killed runs left in `folder` (not below) and return them.

    A temporary file is stale if the process that made it on this machine has ended, or after a day
    if another machine made it. Files that cannot be listed or removed are left.
    """
    removed = []
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []
    for name in names:
        match = _TEMPORARY.match(name)
        if match is None:
            continue
        path = folder / name
        try:
            if match["host"] == host_id():
                stale = not psutil.pid_exists(int(match["pid"]))
            else:
                stale = time.time() - path.stat().st_mtime > _FOREIGN_LIFETIME_S
            if stale:
                path.unlink()
                removed.append(path)
        except (OSError, OverflowError):  # no process has a number that large
            continue
    return removed


def _temporary_name(target: Path) -> str:
    # 40 characters are at most 160 bytes, so that the name stays below the usual limit of 255.
    stem, suffix = target.stem[:40], target.suffix[:16]
    return f".{stem}.dpbatch-{host_id()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def host_id() -> str:
    """Return eight hex digits for this machine, for names of temporary files."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the rename to the disk, which Windows does not support."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
