"""The order in which an engine takes its jobs, and how often a job is tried after a crash.

Every engine takes its jobs from here, so that all of them keep the same promises. A PhotoError is
final. A job whose process died, or that exceeded the time limit, is a suspect: it waits until all
other jobs have finished and then runs alone, so that it cannot take another job down with it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Generic

from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import JobT, Limits, Outcome, Seconds, outcome_of

_NOT_MEASURED = Seconds()


def never() -> bool:
    """Return False: the default of an engine's `should_stop`."""
    return False


def ignore(*_: object) -> None:
    """Do nothing: the default of an engine's callbacks."""


def overdue_reason(limit_s: float) -> str:
    """Return the reason of a crash where a process was killed at the time limit."""
    return f"stopped, not done within {limit_s / 60:.3g} minutes, the time limit (--time-limit)"


class Attempts(Generic[JobT]):
    """Hands out the jobs of a run one by one, the suspects last."""

    def __init__(
        self,
        jobs: Iterable[JobT],
        limits: Limits,
        on_retry: Callable[[JobT, str], None] = ignore,
    ) -> None:
        """on_retry: called with (job, reason) after each crash that is followed by another try."""
        self._jobs = iter(jobs)
        self._limits = limits
        self._on_retry = on_retry
        self._suspects: deque[JobT] = deque()
        self._interrupted: deque[JobT] = deque()
        self._tries: Counter[str] = Counter()
        self._crashes_in_a_row = 0
        self._jobs_left = True

    def next(self, in_flight: int) -> JobT | None:
        """Return the job to start now; None while suspects wait, or when none is left.

        in_flight: number of jobs that were handed out and have not finished.
        """
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
        """Whether `next` may still return a job once nothing is in flight."""
        return self._jobs_left or bool(self._suspects) or bool(self._interrupted)

    def finished(self) -> None:
        """Record that a job finished without a crash, so the machine works."""
        self._crashes_in_a_row = 0

    def crashed(
        self,
        job: JobT,
        stage: str,
        error: WorkerCrashError,
        seconds: Seconds = _NOT_MEASURED,
        *,
        has_died: bool = True,
    ) -> Outcome | None:
        """Record a crash. Returns the job's outcome, or None where it will be tried again.

        has_died: whether the process died or was killed; False where it raised an unexpected
            exception, which says nothing about the machine.

        Raises AbortError after the processes of `crashes_in_a_row` different jobs have died.
        """
        self._tries[job.id] += 1
        tries = self._tries[job.id]
        if tries == 1 and has_died:
            self._crashes_in_a_row += 1
            if self._crashes_in_a_row >= self._limits.crashes_in_a_row:
                raise AbortError(
                    f"the processes of {self._crashes_in_a_row} photos in a row died, the last "
                    f"with: {error}; this machine is a more likely cause than the photos (if it "
                    "is the photos, leave them out with --exclude)"
                )
        if tries < self._limits.tries:
            self._suspects.append(job)
            self._on_retry(job, str(error))
            return None
        alone = f" (tried {tries} times, the last time alone)" if tries > 1 else ""
        return outcome_of(WorkerCrashError(f"{error}{alone}"), stage, seconds)

    def interrupted(self, job: JobT) -> None:
        """Record that the job lost its process to another cause; it runs again at once."""
        self._interrupted.append(job)
