"""Read, write and list remote files; the only file that imports fsspec.

All functions retry after temporary failures (see `retry`). They raise OSError for every failure:
FileNotFoundError, PermissionError, FileExistsError, or OSError itself with the store's own message.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dpbatch.errors import SettingsError
from dpbatch.location import RemotePath
from dpbatch.storage.retry import with_retries
from dpbatch.storage.store_errors import as_os_errors
from dpbatch.types import FileStamp

_T = TypeVar("_T")

# They have no folders; asked to make one, some would make the bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
_MTIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


def stamp_of(path: RemotePath) -> FileStamp:
    """Return the present stamp of a remote file. Raises FileNotFoundError where there is none."""

    def ask(fs: Any, key: str) -> Any:
        fs.invalidate_cache()
        return fs.info(key)

    info = _call(path, ask)
    if info["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    return _stamp(path, info)


def require(path: RemotePath) -> None:
    """Raise FileNotFoundError where there is neither a remote file nor a folder of that name."""

    def ask(fs: Any, key: str) -> None:
        fs.invalidate_cache()
        fs.info(key)

    _call(path, ask)


def files_below(folder: RemotePath, recursive: bool = True) -> dict[RemotePath, FileStamp]:
    """Return the files below a remote folder with their stamps; none where there is no folder.

    A key that is no valid path (empty or dotted parts) is listed under the path that it would be
    read as, with size -1.
    """

    def ask(fs: Any, key: str) -> Any:
        fs.invalidate_cache()
        return key, fs.find(key, maxdepth=None if recursive else 1, detail=True)

    root, found = _call(folder, ask)
    stamps = {}
    for key, info in found.items():
        below = key.removeprefix(root.rstrip("/")).lstrip("/")
        if info["type"] != "file" or not below or below.endswith("/"):
            continue
        path = folder / below
        is_path = PurePosixPath(below).as_posix() == below and ".." not in below.split("/")
        stamps[path] = _stamp(path, info if is_path else {**info, "size": -1})
    return stamps


def download(path: RemotePath, target: Path) -> None:
    """Copy a remote file to a local one."""
    _call(path, lambda fs, key: fs.get_file(key, str(target)))


def upload(source: Path, path: RemotePath) -> None:
    """Copy a local file to a remote one.

    Meanwhile some kinds of store show an incomplete file: use a temporary name and `move`.
    """

    def put(fs: Any, key: str) -> None:
        _make_parent(path, fs, key)
        fs.put_file(str(source), key)

    _call(path, put)


def move(path: RemotePath, target: RemotePath) -> None:
    """Rename a remote file in one step, and replace what had the new name.

    A copy where the store cannot rename.
    """

    def rename(fs: Any, key: str) -> None:
        new = _connect(target)[1]
        _make_parent(target, fs, new)
        _rename(fs, key, new)

    _call(path, rename)
    with contextlib.suppress(OSError):  # it is done all the same
        remove(path)


def remove(path: RemotePath) -> None:
    """Remove a remote file, if there is one."""
    try:
        _call(path, lambda fs, key: fs.rm_file(key))
    except FileNotFoundError:
        return


def read(path: RemotePath) -> bytes:
    """Return the content of a small remote file."""
    return bytes(_call(path, lambda fs, key: fs.cat_file(key)))


def write(path: RemotePath, content: bytes) -> None:
    """Make or replace a small remote file in one step."""

    def put(fs: Any, key: str) -> None:
        if path.protocol in _OBJECT_STORES:
            fs.pipe_file(key, content)
            return
        _make_parent(path, fs, key)
        fs.pipe_file(f"{key}.{token}", content)
        _rename(fs, f"{key}.{token}", key)

    token = secrets.token_hex(4)
    _call(path, put)
    if path.protocol not in _OBJECT_STORES:
        with contextlib.suppress(OSError):
            remove(path.with_name(f"{path.name}.{token}"))


def create(path: RemotePath, content: bytes) -> None:
    """Make a small remote file. Raises FileExistsError where there is one.

    In one step where the store can (If-None-Match of S3, ifGenerationMatch of Google), otherwise by
    a check and a write. Not retried, since a try may succeed although its answer is lost.
    """

    def put(fs: Any, key: str) -> None:
        _make_parent(path, fs, key)
        fs.pipe_file(key, content, mode="create")

    try:
        _call_once(path, put)
    except OSError as error:
        if error.errno == errno.EBUSY:  # another is making it at this moment
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from error
        if error.errno != errno.ENOSYS:
            raise
        try:
            stamp_of(path)
        except FileNotFoundError:
            write(path, content)
        else:
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from error


def _rename(fs: Any, key: str, new: str) -> None:
    """Rename; afterwards the old name may still exist."""
    from fsspec import AbstractFileSystem

    if type(fs).mv is not AbstractFileSystem.mv:
        fs.mv(key, new)
        return
    # It cannot rename, and the fallback of fsspec would take a * in a name for a pattern.
    fs.cp_file(key, new)


def _call(path: RemotePath, action: Callable[[Any, str], _T]) -> _T:
    """Return action(file system, key), with retries; every error is an OSError."""
    return with_retries(partial(_call_once, path, action))


def _call_once(path: RemotePath, action: Callable[[Any, str], _T]) -> _T:
    fs, key = _connect(path)
    with as_os_errors(path.protocol):
        return action(fs, key)


def _connect(path: RemotePath) -> tuple[Any, str]:
    """Return the file system of a remote path, and the path's key in it.

    Raises SettingsError, with the command that installs it, where a package is missing.
    """
    url = str(path)
    try:
        import fsspec
    except ImportError as error:
        raise SettingsError(
            f"{url}: dpbatch reaches object storage through fsspec, which is not installed: "
            "pip install fsspec s3fs"
        ) from error
    try:
        fs, key = fsspec.core.url_to_fs(url)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or getattr(error, "name", None)
        wanted = missing or "the package named there"
        raise SettingsError(f"{url}: {error}: pip install {wanted}") from error
    except ValueError as error:
        raise SettingsError(
            f"{url}: {error}; supported are s3, gs, az, sftp and the other protocols of fsspec"
        ) from error
    return fs, key


def _make_parent(path: RemotePath, fs: Any, key: str) -> None:
    if path.protocol not in _OBJECT_STORES:
        fs.makedirs(key.rpartition("/")[0], exist_ok=True)


def _stamp(path: RemotePath, info: dict[str, Any]) -> FileStamp:
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    mtime = next((info[key] for key in _MTIME_KEYS if info.get(key)), 0)
    if isinstance(mtime, str):
        mtime = datetime.fromisoformat(mtime)
    seconds = mtime.timestamp() if isinstance(mtime, datetime) else float(mtime)
    return FileStamp(str(path), int(info.get("size") or 0), round(seconds * 1e6) * 1000, etag=etag)
