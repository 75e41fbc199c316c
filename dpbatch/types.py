"""What passes between the packages of dpbatch.

A leaf: imports nothing of dpbatch but errors and locations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

from typing_extensions import TypeVar

from dpbatch.errors import NotDualPixelError, PhotoError, SettingsError
from dpbatch.location import Location

P_co = TypeVar("P_co", bound=Location, default=Path, covariant=True)
"""Where a photo's files may be: `Photo` alone is one whose files are on this machine."""

Progress = Callable[[int, int], None]
"""Called with (parts done, parts in all) of the photo being restored."""


@dataclass(frozen=True)
class Photo(Generic[P_co]):
    """One input: a raw file, the two files of a pair that somebody already split, or a picture.

    kind: "raw" for a raw file that may have two frames, "ordinary" for a photo that is known to
        have one view: a raw with one frame, a TIFF, a PNG or a JPEG.
    paths: one file, or left and right.
    stem: the file's name without its suffix and, of a pair, without its side.
    folder: where it lies below the folder that was given, with /; "" for that folder itself.
    root: the name of the folder that was given; of several with one name, with a parent that
        differs, as in A/100CANON.
    """

    kind: Literal["raw", "pair", "ordinary"]
    paths: tuple[P_co, ...]
    stem: str
    folder: str = ""
    root: str = ""


