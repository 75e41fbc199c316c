"""The status of an output folder, read from its journal during a run or after it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from dpbatch.batch.journal import Record, RunLine, no_journal, read_history
from dpbatch.errors import AbortError
from dpbatch.location import Location
from dpbatch.storage.choose import output_folder

State = Literal["running", "paused", "ended", "broken off", "unknown"]


@dataclass(frozen=True)
class Failure:
    """A photo, or another input, that failed. time: when, as the journal has it (ISO 8601, UTC)."""

    source: str
    stage: str
    code: str
    message: str
    time: str


@dataclass(frozen=True)
class Warned:
    """A photo that is done, and what was not right with it."""

    source: str
    message: str


@dataclass(frozen=True)
class Rescued:
    """A photo of which a part was restored. what: in words, as the journal has it."""

    source: str
    what: str


@dataclass(frozen=True)
class Working:
    """A photo that was started and has not finished. since: as `Failure.time`.

    runs_again: why its last try failed; "" in its first.
    """

    source: str
    since: str
    runs_again: str = ""


@dataclass(frozen=True)
class LatestRun:
    """Every input of the latest run is counted once: inputs = done + skipped + failed + in progress
    + waiting.

    state: "broken off" for a run that was killed; "unknown" where that cannot be determined.
    skipped_by_code: of those skipped. waiting: not started, or, in a run that is over, not reached.
    networks: of those done, by the network that restored them; earlier releases did not note it.
    rescued: those of which not everything was restored.
    exit_code, message: of a run that ended, how; of one that is paused, why.
    seconds_left: None where it is unknown.
    """

    state: State
    started: str
    ended: str
    exit_code: int | None
    message: str
    inputs: int
    done: int
    skipped: int
    failed: int
    in_progress: int
    waiting: int
    skipped_by_code: dict[str, int]
    photos_per_minute: float
    seconds_left: float | None
    working_on: tuple[Working, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[Warned, ...]
    networks: dict[str, int]
    rescued: tuple[Rescued, ...]


@dataclass(frozen=True)
class WholeFolder:
    """Every photo that any run has started, once, by the newest line in the journal about it or one
    of its results: it may have some in several formats, or by several networks.

    skipped: those that turned out to be ordinary when they were opened. unfinished:
    started and not finished by any run.
    """

    done: int
    skipped: int
    failed: int
    unfinished: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class FolderStatus:
    """running: whether a run holds the folder; None where that is unknown.

    last_activity: the time of the journal's last line. latest_run: None where the journal was
    written before runs were noted in it, or a run has only just started.
    """

    folder: str
    running: bool | None
    last_activity: str
    latest_run: LatestRun | None
    whole_folder: WholeFolder

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return asdict(self)


def read_status(out: Location, now: datetime | None = None) -> FolderStatus:
    """Return the status of an output folder. Writes nothing. now: for seconds_left and the rate.

    Raises AbortError where there is no journal or it cannot be read.
    """
    folder, reader = output_folder(out), _Reader()
    log = folder.log()
    try:
        running = folder.is_held()
        for line in read_history(log):
            reader.take(line)
    except OSError as error:
        raise AbortError(f"{log.name}: the journal cannot be read: {error}") from error
    if not reader.last_time and not running:
        raise no_journal(out, log)
    return FolderStatus(
        str(out),
        running,
        reader.last_time,
        reader.run.result(running, now or datetime.now(UTC)) if reader.run else None,
        reader.whole_folder(),
    )


class _Reader:
    """Collects the status from the journal, line by line."""

    def __init__(self) -> None:
        self.last_time = ""
        self.run: _RunReader | None = None
        self._photos: dict[str, Record] = {}
        """The newest line of each target, the newest last, without the lists of files."""

    def take(self, line: Record | RunLine) -> None:
        self.last_time = line.time or self.last_time
        if isinstance(line, RunLine):
            if line.event == "run-started":
                self.run = _RunReader(line)
            elif self.run is not None:
                self.run.take_line(line)
            return
        if line.target:
            self._photos.pop(line.target, None)
            self._photos[line.target] = replace(line, inputs=(), outputs=())
        if self.run is not None:
            self.run.take(line)

    def whole_folder(self) -> WholeFolder:
        # By target first: of a photo that was moved, only the new place counts.
        newest = {record.source: record for record in self._photos.values()}
        counts = Counter(record.status for record in newest.values())
        return WholeFolder(
            counts["done"],
            counts["skipped"],
            counts["failed"],
            counts["started"],
            tuple(_failure(record) for record in newest.values() if record.status == "failed"),
        )


@dataclass
class _RunReader:
    started: RunLine
    planned: RunLine | None = None
    paused: RunLine | None = None
    ended: RunLine | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    networks: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    working: dict[str, Working] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    rescued: list[Rescued] = field(default_factory=list)
    first_time: str = ""
    last_time: str = ""
    worked: int = 0
    """Photos that ended in an engine, from first_time to last_time."""

    def take_line(self, line: RunLine) -> None:
        match line.event:
            case "run-planned":
                self.planned = line
                self.skipped.update(dict(line.skipped))
            case "run-paused":
                self.paused = line
            case "run-resumed":
                self.paused = None
            case "run-ended":
                self.ended = line

    def take(self, record: Record) -> None:
        if record.status == "started":
            self.first_time = self.first_time or record.time
            self.working[record.target] = Working(record.source, record.time, record.message)
            return
        if self.working.pop(record.target, None) is not None:
            self.worked += 1
            self.last_time = record.time
        if record.status == "skipped":
            self.skipped[record.code] += 1
        else:
            self.counts[record.status] += 1
        if record.status == "done" and record.network:
            self.networks[record.network] += 1
        if record.status == "done" and record.rescued:
            self.rescued.append(Rescued(record.source, record.rescued))
        if record.status == "failed":
            self.failures.append(_failure(record))
        self.warnings += [Warned(record.source, warning) for warning in record.warnings]

    def result(self, running: bool | None, now: datetime) -> LatestRun:
        state = self._state(running)
        inputs, skipped = self.started.inputs, self.skipped.total()
        done, failed = self.counts["done"], self.counts["failed"]
        waiting = max(inputs - done - failed - skipped - len(self.working), 0)
        per_minute, end = 0.0, now if state == "running" else time_of(self.last_time)
        if self.worked and end is not None:
            minutes = seconds_between(self.first_time, end) / 60
            per_minute = round(self.worked / minutes, 3) if minutes > 0 else 0.0
        left_s = None
        if state == "running" and self.planned is not None and per_minute:
            left_s = round((waiting + len(self.working)) / per_minute * 60, 1)
        stopped = self.ended or (self.paused if state == "paused" else None)
        return LatestRun(
            state,
            self.started.time,
            self.ended.time if self.ended else "",
            self.ended.exit_code if self.ended else None,
            stopped.message if stopped else "",
            inputs,
            done,
            skipped,
            failed,
            len(self.working),
            waiting,
            dict(sorted(self.skipped.items())),
            per_minute,
            left_s,
            tuple(self.working.values()),
            tuple(self.failures),
            tuple(self.warnings),
            dict(sorted(self.networks.items())),
            tuple(self.rescued),
        )

    def _state(self, running: bool | None) -> State:
        if self.ended is not None:
            return "ended"
        if running is None:
            return "unknown"
        if not running:
            return "broken off"
        return "paused" if self.paused is not None else "running"


def _failure(record: Record) -> Failure:
    return Failure(record.source, record.stage, record.code, record.message, record.time)


def time_of(text: str) -> datetime | None:
    """Parse a time of the journal; None where it is missing."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def seconds_between(start: str, end: datetime) -> float:
    """Return the seconds since a time of the journal; 0 if that is unknown or after `end`."""
    since = time_of(start)
    return max((end - since).total_seconds(), 0.0) if since else 0.0
