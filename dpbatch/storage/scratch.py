"""Temporary folders on the disk of the machine where a step runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from dpbatch.output.atomic import host_id

_NAME = re.compile(r"^dpbatch-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give an empty folder in the system's temporary folder (TMPDIR), removed at the end."""
    remove_stale_scratch()
    folder = Path(tempfile.mkdtemp(prefix=f"dpbatch-{host_id()}-{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_scratch() -> None:
    """Remove the folders of processes of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob("dpbatch-*"):
        match = _NAME.match(folder.name)
        if match and match["host"] == host_id() and not psutil.pid_exists(int(match["pid"])):
            shutil.rmtree(folder, ignore_errors=True)
