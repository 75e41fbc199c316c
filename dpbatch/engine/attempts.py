"""Which photo an engine begins next, and how often one whose process died is tried again.

Every engine draws its jobs here, so that the promises about failures hold in all of them: an error
that a step foresaw is final; a photo whose process died, or that took too long, is a suspect. It
waits until all others have ended and then runs alone, so that it cannot take a neighbour with it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from dpbatch.engine.stages import ignore
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import Limits, Outcome, Seconds, outcome_of

_NOT_MEASURED = Seconds()


class Attempts:
    """Draws the jobs of a run one by one, the suspects last."""

    def __init__(
        self,
        jobs: Iterable[Any],
        limits: Limits,
        on_retry: Callable[[Any, str], None] = ignore,
    ) -> None:
        """on_retry: told (job, reason) of every crash that is not the job's last."""
        self._jobs = iter(jobs)
        self._limits = limits
        self._on_retry = on_retry
        self._suspects: deque[Any] = deque()
        self._interrupted: deque[Any] = deque()
        self._tries: Counter[str] = Counter()
        self._crashes_in_a_row = 0
        self._jobs_left = True

    def next(self, in_flight: int) -> Any:
        """The job to begin now, or None: none is left, or the suspects wait for those in flight."""
        if self._interrupted:
            return self._interrupted.popleft()
        if self._jobs_left:
            for job in self._jobs:
                return job
            self._jobs_left = False
        if self._suspects and in_flight == 0:
            return self._suspects.popleft()
        return None

    @property
    def left(self) -> bool:
        """Whether `next` may still give a job, once nothing is in flight."""
        return self._jobs_left or bool(self._suspects) or bool(self._interrupted)

    def finished(self) -> None:
        """A photo ended without a crash: the machine works."""
        self._crashes_in_a_row = 0

    def crashed(
        self, job: Any, stage: str, error: WorkerCrashError, seconds: Seconds = _NOT_MEASURED
    ) -> Outcome | None:
        """A process died over this job, or was stopped: its outcome, or None where it runs again.

        Raises AbortError after `crashes_in_a_row`.
        """
        self._tries[job.id] += 1
        tries = self._tries[job.id]
        if tries == 1:
            self._crashes_in_a_row += 1
            if self._crashes_in_a_row >= self._limits.crashes_in_a_row:
                raise AbortError(
                    f"{self._crashes_in_a_row} photos in a row ended their processes, the last "
                    f"with: {error}; the fault is more likely this machine's than theirs (if it is "
                    "theirs, leave them out with --exclude)"
                )
        if tries < self._limits.tries:
            self._suspects.append(job)
            self._on_retry(job, str(error))
            return None
        alone = f" (tried {tries} times, at last alone)" if tries > 1 else ""
        return outcome_of(WorkerCrashError(f"{error}{alone}"), stage, seconds)

    def interrupted(self, job: Any) -> None:
        """Something else took the job's process away: it is no suspect, and runs again at once."""
        self._interrupted.append(job)
