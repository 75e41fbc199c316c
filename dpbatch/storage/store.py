"""Reading, writing and listing remote files; the only file that imports fsspec.

Everything here takes paths of `urls.place`, tries again where the store or the network failed for a
moment, and raises OSError and its subclasses for whatever goes wrong: FileNotFoundError,
PermissionError, FileExistsError, or OSError itself with the store's own words.
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

# They have no folders to make; asked for one, some would make the bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
_MTIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


def stamp_of(path: RemotePath) -> FileStamp:
    """A remote file as it is now. Raises FileNotFoundError where there is none."""

    def ask(fs: Any, key: str) -> Any:
        fs.invalidate_cache()
        return fs.info(key)

    info = _call(path, ask)
    if info["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    return _stamp(path, info)


def require(path: RemotePath) -> None:
    """Raises FileNotFoundError where there is neither a remote file nor a folder of that name."""

    def ask(fs: Any, key: str) -> None:
        fs.invalidate_cache()
        fs.info(key)

    _call(path, ask)


def files_below(folder: RemotePath, recursive: bool = True) -> dict[RemotePath, FileStamp]:
    """The files below a remote folder by their paths; empty where there is none.

    A key that cannot be a path (empty or dotted parts) stands under the path that it would be read
    as, with size -1.
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
    """A remote file's content into a local file."""
    _call(path, lambda fs, key: fs.get_file(key, str(target)))


def upload(source: Path, path: RemotePath) -> None:
    """A local file's content into a remote file. For the time it takes, some kinds of store show
    half of it: use a temporary name and `move`."""

    def put(fs: Any, key: str) -> None:
        _make_parent(path, fs, key)
        fs.put_file(str(source), key)

    _call(path, put)


def move(path: RemotePath, target: RemotePath) -> None:
    """Gives a remote file another name, in one step, in the place of what had it; by a copy where
    the store cannot rename."""

    def rename(fs: Any, key: str) -> None:
        new = _connect(target)[1]
        _make_parent(target, fs, new)
        _rename(fs, key, new)

    _call(path, rename)
    with contextlib.suppress(OSError):  # it is done all the same
        remove(path)


def remove(path: RemotePath) -> None:
    """Removes a remote file; nothing where there is none."""
    try:
        _call(path, lambda fs, key: fs.rm_file(key))
    except FileNotFoundError:
        return


def read(path: RemotePath) -> bytes:
    """A small remote file's content."""
    return bytes(_call(path, lambda fs, key: fs.cat_file(key)))


def write(path: RemotePath, content: bytes) -> None:
    """Makes or replaces a small remote file, in one step."""

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
    """Makes a small remote file. Raises FileExistsError where there is one.

    One step where the store can (S3's If-None-Match, Google's ifGenerationMatch), otherwise a look
    and a write; it is not tried again, because a try may succeed without saying so.
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
    """Afterwards there may still be something under the old name."""
    from fsspec import AbstractFileSystem

    if type(fs).mv is not AbstractFileSystem.mv:
        fs.mv(key, new)
        return
    # It has no renaming of its own, and fsspec's would take a * in a name for a pattern.
    fs.cp_file(key, new)


def _call(path: RemotePath, action: Callable[[Any, str], _T]) -> _T:
    """Return action(file system, key), tried again; every error is an OSError."""
    return with_retries(partial(_call_once, path, action))


def _call_once(path: RemotePath, action: Callable[[Any, str], _T]) -> _T:
    fs, key = _connect(path)
    with as_os_errors(path.protocol):
        return action(fs, key)


def _connect(path: RemotePath) -> tuple[Any, str]:
    """The file system of a remote path, and the path's key in it.

    Raises SettingsError where the package for it is not installed, with the command that does.
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
            f"{url}: {error}; known are s3, gs, az, sftp and what else fsspec knows"
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
