"""A full disk pauses a run until there is room again, for a while."""

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
    """Waits for room, for all photos of a run together.

    wait_s: the longest wait without a photo finished meanwhile; 0 never waits.
    is_stopped: asked several times a second; true ends a wait.
    tell: told what happens, for people: (text, whether the run now stands still).
    """

    wait_s: float
    is_stopped: Callable[[], bool]
    tell: Callable[[str, bool], None]
    _waited_s: float = 0.0
    _is_waiting: bool = False
    _fulls: Counter[str] = field(default_factory=Counter)

    def finished(self) -> None:
        """A photo was written: what is waited for from now on is counted anew."""
        self._waited_s = 0.0

    def wait(self, name: str, folder: Path, need_bytes: int) -> bool:
        """The disk of `folder` was too full for `name`: whether there is room for it now.

        Returns once need_bytes can be written there, or false when the time is over or the run is
        to stop. A name that comes again needed more than it said: each time twice as much.
        """
        if self._is_waiting or self.wait_s <= 0 or self.is_stopped():
            return False
        need_bytes <<= min(self._fulls[name], 20)
        self._fulls[name] += 1
        if self._fulls[name] == 1 and has_room(folder, need_bytes):
            return True
        self._is_waiting = True
        try:
            self.tell(
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
                self.tell("there is room again; the run goes on", False)
                return True
        return False


def free_bytes(folder: Path) -> int:
    """What is free where `folder` is, or will be; a quota may leave less."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def has_room(folder: Path, need_bytes: int) -> bool:
    """Whether so much can be written in `folder`: by trying it, since quotas show no other way."""
    if free_bytes(folder) < need_bytes:
        return False
    block = os.urandom(_BLOCK_BYTES)  # nothing that a file system could store as a hole
    try:
        with contextlib.suppress(_Fits), atomic_file(folder / "room") as temporary:
            with temporary.open("wb") as stream:
                for start in range(0, need_bytes, _BLOCK_BYTES):
                    stream.write(block[: need_bytes - start])
                stream.flush()
                os.fsync(stream.fileno())
            raise _Fits  # and the file goes away again
    except OutputError as error:
        return not isinstance(error, DiskFullError)  # any other trouble, writing itself will tell
    return True


class _Fits(Exception):  # noqa: N818  (the way out of the block, not an error)
    pass


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
