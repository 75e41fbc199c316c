"""URLs as paths: s3://bucket/shoot/IMG_1.CR2 is held as the path /s3:/bucket/shoot/IMG_1.CR2.

Such a path never exists on a disk. It has a name, a suffix, parents and what lies below them as any
path has, so that pairing, naming and resuming need not know where a file is; it can be pickled and
means the same on every machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from dpbatch.errors import SettingsError

# One letter is a Windows drive.
_URL = re.compile(r"^(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)$", re.DOTALL)
_PROTOCOL = re.compile(r"^[a-z][a-z0-9+.-]+:$")


def place(given: str) -> Path:
    """The path of a file or folder as somebody typed it, a URL or not; file:// is a plain path.

    Raises SettingsError for a URL without a bucket or host.
    """
    match = _URL.match(given)
    if match is None:
        return Path(given)
    protocol, rest = match["protocol"].lower(), match["rest"]
    if protocol == "file":
        return Path(rest)
    if rest.startswith("/") or not rest:
        raise SettingsError(
            f"{given}: expected {protocol}://BUCKET/FOLDER (or HOST in place of BUCKET)"
        )
    return Path("/", f"{protocol}:", rest)


def url_of(path: Path) -> str | None:
    """The URL that `place` made this path of, None for a path of this machine."""
    parts = path.parts
    if len(parts) < 3 or parts[0] != path.anchor or not _PROTOCOL.match(parts[1]):
        return None
    return f"{parts[1]}//" + "/".join(parts[2:])


def location(path: Path) -> str:
    """A path as people and records name it: the URL of a remote one."""
    return url_of(path) or str(path)


def shown(path: Path) -> str:
    """A path for people: relative where it is below the working folder, a remote one's URL."""
    here = Path.cwd()
    return url_of(path) or str(path.relative_to(here) if path.is_relative_to(here) else path)
