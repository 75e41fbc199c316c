"""Whether a machine reaches the remote files of a run: the package, the address, credentials."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

from dpbatch.errors import SettingsError
from dpbatch.storage import store
from dpbatch.storage.stages import uploads_folder
from dpbatch.storage.urls import location, url_of


def problem_here(inputs: Iterable[Path], out: Path) -> str:
    """What keeps this machine from finding the inputs, files or folders, or from writing below
    `out`, naming the URL; "" where nothing does. Paths of this machine are passed over."""
    path = out
    try:
        for path in inputs:
            if url_of(path) is not None:
                store.require(path)
        if url_of(out) is not None:
            path = uploads_folder(out) / f"probe-{secrets.token_hex(8)}"
            store.write(path, b"")
            store.remove(path)
    except SettingsError as error:
        return str(error)
    except OSError as error:
        act = "write" if path.is_relative_to(out) else "read"
        return f"cannot {act} {location(path)}: {store.reason(error)}"
    return ""
