"""Stages without photos for the engine's tests. A module of its own: child processes import it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from dpbatch.errors import DamagedError, DiskFullError, NotDualPixelError
from dpbatch.output.atomic import atomic_file
from dpbatch.storage.stamps import stamp
from dpbatch.types import FileStamp, Job, Progress, Saved

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Toy:
    """A job. size: of its picture in bytes. trouble: what goes wrong and where, as "load:exit"."""

    name: str
    trouble: str = ""
    size: int = 100
    folder: Path = Path()

    @property
    def id(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ToyStages:
    """Loads bytes of one value; restoring adds one, saving writes them.

    setup: trouble while the restorer is built.
    tries: file that gets a line for each loading and each restoring, before any trouble; the
        restorer identifies a photo by its size.
    """

    setup: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    tries: Path | None = None

    def load(self, job: Toy) -> Pixels:
        import numpy as np  # here: most of the child processes never need it

        self._count(f"load {job.name}")
        self._meet(job, "load")
        return np.full(job.size, 7, np.uint8)

    def restorer(self) -> Callable[[Pixels, Progress], Pixels]:
        make_trouble(self.setup)
        return self._restore

    def _restore(self, loaded: Pixels, progress: Progress) -> Pixels:
        self._count(f"restore {loaded.size}")
        time.sleep(self.seconds.get("restore", 0))
        progress(1, 2)
        if loaded.size == 666:  # the restorer gets no job
            os._exit(9)
        if loaded.size == 667:
            make_trouble("hang")
        if loaded.size == 668:
            make_trouble("bug")
        loaded = loaded + loaded.dtype.type(1)  # what arrives may be read-only
        progress(2, 2)
        return loaded

    def save(self, job: Toy, restored: Pixels) -> Saved:
        self._meet(job, "save")
        target = job.folder / job.name
        temporary = target.with_name(f".{job.name}.part")
        temporary.write_bytes(restored.tobytes())
        temporary.replace(target)
        return Saved((stamp(target),), (target,))

    def _count(self, line: str) -> None:
        if self.tries is not None:
            with self.tries.open("a") as stream:
                stream.write(line + "\n")

    def _meet(self, job: Toy, stage: str) -> None:
        time.sleep(self.seconds.get(stage, 0))
        where, _, trouble = job.trouble.partition(":")
        if where == stage:
            make_trouble(trouble)


@dataclass(frozen=True)
class KilledAtStart(ToyStages):
    """The restorer's second start, and as many as follow, are killed. Needs `tries`."""

    killed: int = 1

    def restorer(self) -> Callable[[Pixels, Progress], Pixels]:
        assert self.tries is not None
        self._count("start")
        if 2 <= self.tries.read_text().splitlines().count("start") < 2 + self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().restorer()


@dataclass(frozen=True)
class OverlappingStages(ToyStages):
    """Stages for photos number 0 to `last`, named so and of number + 1 bytes, that must overlap.

    A photo is restored until the next one is being loaded, and saved until the next one is being
    restored; fails where that does not happen. Needs `tries`.
    """

    last: int = 0

    def _restore(self, loaded: Pixels, progress: Progress) -> Pixels:
        restored = super()._restore(loaded, progress)
        if loaded.size <= self.last:
            self._wait_for(f"load {loaded.size}")
        return restored

    def save(self, job: Toy, restored: Pixels) -> Saved:
        if int(job.name) < self.last:
            self._wait_for(f"restore {job.size + 1}")
        return super().save(job, restored)

    def _wait_for(self, line: str) -> None:
        assert self.tries is not None
        deadline = time.monotonic() + 30
        while line not in self.tries.read_text().splitlines():
            assert time.monotonic() < deadline, line
            time.sleep(0.01)


@dataclass(frozen=True)
class Noted:
    """A picture that leaves a line in a file when it arrives in another process."""

    pixels: Pixels
    notes: Path
    line: str

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with self.notes.open("a") as stream:
            stream.write(self.line + "\n")


@dataclass(frozen=True)
class CrowdedStages(OverlappingStages):
    """Photos as for OverlappingStages; each is restored until the next one has arrived as well, and
    the first two are saved until both are being saved."""

    def load(self, job: Toy) -> Any:
        pixels = super().load(job)
        assert self.tries is not None
        return Noted(pixels, self.tries, f"arrived {job.size - 1}")

    def _restore(self, loaded: Any, progress: Progress) -> Pixels:
        restored = super()._restore(loaded.pixels, progress)
        if restored.size <= self.last:
            self._wait_for(f"arrived {restored.size}")
        return restored

    def save(self, job: Toy, restored: Pixels) -> Saved:
        self._count(f"save {job.name}")
        if job.size <= 2:
            self._wait_for(f"save {2 - job.size}")
        return super().save(job, restored)


