"""Rendered scenes on disk, shared by worker processes that render them ahead of the training.

Which scenes a step draws from is a function of the step alone, and a scene one of its number, so
files only save time: a missing one is rendered again, to the same bits.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.simulator.scenes import StoredScene

# How long a worker waits for a scene that another one is to render, before it does so itself.
PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.02
# A killed process leaves an unfinished file behind; one as old as this is nobody's any more.
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class PoolSettings:
    """Which scenes crops are cut from: the newest `size` of `start` and one more every `every`
    steps."""

    start: int = 128
    size: int = 1000
    every: int = 4

    def at(self, step: int) -> range:
        """The numbers of the scenes in the pool at a step."""
        stop = self.start + step // self.every
        return range(max(0, stop - self.size), stop)


@dataclass(frozen=True)
class SceneCache:
    """The files of scenes in one folder. render: the scene of a number."""

    folder: Path
    render: Callable[[int], StoredScene]

    def has(self, number: int) -> bool:
        """Whether the scene is there."""
        return self._path(number).exists()

    def read(self, number: int) -> StoredScene | None:
        """The scene, if it is there and whole."""
        path = self._path(number)
        try:
            scene: StoredScene = np.load(path, mmap_mode="r")
        except FileNotFoundError:
            return None
        except (ValueError, EOFError):  # cut short, as when the machine lost its power
            path.unlink(missing_ok=True)
            return None
        return scene

    def write(self, number: int) -> None:
        """Renders the scene into its file, which is there as a whole or not at all."""
        scene = self.render(number)
        unfinished = self.folder / f"{number}.{os.getpid()}-{threading.get_ident()}.tmp"
        self.folder.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            np.save(file, scene)
        unfinished.replace(self._path(number))

    def remove(self, number: int) -> None:
        """Deletes the scene's file, if there is one."""
        self._path(number).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Deletes what killed processes left unfinished."""
        for path in self.folder.glob("*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:  # finished, or deleted by another process, just now
                continue

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npy"


class ScenePool:
    """One worker's view of the pool.

    Every worker renders the scenes whose number is its own modulo the workers, in a thread that
    runs ahead of the step by a bounded number of scenes, so that crops seldom wait for one. The
    thread ends with its process. `alone`: no thread, a scene is rendered when it is asked for.
    """

    def __init__(
        self,
        cache: SceneCache,
        pool: PoolSettings,
        worker: int = 0,
        workers: int = 1,
        alone: bool = False,
    ) -> None:
        self._cache, self._pool = cache, pool
        self._worker, self._workers, self._alone = worker, workers, alone
        # Workers are a few steps apart, and one that is ahead needs what another renders.
        self._ahead = 32 + 2 * workers
        self._changed = threading.Condition()
        self._until = 0
        self._rendered = 0
        self._removed = 0
        self._thread: threading.Thread | None = None

    def advance(self, step: int) -> range:
        """The pool at a step, which must not fall; has scenes rendered for later steps, and those
        that left the pool deleted."""
        numbers = self._pool.at(step)
        if not self._alone:
            with self._changed:
                self._until = numbers.stop + self._ahead
                self._changed.notify()
            if self._thread is None:
                self._cache.tidy()
                self._rendered = numbers.start
                self._thread = threading.Thread(target=self._render_ahead, daemon=True)
                self._thread.start()
        last = max(0, numbers.start - self._ahead)
        for number in range(self._removed, last):
            if self._owns(number):
                self._cache.remove(number)
        self._removed = last
        return numbers

    def scene(self, number: int) -> StoredScene:
        """A scene of the pool, at a step that `advance` was told; waits for whoever renders it."""
        give_up = time.monotonic() + PATIENCE_S
        while (scene := self._cache.read(number)) is None:
            if self._comes(number) and time.monotonic() < give_up:
                time.sleep(_LOOK_EVERY_S)
            else:
                self._cache.write(number)
        return scene

    @property
    def is_idle(self) -> bool:
        """Whether the thread has rendered all that it may at this step."""
        return self._thread is not None and self._rendered >= self._until

    def _comes(self, number: int) -> bool:
        """Whether someone else is still to render the scene, as far as this worker knows."""
        if self._thread is None:
            return False
        if not self._owns(number):
            return True
        # A thread that failed has died; what it failed at is then tried, and fails, here.
        return number >= self._rendered and self._thread.is_alive()

    def _owns(self, number: int) -> bool:
        return number % self._workers == self._worker

    def _render_ahead(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rendered < self._until)
            if self._owns(self._rendered) and not self._cache.has(self._rendered):
                self._cache.write(self._rendered)
            self._rendered += 1
