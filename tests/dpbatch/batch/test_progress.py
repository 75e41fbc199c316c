"""What a run reports of its pace, its failures and its machines."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from dpbatch.batch.progress import Reporter
from dpbatch.types import Job, Outcome, Photo, Saved, Status

DONE = Outcome(Status.DONE, "save", saved=Saved((), (Path("out/a.tif"),)))
JOB = Job(
    "IMG_7.tif", "IMG_7.CR2", Photo("raw", (Path("IMG_7.CR2"),), "IMG_7"), (Path("out/IMG_7.tif"),)
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def failed(name: str, code: str = "damaged") -> Outcome:
    return Outcome(Status.FAILED, "load", code, f"{name}: cut short")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_line_of_a_photo_has_the_pace_and_the_failures_so_far(clock: list[float]) -> None:
    printed = io.StringIO()
    reporter = Reporter(printed)
    reporter.start(10)
    reporter.start_work(10)
    clock[0] += 30
    reporter.finished("a.CR2", DONE)
    reporter.finished("b.CR2", failed("b.CR2"))
    reporter.update_busy([0.931, 0.5])
    clock[0] += 30
    reporter.finished("c.CR2", DONE)
    lines = printed.getvalue().splitlines()
    assert lines[1].endswith("04:30 left, 2 photos/min")
    assert lines[2] == "[2/10] failed: b.CR2: cut short [load]"
    assert lines[3].endswith("02:20 left, 3 photos/min, 1 failed, busy 93/50 %")


def test_the_bar_has_the_same_and_the_photo_being_restored(clock: list[float]) -> None:
    terminal = Terminal()
    reporter = Reporter(terminal)
    reporter.start_work(4)
    clock[0] += 60
    reporter.finished("a.CR2", failed("a.CR2"))
    reporter.update_progress(JOB, 1, 4)
    reporter.update_busy([0.9] * 20 + [0.3])
    assert (
        "1 photos/min, 1 failed, 21 actors 87 % busy, the least 30 %, IMG_7 25 %]"
        in terminal.getvalue()
    )
    reporter.close(interrupted=False, aborted="")


def test_without_actors_nothing_is_reported_of_them(clock: list[float]) -> None:
    printed = io.StringIO()
    reporter = Reporter(printed)
    reporter.start_work(1)
    reporter.update_busy([])
    clock[0] += 60
    reporter.finished("a.CR2", DONE)
    assert printed.getvalue().splitlines()[-1].endswith("1 photos/min")


def test_the_table_names_some_of_a_reason_and_counts_all(clock: list[float]) -> None:
    printed = io.StringIO()
    reporter = Reporter(printed, quiet=True)
    reporter.start(60)
    for number in range(30):
        reporter.finished(f"{number}.CR2", failed(f"{number}.CR2"))
    reporter.finished("z.CR2", failed("z.CR2", "unreadable"))
    for number in range(29):
        skip = Outcome(Status.SKIPPED, "scan", "already-done", f"{number}.CR2: already done")
        reporter.finished(f"{number}.CR2", skip)
    assert not printed.getvalue()
    assert reporter.close(interrupted=False, aborted="") == 1
    lines = printed.getvalue().splitlines()
    assert lines[lines.index("failed, damaged: 30") + 1] == "  0.CR2: cut short [load]"
    assert "  and 10 more; --json-log lists them all" in lines
    assert sum("cut short" in line for line in lines) == 21
    assert "failed, unreadable: 1" in lines
    assert "skipped, already-done: 29 (already done)" in lines


def test_what_needs_attention_is_printed_even_if_quiet() -> None:
    printed = io.StringIO()
    reporter = Reporter(printed, quiet=True)
    reporter.message("not needed")
    reporter.message("paused", always=True)
    assert printed.getvalue() == "paused\n"