@dataclass(frozen=True)
class Job(Generic[P_co]):
    """A photo and the files that it becomes, the main one first.

    id: unique in a run and the same in the next one: the main output's path below the output
        folder, with /.
    name: the input, for people.
    """

    id: str
    name: str
    photo: Photo[P_co]
    outputs: tuple[P_co, ...]

    @property
    def target(self) -> P_co:
        """The main output; the photo is complete once it is there, so it is written last."""
        return self.outputs[0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class FileStamp:
    """The state of a file at one moment.

    blake2b: hash of its content, "" where it was not read.
    etag: an object store's identifier of the content, "" elsewhere.
    """

    path: str
    size: int
    mtime_ns: int
    blake2b: str = ""
    etag: str = ""

    def is_as(self, old: FileStamp) -> bool:
        """Whether the file is unchanged since `old`, by its etag or else its modification time."""
        if self.etag and old.etag:
            return (self.size, self.etag) == (old.size, old.etag)
        return (self.size, self.mtime_ns) == (old.size, old.mtime_ns)


class Status(StrEnum):
    """The result of an input; every input has exactly one."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Seconds:
    """Wall time of a photo's steps in seconds; 0 for a step that was not reached."""

    load: float = 0.0
    restore: float = 0.0
    save: float = 0.0


@dataclass(frozen=True)
class Saved:
    """The files that a photo's last step wrote and that its first step had read.

    warnings: what is not right with the photo. They do not begin with its name, which whoever shows
        them puts before them.
    stored: stamps of outputs on object storage; () for outputs on this machine.
    checksums: hash of each output's content, made while it was written; () where unknown.
    network: the name of the network that restored the photo; "" where none did.
    fingerprint: of the result, where it is not that of the run; see `BatchStages`.
    rescued: what of the photo was restored, or drawn anew, in words; "" for everything.
    """

    inputs: tuple[FileStamp, ...]
    outputs: tuple[Location, ...]
    warnings: tuple[str, ...] = ()
    stored: tuple[FileStamp, ...] = ()
    checksums: tuple[str, ...] = ()
    network: str = ""
    fingerprint: str = ""
    rescued: str = ""


@dataclass(frozen=True)
class Cost:
    """What one photo costs, measured on this machine.

    restore_s: for the whole photo, from the time of a part of it.
    output_bytes: of its files, uncompressed.
    device: where it is restored, such as "cpu".
    """

    load_s: float
    restore_s: float
    output_bytes: int
    device: str


@dataclass(frozen=True)
class Outcome:
    """The result of one input and its reason.

    stage: where it was decided: scan, load, restore or save; run where the run stopped before.
    code: stable name of the reason, for programs. message: for people; names the file, what was
        found, what was expected and what to do.
    detail: traceback of an unexpected error.
    """

    status: Status
    stage: str
    code: str = ""
    message: str = ""
    detail: str = ""
    saved: Saved | None = None
    seconds: Seconds = Seconds()


def outcome_of(error: PhotoError, stage: str, seconds: Seconds = Seconds()) -> Outcome:
    """Turn a photo's error into its outcome: an ordinary raw is skipped, all else has failed."""
    status = Status.SKIPPED if isinstance(error, NotDualPixelError) else Status.FAILED
    return Outcome(status, stage, error.code, str(error), seconds=seconds)


@dataclass(frozen=True)
class Limits:
    """Bounds that keep a run from hanging.

    tries: number of tries for a photo whose process dies.
    step_s: time limit for one step of one photo in seconds, 0 for none. The default is enough for
        a large network and 45 megapixels on a slow CPU.
    crashes_in_a_row: the run ends once the processes of so many different photos have died without
        a finished photo in between; then the machine is a more likely cause than the photos. An
        unexpected exception does not count.
    """

    tries: int = 3
    step_s: float = 3600.0
    crashes_in_a_row: int = 20


@dataclass(frozen=True)
class Processes:
    """How many processes of the local engine load and save; one restores.

    photos_at_restorer: photos in the process that restores. With 2 it receives the next one and
        hands the last one on while it restores another.
    finds_ahead: whether loading finds of a photo what it can, see `dpbatch.ahead`; of any engine.
    """

    loaders: int = 1
    savers: int = 1
    photos_at_restorer: int = 1
    finds_ahead: bool = False


@dataclass(frozen=True)
class ClusterOptions:
    """The user's options for Ray.

    address: address of a running cluster, as for `ray.init`; "" takes RAY_ADDRESS, and without
        that a cluster of this machine alone is started.
    gpus_per_actor: GPUs for each copy of the network: a fraction of one, or a whole number.
    cpu_actors: number of copies of the network on CPUs instead of GPUs; 0 uses GPUs.
    gpu_actors: number of copies that a cluster is asked to have GPUs for, though it may have none
        yet: one that scales by itself starts machines for them. 0 takes the GPUs that are there.
    """

    address: str = ""
    gpus_per_actor: float = 1.0
    cpu_actors: int = 0
    gpu_actors: int = 0

    def __post_init__(self) -> None:
        share = self.gpus_per_actor
        if not 0 < share < math.inf or (share > 1 and share != int(share)):
            raise SettingsError(
                f"--gpus-per-actor {share:g}: expected a share of one GPU, such as 0.5, or a whole "
                "number of GPUs"
            )
        if self.cpu_actors < 0:
            raise SettingsError(f"--cpu-actors {self.cpu_actors}: expected a number of copies")
        if self.gpu_actors and self.cpu_actors:
            raise SettingsError("--gpu-actors and --cpu-actors: give one of the two")


@dataclass(frozen=True)
class RunOptions:
    """Which inputs a run processes and how it behaves; nothing here changes a pixel.

    pictures: whether a TIFF, PNG or JPEG that is no half of a pair is an ordinary photo.
    max_errors: number of failed photos at which the run stops; 0 never stops it.
    processes: of the local engine; the Ray engine has as many loaders, or as many as it needs
        where that is 0.
    step_limit_s: time limit for one step of one photo in seconds; 0 for none.
    wait_for_space_s: the longest pause on a full disk in seconds; 0 ends the run at once.
    cluster: options of the Ray engine; None for the local engine.
    """

    inputs: tuple[Location, ...]
    out: Location
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pairs: bool = True
    pictures: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    max_errors: int = 0
    processes: Processes = field(default_factory=Processes)
    step_limit_s: float = Limits.step_s
    wait_for_space_s: float = 600.0
    cluster: ClusterOptions | None = None
    dry_run: bool = False


class Identified(Protocol):
    """What an engine needs to know of a job; str(job) is its name for people."""

    @property
    def id(self) -> str:
        """Unique among the jobs of a run."""


JobT = TypeVar("JobT", bound=Identified, default=Any)
JobT_contra = TypeVar("JobT_contra", bound=Identified, contravariant=True, default=Any)
LoadedT = TypeVar("LoadedT", default=Any)
"""What the first step returns and the second one takes."""
RestoredT = TypeVar("RestoredT", default=Any)
"""What the second step returns and the last one takes."""


class Stages(Protocol[JobT_contra, LoadedT, RestoredT]):
    """The three steps of a photo.

    The object, the jobs and what the steps return are pickled, since each step may run in a
    process of its own. Arrays may arrive read-only.
    A PhotoError ends this photo. Any other exception ends the process as well and costs the photo
    one try.
    """

    def load(self, job: JobT_contra) -> LoadedT:
        """Read, split and develop. Runs in several processes at a time."""

    def restorer(self) -> Callable[[LoadedT, Progress], RestoredT]:
        """Build the second step, once in the process that restores. An error ends the run."""

    def save(self, job: JobT_contra, restored: RestoredT) -> Saved:
        """Encode and write. No file appears under its final name before it is complete."""


class BatchStages(
    Stages[JobT_contra, LoadedT, RestoredT], Protocol[JobT_contra, LoadedT, RestoredT]
):
    """Stages that also declare what they write."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Appended to a photo's name for each output. The first is the main one, written last."""

    @property
    def fingerprint(self) -> str:
        """Equal for two runs where neither needs to redo the results of the other."""

    @property
    def ordinary_fingerprint(self) -> str:
        """The same for ordinary photos; "" where they are skipped."""

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """Those of results that an earlier release made with the same settings; they are kept."""

    def opens(self, path: Path) -> bool:
        """Return whether a result opens and is there to its end. Raises OSError."""

    def made(self, path: Path, inputs: Sequence[FileStamp]) -> bool:
        """Return whether a file says that such stages made it from these inputs.

        Raises OSError.
        """


class Engine(Protocol[JobT]):
    """Runs stages over jobs. A job is taken from the iterable only when there is room for it."""

    def run(self, jobs: Iterable[JobT]) -> Iterator[tuple[JobT, Outcome]]:
        """Yield each job with its outcome, in the order in which they finish.

        After a stop the jobs that were given up have no outcome.
        """
