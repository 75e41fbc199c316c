"""Keep rendered scenes on disk, shared by worker processes that render ahead of the training.

The scenes of a step's pool depend on the step alone, and a scene on its number, so files only save
time: a missing one is rendered again, to the same bits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.files import UNFINISHED, whole_file
from training.simulator.scenes import StoredScene

THREAD_NAME = "scene renderer"
_POLL_EVERY_S = 0.02
# A killed process leaves an unfinished file behind; one as old as this belongs to none that runs.
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class PoolSettings:
    """Which scenes crops are cut from: the newest `size` of `start` and one more every `every`
    steps."""

    start: int = 128
    size: int = 1000
    every: int = 4

    def at(self, step: int) -> range:
        """Return the numbers of the scenes in the pool at a step."""
        stop = self.start + step // self.every
        return range(max(0, stop - self.size), stop)


@dataclass(frozen=True)
class SceneCache:
    """The files of scenes in one folder. render: makes the scene of a number."""

    folder: Path
    render: Callable[[int], StoredScene]

    def has(self, number: int) -> bool:
        """Return whether the scene's file exists."""
        return self._path(number).exists()

    def read(self, number: int) -> StoredScene | None:
        """Read a scene, memory-mapped; None if there is no whole file of it."""
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
        """Render a scene into its file, which appears whole or not at all."""
        scene = self.render(number)
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._path(number)) as unfinished, unfinished.open("wb") as file:
            np.save(file, scene)

    def remove(self, number: int) -> None:
        """Delete a scene's file, if there is one."""
        self._path(number).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete old unfinished files of killed processes."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:  # finished, or deleted by another process, just now
                continue

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npy"


class ScenePool:
    """One worker's view of the pool.

    Every worker renders the scenes whose number is its own modulo the workers, in a daemon thread
    that runs ahead of the step by a bounded number of scenes, so that crops seldom wait for one.
    """

    def __init__(
        self,
        cache: SceneCache,
        pool: PoolSettings,
        worker: int = 0,
        workers: int = 1,
        alone: bool = False,
        patience_s: float = 60.0,
    ) -> None:
        """Open the pool for one worker of `workers`.

        alone: no thread, a scene is rendered when it is read. patience_s: how long `scene` waits
        for a scene of another worker before it renders it itself.
        """
        self._cache, self._pool = cache, pool
        self._worker, self._workers, self._alone = worker, workers, alone
        self._patience_s = patience_s
        # Workers are a few steps apart, and one that is ahead needs what another renders.
        self._ahead = 32 + 2 * workers
        self._changed = threading.Condition()
        self._until = 0
        self._rendered = 0
        self._removed = 0
        self._thread: threading.Thread | None = None

    def advance(self, step: int) -> range:
        """Return the pool at a step, which must not decrease.

        Scenes of later steps are rendered in the thread; those that left the pool are deleted.
        """
        numbers = self._pool.at(step)
        if not self._alone:
            with self._changed:
                self._until = numbers.stop + self._ahead
                self._changed.notify()
            if self._thread is None:
                self._cache.tidy()
                self._rendered = numbers.start
                self._thread = threading.Thread(
                    target=self._render_ahead, name=THREAD_NAME, daemon=True
                )
                self._thread.start()
        last = max(0, numbers.start - self._ahead)
        for number in range(self._removed, last):
            if self._owns(number):
                self._cache.remove(number)
        self._removed = last
        return numbers

    def scene(self, number: int) -> StoredScene:
        """Return a scene of the pool of the last `advance`; wait for the worker that renders it."""
        give_up = time.monotonic() + self._patience_s
        while (scene := self._cache.read(number)) is None:
            if self._is_expected(number) and time.monotonic() < give_up:
                time.sleep(_POLL_EVERY_S)
            else:
                self._cache.write(number)
        return scene

    def _is_expected(self, number: int) -> bool:
        """Return whether the thread or another worker will render the scene, as far as is known."""
        if self._thread is None:
            return False
        if not self._owns(number):
            return True
        # A thread that failed has died; what it failed at is then tried, and fails, here.
        return number >= self._rendered and self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """Whether the thread has rendered all that it may, or has failed."""
        if self._thread is None or not self._thread.is_alive():
            return True
        return self._rendered == self._until

    def _owns(self, number: int) -> bool:
        return number % self._workers == self._worker

    def _render_ahead(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rendered < self._until)
            if self._owns(self._rendered) and not self._cache.has(self._rendered):
                self._cache.write(self._rendered)
            self._rendered += 1
