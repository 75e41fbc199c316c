"""What runs on the nodes of a cluster: the steps, as Ray tasks and as an actor.

A step first reports where it runs, so that the driver knows what is lost when a node leaves, and
can time the step from its actual start. Then it returns its result, which stays in the object
store of its node, and a Verdict, which is small and goes to the driver.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from dpbatch.engine.attempts import ignore
from dpbatch.engine.ray.ahead import NextPhoto
from dpbatch.errors import PhotoError
from dpbatch.types import JobT, LoadedT, Progress, RestoredT, Saved, Stages


@dataclass(frozen=True)
class Started:
    """A step has started. node: Ray's id of the node."""

    node: str
    pid: int


@dataclass(frozen=True)
class Verdict:
    """How a step finished.

    result_bytes: size of its result in the object store.
    error: the step's PhotoError; its result is None then.
    saved: what the last step returned.
    """

    seconds: float
    result_bytes: int = 0
    error: PhotoError | None = None
    saved: Saved | None = None


def load(
    stages: Stages[JobT, LoadedT, RestoredT], job: JobT
) -> Iterator[Started | LoadedT | Verdict | None]:
    """Run the first step; yields Started, the loaded photo, Verdict."""
    yield _started()
    result, verdict = _run(lambda: stages.load(job))
    yield result
    yield verdict


def save(
    stages: Stages[JobT, LoadedT, RestoredT], job: JobT, restored: RestoredT
) -> Iterator[Started | Verdict | None]:
    """Run the last step; yields Started, None, Verdict."""
    yield _started()
    saved, verdict = _run(lambda: stages.save(job, restored), measure=False)
    yield None
    yield Verdict(verdict.seconds, error=verdict.error, saved=saved)


class Restorer(Generic[LoadedT, RestoredT]):
    """The actor that holds the network, restores one photo at a time and holds the next one."""

    def __init__(self) -> None:
        """Do nothing that can fail, so that no failure passes for a death; see `build`."""
        self._restore: Callable[[LoadedT, Progress], RestoredT] | None = None
        self._next: NextPhoto[LoadedT] = NextPhoto()

    def build(self, stages: Stages[JobT, LoadedT, RestoredT], threads: int) -> Started:
        """Load the network; raises what that raises. threads: for computing on the CPU."""
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported; Ray sets it to 1
        self._restore = stages.restorer()
        return _started()

    def fetch(self, key: int, loaded: LoadedT) -> None:
        """Hold a loaded photo; passing it brings it onto this node ahead of time. key: its number.

        It runs beside `restore`. A photo that does not arrive is restored without it.
        """
        self._next.hold(key, loaded)

    def wait_forever(self) -> None:
        """Block; the call fails when the actor dies, so the caller notices at once."""
        threading.Event().wait()

    def restore(self, key: int, loaded: LoadedT) -> tuple[RestoredT | None, Verdict]:
        """Run the second step."""
        restore = self._restore
        assert restore is not None
        own = self._next.take(key, loaded)
        return _run(lambda: restore(own, ignore))


def _started() -> Started:
    import ray

    return Started(ray.get_runtime_context().get_node_id(), os.getpid())


def _run(step: Callable[[], RestoredT], measure: bool = True) -> tuple[RestoredT | None, Verdict]:
    """Return a step's result and verdict. Unexpected exceptions reach the driver through Ray."""
    start = time.perf_counter()
    try:
        result = step()
    except PhotoError as error:
        return None, Verdict(time.perf_counter() - start, error=error)
    seconds = time.perf_counter() - start
    return result, Verdict(seconds, _pickled_bytes(result) if measure else 0)


def _pickled_bytes(value: object) -> int:
    """The size of an object when pickled, found without copying its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(pickled) + sum(buffer.raw().nbytes for buffer in buffers)
