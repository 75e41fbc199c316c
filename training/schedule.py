"""When a stage of training ends, and its learning rates: by its steps, or by the clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from training.processes import Processes
from training.settings import TrainSettings


@dataclass(frozen=True)
class TimeBudget:
    """The minutes that a training has, over all commands that resume it.

    All of a command's time counts: preparing data, compiling, validating and saving too.

    minutes: more than 0. started: the time.monotonic() of this command's start.
    """

    minutes: float
    started: float


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to the final rate."""
    if step < settings.warm_up_steps:
        return settings.learning_rate * (step + 1) / settings.warm_up_steps
    done = (step - settings.warm_up_steps) / max(1, settings.steps - settings.warm_up_steps)
    return _cosine(min(1.0, done), settings)


def timed_learning_rate(step: int, progress: float, settings: TrainSettings) -> float:
    """Return the rate of a step where the clock ends the training.

    progress: the share of the time that is over, in [0, 1]; the cosine ends with it. The warm-up
    is a factor of the first steps.
    """
    warm_up = min(1.0, (step + 1) / max(1, settings.warm_up_steps))
    return warm_up * _cosine(progress, settings)


def _cosine(done: float, settings: TrainSettings) -> float:
    span = settings.learning_rate - settings.final_learning_rate
    return settings.final_learning_rate + span * (1 + math.cos(math.pi * done)) / 2


class Schedule:
    """The position in a stage: its steps, or the share of a time budget.

    Several processes agree on the share when `update` is called, and use it until the next call.
    """

    def __init__(
        self,
        settings: TrainSettings,
        processes: Processes,
        budget: TimeBudget | None = None,
        spent_s: float = 0.0,
    ) -> None:
        """Begin or resume a stage; spent_s: the seconds of the commands before this one."""
        self._settings, self._processes = settings, processes
        self._budget, self._spent_s = budget, spent_s
        self._reserve_s = 0.0
        self._progress = 0.0
        self.update()

    def update(self) -> None:
        """Look at the clock; all processes must call it at the same step."""
        if self._budget is None:
            return
        trained_s = self._budget.minutes * 60 - self._reserve_s
        share = self._elapsed_s() / trained_s if trained_s > 0 else 1.0
        self._progress = self._processes.largest(min(1.0, share))

    def reserve(self, seconds: float) -> None:
        """Keep time for the last validation and checkpoint: the longest that was seen so far."""
        self._reserve_s = max(self._reserve_s, seconds)

    def ended(self, step: int) -> bool:
        """Return whether the stage is over after so many steps."""
        if self._budget is None:
            return step >= self._settings.steps
        return self._progress >= 1

    def rate(self, step: int) -> float:
        """Return the learning rate of the step after so many."""
        if self._budget is None:
            return learning_rate(step, self._settings)
        return timed_learning_rate(step, self._progress, self._settings)

    def spent_s(self, step: int) -> float:
        """Return the seconds to save: all of the budget where it is used up; 0 without one."""
        if self._budget is None:
            return 0.0
        whole = self._budget.minutes * 60 if self.ended(step) else 0.0
        return max(whole, self._elapsed_s())

    def left_s(self, step: int, seconds_per_step: float) -> float:
        """Return the seconds that the rest of the stage will take."""
        if self._budget is None:
            return (self._settings.steps - step) * seconds_per_step
        return max(0.0, self._budget.minutes * 60 - self._reserve_s - self._elapsed_s())

    def position(self, step: int) -> str:
        """Return the position as text: step 5/100, or step 5, 42 %."""
        if self._budget is None:
            return f"step {step}/{self._settings.steps}"
        return f"step {step}, {self._progress:.0%} of {self._budget.minutes:g} minutes"

    def goal(self) -> str:
        """Return the end of the stage as text."""
        if self._budget is None:
            return f"to {self._settings.steps}"
        return f"for {self._budget.minutes:g} minutes"

    def _elapsed_s(self) -> float:
        assert self._budget is not None
        return self._spent_s + time.monotonic() - self._budget.started
