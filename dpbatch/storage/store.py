"""Reading, writing and listing remote files; the only file that imports fsspec.

Everything here takes paths of `urls.place`, tries again where the store or the network failed for a
moment, and raises OSError and its subclasses for whatever goes wrong: FileNotFoundError,
PermissionError, FileExistsError, or OSError itself with the store's own words.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dpbatch.errors import DISK_FULL, SettingsError
from dpbatch.storage.urls import location, url_of
from dpbatch.types import FileStamp

_T = TypeVar("_T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before each new try; what the store's own library retries comes on top."""

# They have no folders to make; asked for one, some would make the bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
# What a library raises beside OSError: (module, class). A name that it lacks is passed over.
_AMAZON = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
)
_GOOGLE = (
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("aiohttp", "ClientError"),
)
_AZURE = (("azure.core.exceptions", "AzureError"), ("aiohttp", "ClientError"))
_FOREIGN_ERRORS = {
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError)
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}
_MTIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


def stamp_of(path: Path) -> FileStamp:
    """A remote file as it is now. Raises FileNotFoundError where there is none."""

    def ask(fs: Any, key: str) -> Any:
        fs.invalidate_cache()
        return fs.info(key)

    info = _call(path, ask)
    if info["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "no such file", location(path))
    return _stamp(path, info)


def require(path: Path) -> None:
    """Raises FileNotFoundError where there is neither a remote file nor a folder of that name."""

    def ask(fs: Any, key: str) -> None:
        fs.invalidate_cache()
        fs.info(key)

    _call(path, ask)


def files_below(folder: Path, recursive: bool = True) -> dict[Path, FileStamp]:
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


def download(path: Path, target: Path) -> None:
    """A remote file's content into a local file."""
    _call(path, lambda fs, key: fs.get_file(key, str(target)))


def upload(source: Path, path: Path) -> None:
    """A local file's content into a remote file. For the time it takes, some kinds of store show
    half of it: use a temporary name and `move`."""

    def put(fs: Any, key: str) -> None:
        _make_parent(path, fs, key)
        fs.put_file(str(source), key)

    _call(path, put)


def move(path: Path, target: Path) -> None:
    """Gives a remote file another name, in one step, in the place of what had it; by a copy where
    the store cannot rename."""

    def rename(fs: Any, key: str) -> None:
        new = _connect(target)[1]
        _make_parent(target, fs, new)
        _rename(fs, key, new)

    _call(path, rename)
    with contextlib.suppress(OSError):  # it is done all the same
        remove(path)


def remove(path: Path) -> None:
    """Removes a remote file; nothing where there is none."""
    try:
        _call(path, lambda fs, key: fs.rm_file(key))
    except FileNotFoundError:
        return


def read(path: Path) -> bytes:
    """A small remote file's content."""
    return bytes(_call(path, lambda fs, key: fs.cat_file(key)))


def write(path: Path, content: bytes) -> None:
    """Makes or replaces a small remote file, in one step."""

    def put(fs: Any, key: str) -> None:
        if _protocol(path) in _OBJECT_STORES:
            fs.pipe_file(key, content)
            return
        _make_parent(path, fs, key)
        fs.pipe_file(f"{key}.{token}", content)
        _rename(fs, f"{key}.{token}", key)

    token = secrets.token_hex(4)
    _call(path, put)
    if _protocol(path) not in _OBJECT_STORES:
        with contextlib.suppress(OSError):
            remove(path.with_name(f"{path.name}.{token}"))


def create(path: Path, content: bytes) -> None:
    """Makes a small remote file. Raises FileExistsError where there is one.

    One step where the store can (S3's If-None-Match, Google's ifGenerationMatch), otherwise a look
    and a write; it is not tried again, because a try may succeed without saying so.
    """

    def put(fs: Any, key: str) -> None:
        _make_parent(path, fs, key)
        fs.pipe_file(key, content, mode="create")

    try:
        _call(path, put, pauses_s=())
    except OSError as error:
        if error.errno == errno.EBUSY:  # another is making it at this moment
            raise FileExistsError(errno.EEXIST, "exists", location(path)) from error
        if error.errno != errno.ENOSYS:
            raise
        try:
            stamp_of(path)
        except FileNotFoundError:
            write(path, content)
        else:
            raise FileExistsError(errno.EEXIST, "exists", location(path)) from error


def _rename(fs: Any, key: str, new: str) -> None:
    """Afterwards there may still be something under the old name."""
    from fsspec import AbstractFileSystem

    if type(fs).mv is not AbstractFileSystem.mv:
        fs.mv(key, new)
        return
    # It has no renaming of its own, and fsspec's would take a * in a name for a pattern.
    fs.cp_file(key, new)


def reason(error: OSError) -> str:
    """What an error says, without numbers and file names."""
    return error.strerror or str(error) or type(error).__name__


def _call(
    path: Path, action: Callable[[Any, str], _T], pauses_s: tuple[float, ...] | None = None
) -> _T:
    """action(file system, key), tried again; every error as OSError."""
    fs, key = _connect(path)
    foreign = _foreign_errors(_protocol(path))
    for pause_s in (*(PAUSES_S if pauses_s is None else pauses_s), None):
        try:
            return action(fs, key)
        except _FINAL:
            raise
        except OSError as error:
            if pause_s is None or error.errno in DISK_FULL:
                raise
        except foreign as error:
            if pause_s is None or type(error).__name__ in _NO_CREDENTIALS:
                raise OSError(str(error)) from error
        time.sleep(pause_s)
    raise AssertionError


def _connect(path: Path) -> tuple[Any, str]:
    """The file system of a remote path, and the path's key in it.

    Raises SettingsError where the package for it is not installed, with the command that does.
    """
    url = url_of(path)
    assert url is not None
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


def _protocol(path: Path) -> str:
    return path.parts[1].removesuffix(":")


def _make_parent(path: Path, fs: Any, key: str) -> None:
    if _protocol(path) not in _OBJECT_STORES:
        fs.makedirs(key.rpartition("/")[0], exist_ok=True)


@cache
def _foreign_errors(protocol: str) -> tuple[type[Exception], ...]:
    found = []
    for module, name in _FOREIGN_ERRORS.get(protocol, ()):
        try:
            found.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue
    return tuple(found)


def _stamp(path: Path, info: dict[str, Any]) -> FileStamp:
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    mtime = next((info[key] for key in _MTIME_KEYS if info.get(key)), 0)
    if isinstance(mtime, str):
        mtime = datetime.fromisoformat(mtime)
    seconds = mtime.timestamp() if isinstance(mtime, datetime) else float(mtime)
    return FileStamp(
        location(path), int(info.get("size") or 0), round(seconds * 1e6) * 1000, etag=etag
    )
