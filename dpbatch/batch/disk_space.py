"""Pause a run on a full disk until there is room again, for a limited time."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dpbatch.errors import DiskFullError, OutputError
from dpbatch.output.atomic import atomic_file

_CHECK_S = 5.0
_POLL_S = 0.2
_BLOCK_BYTES = 8 << 20


@dataclass
class Space:
    """Waits for free disk space on behalf of all photos of a run.

    wait_s: the longest total wait between two finished photos; 0 never waits.
    is_stopped: called several times a second; True ends a wait.
    report: called with (message, whether the run is paused now) at the start and the end of a wait.
    """

    wait_s: float
    is_stopped: Callable[[], bool]
    report: Callable[[str, bool], None]
    _waited_s: float = 0.0
    _is_waiting: bool = False
    _fulls: Counter[str] = field(default_factory=Counter)

    def finished(self) -> None:
        """Record that a photo was written; the total wait starts again from 0."""
        self._waited_s = 0.0

    def wait(self, name: str, folder: Path, need_bytes: int) -> bool:
        """Wait until need_bytes can be written in `folder`; returns whether they can.

        name: what did not fit. If the same name did not fit before, its need was underestimated
        and is doubled each time.
        Returns False once the time is over or the run must stop.
        """
        if self._is_waiting or self.wait_s <= 0 or self.is_stopped():
            return False
        need_bytes <<= min(self._fulls[name], 20)
        self._fulls[name] += 1
        if self._fulls[name] == 1 and has_room(folder, need_bytes):
            return True
        self._is_waiting = True
        try:
            self.report(
                f"paused: no space left for {name}: {_size(free_bytes(folder))} free in {folder}, "
                f"about {_size(need_bytes)} needed. The run goes on by itself once there is room "
                f"(within {self.wait_s / 60:.3g} minutes); Ctrl-C stops it",
                True,
            )
            return self._wait(folder, need_bytes)
        finally:
            self._is_waiting = False

    def _wait(self, folder: Path, need_bytes: int) -> bool:
        while self._waited_s < self.wait_s:
            start = time.monotonic()
            while time.monotonic() - start < min(_CHECK_S, self.wait_s):
                if self.is_stopped():
                    return False
                time.sleep(_POLL_S)
            self._waited_s += time.monotonic() - start
            if has_room(folder, need_bytes):
                self.report("there is room again; the run goes on", False)
                return True
        return False


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`, which may not exist yet; ignores quotas."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def has_room(folder: Path, need_bytes: int) -> bool:
    """Whether need_bytes can be written in `folder`; tries it, since a quota shows no other way."""
    if free_bytes(folder) < need_bytes:
        return False
    block = os.urandom(_BLOCK_BYTES)  # random: zeros might be stored as a hole
    try:
        with contextlib.suppress(_Fits), atomic_file(folder / "room") as temporary:
            with temporary.open("wb") as stream:
                for start in range(0, need_bytes, _BLOCK_BYTES):
                    stream.write(block[: need_bytes - start])
                stream.flush()
                os.fsync(stream.fileno())
            raise _Fits  # atomic_file removes the file
    except OutputError as error:
        return not isinstance(error, DiskFullError)  # writing the photo will report other errors
    return True


class _Fits(Exception):  # noqa: N818  (leaves the block, not an error)
    pass


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
