"""Whether a machine reaches the remote files of a run: the package, the address, credentials."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from dpbatch.errors import SettingsError
from dpbatch.location import Location, RemotePath
from dpbatch.storage import store
from dpbatch.storage.stages import uploads_folder
from dpbatch.storage.store_errors import reason


def problem_here(inputs: Iterable[Location], out: Location) -> str:
    """Return what keeps this machine from the remote inputs and the remote output folder.

    The text names the URL; "" where nothing does. Paths of this machine are passed over.
    """
    try:
        for path in inputs:
            if isinstance(path, RemotePath):
                try:
                    store.require(path)
                except OSError as error:
                    return f"cannot read {path}: {reason(error)}"
        return _output_problem(out) if isinstance(out, RemotePath) else ""
    except SettingsError as error:
        return str(error)


def _output_problem(out: RemotePath) -> str:
    probe = uploads_folder(out) / f"probe-{secrets.token_hex(8)}"
    try:
        store.write(probe, b"")
        store.remove(probe)
    except OSError as error:
        return f"cannot write {probe}: {reason(error)}"
    return ""
