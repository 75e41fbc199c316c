"""What an engine is given and what it gives back; the same for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from dpbatch.batch.journal import FileStamp
from dpbatch.errors import NotDualPixelError, PhotoError

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) of the photo being restored."""


class Status(StrEnum):
    """What became of an input. Every input ends in exactly one of these."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Seconds:
    """Wall time of a photo's steps; 0 for a step that was not reached."""

    load: float = 0.0
    restore: float = 0.0
    save: float = 0.0


@dataclass(frozen=True)
class Saved:
    """What a photo's last step wrote, and what its first step had read.

    stored: the outputs as they lie where this machine cannot look; () where it can.
    """

    inputs: tuple[FileStamp, ...]
    outputs: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
    stored: tuple[FileStamp, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How one input ended.

    stage: where it was decided: scan, load, restore, save; run where the run stopped before it.
    code: stable, for machines; message: for people, names the file and what to do.
    detail: the traceback of an error that nobody foresaw.
    """

    status: Status
    stage: str
    code: str = ""
    message: str = ""
    detail: str = ""
    saved: Saved | None = None
    seconds: Seconds = Seconds()


class Stages(Protocol):
    """The three steps of a photo, as one object that can be pickled.

    Each step may run in a process of its own, so whatever passes between them is pickled too, and
    arrays may arrive read-only.
    A PhotoError ends this photo; anything else that is raised ends the process as well, and the
    photo fails with it.
    """

    def load(self, job: Any) -> Any:
        """The first step, in one of several processes: read, split, develop."""

    def restorer(self) -> Callable[[Any, Progress], Any]:
        """Built once in the process that restores; an error here ends the run."""

    def save(self, job: Any, restored: Any) -> Saved:
        """The last step: encode and write. No file appears under its name before it is whole."""


class Engine(Protocol):
    """Runs the stages over jobs (any picklable objects); jobs are drawn one by one, when needed."""

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[Any, Outcome]]:
        """Every job that was drawn with its outcome, in the order in which they end.

        A run that was told to stop ends without the outcomes of the jobs that it gave up.
        """


Ended = tuple[Any, Outcome]


def never() -> bool:
    """Where nobody asks an engine to stop."""
    return False


def ignore(*_: object) -> None:
    """Where nobody listens to an engine."""


def outcome_of(error: PhotoError, stage: str, seconds: Seconds = Seconds()) -> Outcome:
    """A photo's error as its outcome: an ordinary raw is skipped, the rest has failed."""
    status = Status.SKIPPED if isinstance(error, NotDualPixelError) else Status.FAILED
    return Outcome(status, stage, error.code, str(error), seconds=seconds)
