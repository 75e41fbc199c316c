"""Whether a node of a cluster is fit for a run: the same dpbatch, weights and files as the driver.

The check runs on every node before the first photo. Without it a path that only one machine knows,
or a folder of the same name on a local disk, would fail thousands of photos one by one. Nothing
here imports Ray.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dpbatch import __version__
from dpbatch.errors import AbortError
from dpbatch.settings import Settings

_SHM = Path("/dev/shm")
_ENOUGH_SHM_BYTES = 2 << 30

Check = Callable[[], str]
"""Can be pickled; returns what is wrong on the machine where it runs, "" where nothing is."""
OpenCheck = Callable[[], AbstractContextManager[Check]]
"""Prepares a check on the driver; the check is valid while the context is open."""


@dataclass(frozen=True)
class _NodeCheck:
    """version, weights: the driver's, the hashes by network; a node must have the same."""

    version: str
    weights: tuple[tuple[str, str], ...]
    files: Check

    def __call__(self) -> str:
        if __version__ != self.version:
            return f"has dpbatch {__version__}, the driver {self.version}; install the same"
        return self.files() or self._weights_problem()

    def _weights_problem(self) -> str:
        for model, expected in self.weights:
            try:
                found = _weights_sha256(model)
            except AbortError as error:
                return str(error)
            if found != expected:
                return f"has other weights than the driver for {model}"
        return ""


@contextmanager
def node_check(models: Sequence[str], open_files_check: OpenCheck) -> Iterator[Check]:
    """Give the check of a node.

    models: the networks' names or weights files; "" for one that the run does not need.
    open_files_check: prepares the check of the run's inputs and its output folder.

    Raises AbortError where the driver itself is not fit.
    """
    with open_files_check() as files:
        weights = tuple((model, _weights_sha256(model)) for model in models)
        yield _NodeCheck(__version__, weights, files)


def _weights_sha256(model: str) -> str:
    if not model:
        return ""
    from ldp.errors import WeightsError
    from ldp.models.weights import resolve, sha256

    try:
        return sha256(resolve(model))
    except WeightsError as error:
        raise AbortError(f"cannot read the weights: {error}") from error
    except OSError as error:
        raise AbortError(f"cannot read the weights {model}: {error.strerror}") from error


def with_absolute_weights(settings: Settings) -> Settings:
    """Name weights files by absolute paths: nodes run in working folders of their own."""
    from ldp.models.weights import shipped_names

    restore = settings.restore
    if restore.model not in shipped_names():
        restore = replace(restore, model=os.path.abspath(restore.model))  # noqa: PTH100
    if restore.single_weights and restore.single_weights not in shipped_names():
        restore = replace(restore, single_weights=os.path.abspath(restore.single_weights))  # noqa: PTH100
    if Path(restore.clip_weights).is_file():
        restore = replace(restore, clip_weights=os.path.abspath(restore.clip_weights))  # noqa: PTH100
    return replace(settings, restore=restore)


def small_shared_memory() -> str:
    """Return a warning where /dev/shm is too small for photos, "" elsewhere."""
    try:
        status = os.statvfs(_SHM)
    except (OSError, AttributeError):
        return ""
    size = status.f_frsize * status.f_blocks
    if size >= _ENOUGH_SHM_BYTES:
        return ""
    return (
        f"/dev/shm holds only {size / 2**30:.2f} GiB, so photos pass over the disk; "
        "give a container more with --shm-size"
    )
