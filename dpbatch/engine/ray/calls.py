"""A step that runs somewhere in the cluster, seen from the driver."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from dpbatch.engine.ray.steps import Begun, Verdict


class TaskCall:
    """A load or save task, which says Begun, gives its result, and says its Verdict."""

    def __init__(self, steps: Any) -> None:
        """steps: the generator of references that Ray gives for the task."""
        self.waits_for = steps
        """Ready for `ray.wait` once there is something to hear."""
        self.result: Any = None
        """Reference of the result, which stays where it is."""
        self._heard = 0

    def hear(self) -> Begun | Verdict | None:
        """What the task says next; None for the result. Raises RayError where it says no more."""
        ref = next(self.waits_for, None)
        self._heard += 1
        if self._heard == 2 and ref is not None:
            self.result = ref
            return None
        # A task that dies leaves its error in the place of what it would have given next.
        said = ray.get(ref if ref is not None else self.result)
        assert isinstance(said, Begun | Verdict)
        return said

    def cancel(self) -> None:
        """Ends it at once, its process included."""
        ray.cancel(self.waits_for, force=True)


class ActorCall:
    """A photo being restored. It has no Begun: an actor is given one photo at a time."""

    def __init__(self, result: Any, verdict: Any) -> None:
        self.result, self.waits_for = result, verdict

    def hear(self) -> Verdict:
        """The verdict. Raises RayError where the actor died."""
        verdict = ray.get(self.waits_for)
        assert isinstance(verdict, Verdict)
        return verdict

    def cancel(self) -> None:
        """Nothing: who holds the actor ends it."""


def ready(waiting: list[Any], timeout_s: float) -> list[Any]:
    """All of what is ready, once something is or the time is over."""
    first, others = ray.wait(waiting, timeout=timeout_s, fetch_local=False)
    if first and others:
        more, _ = ray.wait(others, num_returns=len(others), timeout=0, fetch_local=False)
        first += more
    return first


def why(error: RayError) -> str:
    """A Ray error in words for people."""
    if isinstance(error, OutOfMemoryError):
        return "stopped by Ray, its node ran out of memory"
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if isinstance(error, RayActorError):
        return "its actor was killed, or crashed in native code"
    return "killed, or crashed in native code"
