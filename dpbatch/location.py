"""Where a file is: a path of this machine, or a remote file that has a URL.

A leaf like `types`: nothing here accesses a disk or a store.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import TypeVar

from dpbatch.errors import SettingsError

# One letter is a Windows drive.
_URL = re.compile(r"^(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)$", re.DOTALL)


@total_ordering
@dataclass(frozen=True)
class RemotePath:
    """A remote file or folder: s3://bucket/shoot/IMG_1.CR2.

    It has a name, a suffix and parents as a Path has, and no method that accesses a disk, so that
    code for files of this machine does not accept it.

    protocol: lower case, such as "s3".
    key: what follows ://, the bucket or host first.
    """

    protocol: str
    key: PurePosixPath

    def __str__(self) -> str:
        return f"{self.protocol}://{self.key}"

    def __truediv__(self, below: str | PurePosixPath) -> RemotePath:
        return replace(self, key=self.key / below)

    def __lt__(self, other: object) -> bool:
        """Order by protocol and parts; remote paths come after those of this machine."""
        if isinstance(other, RemotePath):
            return (self.protocol, self.key) < (other.protocol, other.key)
        return False if isinstance(other, Path) else NotImplemented

    @property
    def name(self) -> str:
        """The last part, "IMG_1.CR2"."""
        return self.key.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self.key.stem

    @property
    def suffix(self) -> str:
        """The last suffix, ".CR2"."""
        return self.key.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """Its parts, the bucket or host first."""
        return self.key.parts

    @property
    def parent(self) -> RemotePath:
        """The folder that holds it; a bucket is its own parent."""
        return self if len(self.key.parts) == 1 else replace(self, key=self.key.parent)

    def with_name(self, name: str) -> RemotePath:
        """The same with another last part."""
        return replace(self, key=self.key.with_name(name))

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """The path below `folder`. Raises ValueError where it is not there."""
        if not self.is_relative_to(folder):
            raise ValueError(f"{self} is not below {folder}")
        return self.key.relative_to(folder.key)

    def is_relative_to(self, folder: RemotePath) -> bool:
        """Whether it is `folder` or lies below it."""
        return self.protocol == folder.protocol and self.key.is_relative_to(folder.key)


Location = Path | RemotePath

P = TypeVar("P", bound=Location)


def parse_location(text: str) -> Location:
    """Parse a path or URL as a user types it; file:// is a path of this machine.

    Raises SettingsError for a URL without a bucket or host, and for a relative path where the
    working folder was deleted.
    """
    match = _URL.match(text)
    if match is None:
        absolute(Path(text))
        return Path(text)
    protocol, rest = match["protocol"].lower(), match["rest"]
    if protocol == "file":
        return Path(rest)
    if rest.startswith("/") or not rest:
        raise SettingsError(
            f"{text}: expected {protocol}://BUCKET/FOLDER (or HOST in place of BUCKET)"
        )
    return RemotePath(protocol, PurePosixPath(rest))


def path_below(location: Location, folder: Location) -> str | None:
    """Return the path of `location` below `folder`, with /; None where it is not below it.

    "." for the folder itself.
    """
    try:
        if isinstance(location, Path) and isinstance(folder, Path):
            return location.relative_to(folder).as_posix()
        if isinstance(location, RemotePath) and isinstance(folder, RemotePath):
            return location.relative_to(folder).as_posix()
    except ValueError:
        pass
    return None


def short_name(location: Location) -> str:
    """Return the location for messages: relative to the working folder where it is below it."""
    if isinstance(location, RemotePath):
        return str(location)
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        return str(location)
    return str(location.relative_to(here) if location.is_relative_to(here) else location)


def absolute(path: Path) -> Path:
    """Return the absolute path. Symbolic links stay as they are, unlike with resolve().

    Raises SettingsError for a relative path where the working folder was deleted.
    """
    try:
        return Path(os.path.abspath(path))  # noqa: PTH100
    except OSError as error:
        raise SettingsError(
            f"{path}: the working folder does not exist any more; cd to one that does, or give "
            "absolute paths"
        ) from error
