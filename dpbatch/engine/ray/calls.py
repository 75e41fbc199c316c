"""A step that runs somewhere in the cluster, seen from the driver."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from dpbatch.engine.ray.steps import Started, Verdict


class TaskCall:
    """A load or save task: it reports Started, returns its result, and reports its Verdict."""

    def __init__(self, steps: Any) -> None:
        """steps: the generator of references that Ray returns for the task."""
        self.pending = steps
        """Becomes ready for `ray.wait` once `poll` has something to return."""
        self.result: Any = None
        """Reference of the result, which stays on its node."""
        self._polled = 0

    def poll(self) -> Started | Verdict | None:
        """Return the task's next report; None for the result.

        Raises RayError where the task has died.
        """
        ref = next(self.pending, None)
        self._polled += 1
        if self._polled == 2 and ref is not None:
            self.result = ref
            return None
        # A task that dies puts its error in the place of the next report.
        report = ray.get(ref if ref is not None else self.result)
        assert isinstance(report, Started | Verdict)
        return report

    def cancel(self) -> None:
        """Kill the task's process."""
        ray.cancel(self.pending, force=True)


class ActorCall:
    """A photo being restored. It has no Started: an actor gets one photo at a time."""

    def __init__(self, result: Any, verdict: Any) -> None:
        self.result, self.pending = result, verdict

    def poll(self) -> Verdict:
        """Return the verdict. Raises RayError where the actor died."""
        verdict = ray.get(self.pending)
        assert isinstance(verdict, Verdict)
        return verdict

    def cancel(self) -> None:
        """Do nothing: the actor is killed by its pool."""


def ready(pending: list[Any], timeout_s: float) -> list[Any]:
    """Return all that is ready, as soon as anything is; [] after the timeout."""
    first, others = ray.wait(pending, timeout=timeout_s, fetch_local=False)
    if first and others:
        more, _ = ray.wait(others, num_returns=len(others), timeout=0, fetch_local=False)
        first += more
    return first


def reason(error: RayError) -> str:
    """Describe a Ray error for people."""
    if isinstance(error, OutOfMemoryError):
        return "stopped by Ray, its node ran out of memory"
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if isinstance(error, RayActorError):
        return "its actor was killed, or crashed in native code"
    return "killed, or crashed in native code"
