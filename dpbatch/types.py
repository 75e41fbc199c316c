"""What passes between the packages of dpbatch. A leaf: imports nothing of dpbatch but errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from dpbatch.errors import NotDualPixelError, PhotoError, SettingsError

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) of the photo being restored."""


@dataclass(frozen=True)
class Photo:
    """One input: a raw file, or the two files of a pair that somebody already split.

    paths: one file, or left and right.
    stem: the file's name without its suffix and, of a pair, without its side.
    folder: where it lies below the folder that was given, with /; "" for that folder itself.
    root: the name of the folder that was given.
    """

    kind: Literal["raw", "pair"]
    paths: tuple[Path, ...]
    stem: str
    folder: str = ""
    root: str = ""


@dataclass(frozen=True)
class Job:
    """A photo and the files that it becomes, the main one first.

    id: unique in a run and the same in the next one: the main output's path below the output
        folder, with /.
    name: the input, for people.
    """

    id: str
    name: str
    photo: Photo
    outputs: tuple[Path, ...]

    @property
    def target(self) -> Path:
        """The main output; the photo is complete once it is there, so it is written last."""
        return self.outputs[0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class FileStamp:
    """A file as it was at one moment. blake2b is of its content, "" where it was not read.

    etag: what an object store gives for the content, "" elsewhere.
    """

    path: str
    size: int
    mtime_ns: int
    blake2b: str = ""
    etag: str = ""

    def is_as(self, old: FileStamp) -> bool:
        """Whether nothing says that the file has been changed since."""
        if self.etag and old.etag:
            return (self.size, self.etag) == (old.size, old.etag)
        return (self.size, self.mtime_ns) == (old.size, old.mtime_ns)


class Status(StrEnum):
    """How an input ended. Every input ends in exactly one of these."""

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
    detail: the traceback of an unexpected error.
    """

    status: Status
    stage: str
    code: str = ""
    message: str = ""
    detail: str = ""
    saved: Saved | None = None
    seconds: Seconds = Seconds()


def outcome_of(error: PhotoError, stage: str, seconds: Seconds = Seconds()) -> Outcome:
    """A photo's error as its outcome: an ordinary raw is skipped, the rest has failed."""
    status = Status.SKIPPED if isinstance(error, NotDualPixelError) else Status.FAILED
    return Outcome(status, stage, error.code, str(error), seconds=seconds)


@dataclass(frozen=True)
class Limits:
    """Bounds that keep a run from hanging.

    tries: of a photo whose process dies. step_s: the time that one step of one photo may take,
    0 for no limit; the default leaves room for a large network and 45 megapixels on a slow CPU.
    crashes_in_a_row: so many different photos whose processes died without one that was finished
    between them end the run: the machine is at fault then, not the photos.
    """

    tries: int = 3
    step_s: float = 3600.0
    crashes_in_a_row: int = 20


@dataclass(frozen=True)
class ClusterOptions:
    """What a user says about Ray.

    address: of a running cluster, as `ray.init` takes it; "" takes RAY_ADDRESS, and without that
    starts a cluster of this machine alone.
    gpus_per_actor: GPUs for each copy of the network: a share of one, or whole ones.
    cpu_actors: so many copies without a GPU, in place of those on GPUs; 0 for GPUs.
    """

    address: str = ""
    gpus_per_actor: float = 1.0
    cpu_actors: int = 0

    def __post_init__(self) -> None:
        share = self.gpus_per_actor
        if share <= 0 or (share > 1 and share != int(share)):
            raise SettingsError(
                f"--gpus-per-actor {share:g}: expected a share of one GPU, such as 0.5, or a whole "
                "number of GPUs"
            )
        if self.cpu_actors < 0:
            raise SettingsError(f"--cpu-actors {self.cpu_actors}: expected a number of copies")


@dataclass(frozen=True)
class RunOptions:
    """What is worked on and how a run behaves; nothing here changes a pixel.

    max_errors: the run stops once so many photos have failed; 0 never stops.
    loaders: processes that read ahead.
    step_limit_s: a process that takes longer for a photo's step is stopped; 0 never stops one.
    wait_for_space_s: the longest pause on a full disk; 0 ends the run at once.
    cluster: where Ray is the engine; None for the local one.
    """

    inputs: tuple[Path, ...]
    out: Path
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pairs: bool = True
    overwrite: bool = False
    retry_failed: bool = False
    max_errors: int = 0
    loaders: int = 1
    step_limit_s: float = Limits.step_s
    wait_for_space_s: float = 600.0
    cluster: ClusterOptions | None = None
    dry_run: bool = False


class Stages(Protocol):
    """The three steps of a photo, as one object that can be pickled.

    Each step may run in a process of its own, so whatever passes between them is pickled too, and
    arrays may arrive read-only.
    A PhotoError ends this photo; any other exception ends the process as well, and the photo fails
    with it.
    """

    def load(self, job: Any) -> Any:
        """The first step, in one of several processes: read, split, develop."""

    def restorer(self) -> Callable[[Any, Progress], Any]:
        """Built once in the process that restores; an error here ends the run."""

    def save(self, job: Any, restored: Any) -> Saved:
        """The last step: encode and write. No file appears under its name before it is whole."""


class BatchStages(Stages, Protocol):
    """Stages over `Job`s that also say what they write."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows a photo's name in its outputs, the main one first; that is written last."""

    @property
    def fingerprint(self) -> str:
        """Equal for runs whose results need not be made again by the other."""


class Engine(Protocol):
    """Runs the stages over jobs (any picklable objects); a job is taken when it is needed."""

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[Any, Outcome]]:
        """Every job that was taken with its outcome, in the order in which they end.

        A run that was stopped ends without the outcomes of the jobs that it gave up.
        """
