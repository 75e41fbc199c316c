"""The journal of an output folder: what was started, is done, failed and why; the key to resuming.

Append-only JSON lines, one an event, each of them durable before the run goes on. A line torn by a
crash is passed over. The newest lines about a target, the path of a result below the output folder,
decide whether it must be made and whether the file there is ours. Lines about a run as a whole
stand between them, for `dpbatch status`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dpbatch.errors import DISK_FULL, AbortError
from dpbatch.location import Location
from dpbatch.storage.base import AppendLog, LogReader
from dpbatch.types import FileStamp


@dataclass(frozen=True)
class Record:
    """One line about a photo.

    status: started, done, skipped, failed. A `started` with a code and a message reports a try that
    failed; the photo runs again.

    target: the picture's path below the output folder, with /; "" for an input that is no photo.
    source: the photo's first file.
    outputs: their paths are below the output folder too.
    network: the one that restored the photo.
    rescued: what of the photo was restored, or drawn anew, in words; "" for everything.
    """

    status: str
    target: str
    source: str
    fingerprint: str = ""
    inputs: tuple[FileStamp, ...] = ()
    outputs: tuple[FileStamp, ...] = ()
    stage: str = ""
    code: str = ""
    message: str = ""
    detail: str = ""
    load_s: float = 0.0
    restore_s: float = 0.0
    save_s: float = 0.0
    warnings: tuple[str, ...] = ()
    rescued: str = ""
    time: str = ""
    network: str = ""


@dataclass(frozen=True)
class RunLine:
    """One line about a run. event: run-started, run-planned, run-paused, run-resumed, run-ended.

    run-started has the number of `inputs`; run-planned the number of photos `to_do` and of inputs
    that are skipped, by code; failed ones have lines of their own. A run that was killed has no
    run-ended.
    """

    event: str
    inputs: int = 0
    to_do: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    exit_code: int = 0
    message: str = ""
    time: str = ""


_Line = TypeVar("_Line", Record, RunLine)


@dataclass(frozen=True)
class Past:
    """What the journal knows of one target: its newest line and its newest `done`."""

    last: Record
    done: Record | None


def read_history(log: LogReader) -> Iterator[Record | RunLine]:
    """Yield all lines of a journal, oldest first. Raises OSError.

    A line that is none of ours, torn by a crash or written by a newer release, is passed over.
    """
    for line in log.lines():
        parsed = _parsed(line)
        if parsed is not None:
            yield parsed


def read_past(log: LogReader) -> dict[str, Past]:
    """Return what a journal knows, by target. Raises AbortError where it cannot be read."""
    past: dict[str, Past] = {}
    try:
        for line in read_history(log):
            if isinstance(line, Record):
                _remember(past, line)
    except OSError as error:
        raise AbortError(f"{log.name}: the journal cannot be read: {error}") from error
    return past


def no_journal(out: Location, log: LogReader) -> AbortError:
    """Return the error for an output folder that has no journal."""
    is_missing = isinstance(out, Path) and not out.exists()
    why = "no journal, and no such folder" if is_missing else "no journal"
    return AbortError(f"{log.name}: {why}; give the folder that a run writes to, its --out")


def _never() -> bool:
    return False


class Journal:
    """The journal of a run that goes on.

    on_full: called where a line does not fit on the disk; True to try once more.
    """

    def __init__(self, log: AppendLog) -> None:
        """Read what is there, write nothing yet. Raises AbortError where it cannot be read."""
        self.on_full: Callable[[], bool] = _never
        self._log = log
        self._past = read_past(log)

    def past(self, target: str) -> Past | None:
        """Return what is known of a target: the path of a result below the output folder."""
        return self._past.get(target)

    def append(self, line: Record | RunLine) -> None:
        """Write one line, durable when this returns. Raises AbortError where it cannot be."""
        stamped = {**asdict(line), "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        text = json.dumps({name: value for name, value in stamped.items() if value}) + "\n"
        while True:
            try:
                self._log.append(text.encode())
                break
            except OSError as error:
                if error.errno in DISK_FULL and self.on_full():
                    continue
                raise AbortError(
                    f"{self._log.name}: the journal cannot be written: {error}"
                ) from error
        if isinstance(line, Record):
            _remember(self._past, line)


def _remember(past: dict[str, Past], record: Record) -> None:
    old = past.get(record.target)
    done = record if record.status == "done" else old.done if old is not None else None
    past[record.target] = Past(record, done)


def _parsed(line: bytes) -> Record | RunLine | None:
    try:
        # Not by msgspec: it refuses names that are not UTF-8, which stand as lone surrogates.
        values = json.loads(line)
        if "event" in values:
            return _converted(values, RunLine)
        for stamp in (*values.get("inputs", ()), *values.get("outputs", ())):
            _require_known(stamp, FileStamp)
        return _converted(values, Record)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _converted(values: dict[str, Any], kind: type[_Line]) -> _Line:
    _require_known(values, kind)
    return msgspec.convert(values, kind)


def _require_known(values: dict[str, Any], kind: type) -> None:
    """Raise ValueError for a field of a newer release, which could change what a line means."""
    if not values.keys() <= {field.name for field in fields(kind)}:
        raise ValueError("unknown fields")