def make_trouble(kind: str) -> None:
    match kind:
        case "exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "hang":
            time.sleep(3600)
        case "bug":
            raise ZeroDivisionError("this is unexpected")
        case "damaged":
            raise DamagedError("half of it is missing")
        case "ordinary":
            raise NotDualPixelError("1 raw frame, expected 2")
        case "full":
            raise DiskFullError("no space left")


@dataclass(frozen=True)
class OwnMemoryToys(ToyStages):
    """Notes in `tries` which of `photos` photos arrive in memory of the restorer's own.

    One is restored until a further one is being loaded, and two seconds longer. Needs `tries`.
    """

    photos: int = 0

    def _restore(self, loaded: Pixels, progress: Progress) -> Pixels:
        if loaded.flags.writeable:
            self._count(f"own {loaded.size}")
        restored = super()._restore(loaded, progress)
        deadline = time.monotonic() + 30
        while not self._loads_another():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(2)
        return restored

    def _loads_another(self) -> bool:
        assert self.tries is not None
        steps = Counter(line.split()[0] for line in self.tries.read_text().splitlines())
        return steps["load"] >= min(self.photos, steps["restore"] + 1)


@dataclass(frozen=True)
class CopyStages:
    """Stages over real jobs: the output is the first file's bytes, reversed.

    A file whose content is the name of a trouble meets it, as "load:exit". warnings: said when
    saving. full: while this file is there, the disk counts as full.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    fingerprint: str = "first"
    ordinary_fingerprint: str = ""
    earlier_fingerprints: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".tif",)
    warnings: tuple[str, ...] = ()
    full: Path | None = None

    def opens(self, path: Path) -> bool:
        return path.stat().st_size > 1

    def made(self, path: Path, inputs: Sequence[FileStamp]) -> bool:
        return False

    def load(self, job: Job) -> tuple[bytes, tuple[FileStamp, ...]]:
        time.sleep(self.seconds.get("load", 0))
        content = job.photo.paths[0].read_bytes()
        stage, _, trouble = content.decode().partition(":")
        if stage == "load":
            make_trouble(trouble)
        return content, tuple(stamp(path) for path in job.photo.paths)

    def restorer(self) -> Callable[[Any, Progress], Any]:
        return self._restore

    def _restore(self, loaded: Any, progress: Progress) -> Any:
        time.sleep(self.seconds.get("restore", 0))
        stage, _, trouble = loaded[0].decode().partition(":")
        if stage == "restore":
            make_trouble(trouble)
        return loaded

    def save(self, job: Job, restored: tuple[bytes, tuple[FileStamp, ...]]) -> Saved:
        content, inputs = restored
        stage, _, trouble = content.decode().partition(":")
        if stage == "save":
            make_trouble(trouble)
        if self.full is not None and self.full.exists():
            make_trouble("full")
        for output in reversed(job.outputs):
            with atomic_file(output) as temporary:
                temporary.write_bytes(content[:1])
                time.sleep(self.seconds.get("save", 0))
                temporary.write_bytes(content[::-1])
        checksums = tuple(stamp(output).blake2b for output in job.outputs)
        return Saved(inputs, job.outputs, self.warnings, checksums=checksums)


@dataclass(frozen=True)
class NetworkLatches:
    """Loads raws and finds ahead what can be; its network waits until the next photo is matched.

    notes: file that gets a line for each photo that is matched. photos: named 0.CR2 and so on.
    """

    notes: Path
    photos: int

    def load(self, job: Job) -> str:
        from dpbatch import photo
        from dpbatch.settings import RawSettings
        from ldp.blur.disparity import DisparityEstimator

        small = DisparityEstimator(map_pixels=1_000)  # looks at a smaller copy even of these
        with patch("ldp.blur.loading.load_matching", lambda _: small):
            loaded = photo.load(job.photo, RawSettings(), find_for="disparity")
        assert loaded.ahead is not None
        assert loaded.ahead.matched is not None
        with self.notes.open("a") as stream:
            stream.write(f"matched {loaded.name}\n")
        return loaded.name

    def restorer(self) -> Callable[[str, Progress], str]:
        return self._restore

    def _restore(self, name: str, progress: Progress) -> str:
        following = int(Path(name).stem) + 1
        deadline = time.monotonic() + 60
        while following < self.photos and f"matched {following}.CR2" not in self.lines():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return name

    def save(self, job: Job, restored: str) -> Saved:
        job.target.write_text(restored)
        return Saved((), job.outputs)

    def lines(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []
