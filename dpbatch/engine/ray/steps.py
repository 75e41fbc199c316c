"""What runs on a cluster's nodes: the steps as Ray tasks and an actor. Ray is told so in `ray.py`.

Each step first says where it runs, so that the driver knows what it lost when a node leaves and can
time the step from its real start; then it gives its result, which stays in the object store of its
node; then its verdict, which is small and goes to the driver.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dpbatch.engine.stages import ignore
from dpbatch.errors import PhotoError
from dpbatch.types import Saved, Stages


@dataclass(frozen=True)
class Begun:
    """A step has begun. node: Ray's id of the node."""

    node: str
    pid: int


@dataclass(frozen=True)
class Verdict:
    """How a step ended. result_bytes: what its result takes in the object store.

    error: what the step foresaw; the result is None then. saved: of the last step.
    """

    seconds: float
    result_bytes: int = 0
    error: PhotoError | None = None
    saved: Saved | None = None


def load(stages: Stages, job: Any) -> Iterator[Any]:
    """The first step as a generator: Begun, the loaded photo, Verdict."""
    yield _begun()
    result, verdict = _tried(lambda: stages.load(job))
    yield result
    yield verdict


def save(stages: Stages, job: Any, restored: Any) -> Iterator[Any]:
    """The last step as a generator: Begun, None, Verdict."""
    yield _begun()
    saved, verdict = _tried(lambda: stages.save(job, restored), measure=False)
    yield None
    yield Verdict(verdict.seconds, error=verdict.error, saved=saved)


class Restorer:
    """The actor that holds the network, and restores one photo at a time."""

    def __init__(self) -> None:
        """Nothing that can fail, so that a failure is never mistaken for a death: see `build`."""
        self._restore: Callable[..., Any] | None = None

    def build(self, stages: Stages, threads: int) -> Begun:
        """Loads the network; raises whatever that raises. threads: for computing on the CPU."""
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch comes in; Ray sets it to 1
        self._restore = stages.restorer()
        return _begun()

    def fetch(self, loaded: Any) -> None:
        """Brings a loaded photo onto this node while another is being restored: as an argument."""

    def wait_for_ever(self) -> None:
        """Ends only by the actor's death, which its caller learns at once by that."""
        threading.Event().wait()

    def restore(self, loaded: Any) -> tuple[Any, Verdict]:
        """The second step: the restored photo, and Verdict."""
        restore = self._restore
        assert restore is not None
        return _tried(lambda: restore(loaded, ignore))


def _begun() -> Begun:
    import ray

    return Begun(ray.get_runtime_context().get_node_id(), os.getpid())


def _tried(step: Callable[[], Any], measure: bool = True) -> tuple[Any, Verdict]:
    """A step's result and verdict. What nobody foresaw goes on to the driver, through Ray."""
    start = time.perf_counter()
    try:
        result = step()
    except PhotoError as error:
        return None, Verdict(time.perf_counter() - start, error=error)
    seconds = time.perf_counter() - start
    return result, Verdict(seconds, _bytes(result) if measure else 0)


def _bytes(value: Any) -> int:
    """The size of an object when pickled, without a copy of the arrays in it."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(pickled) + sum(buffer.raw().nbytes for buffer in buffers)
