"""A file under its final name is always whole: it is written beside it, flushed, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import secrets
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from dpbatch.errors import DISK_FULL, DiskFullError, OutputError

# .IMG_1.dpbatch-HOST-PID-RANDOM.tif; host and process tell whose it is.
_TEMPORARY = re.compile(
    r"^\..*\.dpbatch-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}(\.[^.]*)?$", re.DOTALL
)
# No photo takes this long to write; a temporary of another machine is dead by then.
_FOREIGN_LIFETIME_S = 24 * 3600


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target` to write to; on success it becomes `target`.

    The temporary exists already (empty, with the permissions that the umask asks for) and has the
    target's suffix. Parent folders are made. When the block ends, the file is flushed to the disk
    and renamed over `target`; when it raises, the temporary is removed and `target` stays as it
    was.

    Raises DiskFullError or OutputError for every OSError, those of the block included.
    """
    temporary = target.with_name(_temporary_name(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Mode 0666 less the umask, as open() does; mkstemp would leave a file nobody else may read.
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
    """The error for the user when writing `target` failed with `error`."""
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
    """Remove the temporaries that killed runs left in `folder` (not below it); returns their paths.

    A temporary is stale when the process that made it on this machine is gone, or, where another
    machine made it, after a day. Those of runs that are alive stay. What cannot be listed or
    removed is left.
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
            if match["host"] == _host():
                stale = not _is_alive(int(match["pid"]))
            else:
                stale = time.time() - path.stat().st_mtime > _FOREIGN_LIFETIME_S
            if stale:
                path.unlink()
                removed.append(path)
        except OSError:
            continue
    return removed


def _temporary_name(target: Path) -> str:
    # 40 characters are at most 160 bytes: the whole name stays below the usual limit of 255.
    stem, suffix = target.stem[:40], target.suffix[:16]
    return f".{stem}.dpbatch-{_host()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_alive(pid: int) -> bool:
    """Whether a process with this number runs on this machine; True where it cannot be told."""
    if sys.platform == "win32":  # os.kill(pid, 0) would send Ctrl-C there
        kernel = ctypes.windll.kernel32
        query_limited_information, still_active, access_denied = 0x1000, 259, 5
        handle = kernel.OpenProcess(query_limited_information, False, pid)
        if not handle:
            return bool(kernel.GetLastError() == access_denied)
        code = ctypes.c_ulong()
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return not known or code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut, where the system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
