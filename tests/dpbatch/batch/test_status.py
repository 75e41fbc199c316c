"""What `dpbatch status` tells is what the journal says, and adds up."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dpbatch.batch.status import FolderStatus, LatestRun, read_status
from dpbatch.batch.status_text import to_text
from dpbatch.cli.main import main
from dpbatch.errors import AbortError
from dpbatch.storage.local_lock import is_locked, locked
from tests.helpers.toy_runs import go, journal_text, start_toy_run, wait_for, write_pair
from tests.helpers.toy_stages import CopyStages

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.slow  # processes are started


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def write_journal(out: Path, *lines: dict[str, Any]) -> None:
    (out / ".dpbatch").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / ".dpbatch" / "journal.jsonl").write_text(text)


def photo(name: str, status: str, seconds: float, **more: Any) -> dict[str, Any]:
    line = {"status": status, "target": f"{name}.tif", "source": f"/shoot/{name}.CR2"}
    return {**line, "time": at(seconds), **more}


def latest(status: FolderStatus) -> LatestRun:
    run = status.latest_run
    assert run is not None
    assert run.inputs == run.done + run.skipped + run.failed + run.in_progress + run.waiting
    assert len(run.working_on) == run.in_progress
    assert len(run.failures) == run.failed
    assert sum(run.skipped_by_code.values()) == run.skipped
    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    for number in range(4):
        write_pair(tmp_path / "shoot", f"{number}")
    return tmp_path / "shoot"


def test_a_run_that_ended_is_told_as_its_table_told_it(shoot: Path, out: Path) -> None:
    write_pair(shoot, "broken", "load:damaged")
    write_pair(shoot, "crash", "load:exit")
    write_pair(shoot, "ordinary", "load:ordinary")
    write_pair(shoot, "half").unlink()
    ran = go(shoot, out)
    run = latest(read_status(out))
    assert (run.state, run.exit_code, run.message) == ("ended", 1, "")
    counted = {"inputs": run.inputs, "done": run.done, "skipped": run.skipped, "failed": run.failed}
    assert counted == {name: ran.end[name] for name in counted}
    assert run.skipped_by_code == {"lone-half": 1, "not-dual-pixel": 1}
    assert {(Path(f.source).stem, f.code) for f in run.failures} == {
        ("broken_L", "damaged"),
        ("crash_L", "worker-crash"),
    }
    assert (run.in_progress, run.waiting, run.seconds_left) == (0, 0, None)
    assert run.photos_per_minute > 0

    write_pair(shoot, "new")
    (shoot / "broken_L.tif").write_text("repaired")
    again = go(shoot, out)
    status = read_status(out)
    run, folder = latest(status), status.whole_folder
    assert (run.done, run.failed, run.skipped) == (2, 1, again.end["skipped"])
    assert run.skipped_by_code["already-done"] == 4
    assert (folder.done, folder.failed, folder.skipped, folder.unfinished) == (6, 1, 1, 0)
    assert [Path(failure.source).stem for failure in folder.failures] == ["crash_L"]


def test_failures_of_earlier_runs_are_told_apart(shoot: Path, out: Path) -> None:
    broken = write_pair(shoot, "broken", "load:damaged")
    go(shoot, out)
    run = go(shoot, out, exclude=("broken*",))
    assert run.code == 0
    status = read_status(out)
    assert latest(status).failed == 0
    assert status.whole_folder.failed == 1
    text = to_text(status)
    assert f"{broken}: half of it is missing [load]" in text.partition("earlier runs")[2]


def test_a_photo_with_results_in_several_formats_is_counted_and_listed_once(
    shoot: Path, out: Path
) -> None:
    broken = write_pair(shoot, "broken", "load:damaged")
    go(shoot, out)
    go(shoot, out, CopyStages(suffixes=(".dng",)))
    folder = read_status(out).whole_folder
    assert (folder.done, folder.failed, folder.unfinished) == (4, 1, 0)
    go(shoot, out, exclude=("broken*",))
    text = to_text(read_status(out))
    assert "by all runs: 4 done, 1 failed, 0 unfinished" in text
    assert text.partition("earlier runs")[2].count(str(broken)) == 1
    broken.write_text("repaired")
    go(shoot, out, CopyStages(suffixes=(".dng",)))
    folder = read_status(out).whole_folder
    assert (folder.done, folder.failed, folder.failures) == (5, 0, ())


def test_the_newest_line_about_a_photo_counts_wherever_it_lay(out: Path) -> None:
    moved = {"source": "/archive/a.CR2"}
    failed = {"stage": "load", "code": "damaged", "message": "a.CR2: cut short"}
    lines = [photo("a", "done", 0), photo("a", "failed", 10, **failed, target="a.dng")]
    write_journal(out, *lines)
    assert [failure.time for failure in read_status(out).whole_folder.failures] == [at(10)]
    write_journal(out, *lines, photo("a", "done", 20))
    assert read_status(out).whole_folder.failures == ()
    write_journal(out, *lines[:1], photo("a", "failed", 20, **failed, **moved))
    folder = read_status(out).whole_folder
    assert (folder.done, [failure.source for failure in folder.failures]) == (0, [moved["source"]])


def test_a_run_is_seen_while_it_works_and_after_it_was_killed(shoot: Path, out: Path) -> None:
    process = start_toy_run(shoot, out, save_s=2)
    try:
        wait_for(lambda: journal_text(out).count('"done"') >= 1)
        status = read_status(out)
        run = latest(status)
        assert (status.running, run.state, run.inputs) == (True, "running", 4)
        assert run.done >= 1
        assert run.working_on
        assert run.seconds_left is not None
        assert "a run is in progress" in to_text(status)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    status = read_status(out)
    run = latest(status)
    assert (status.running, run.state, run.exit_code) == (False, "broken off", None)
    assert run.in_progress == status.whole_folder.unfinished > 0
    assert "was killed" in to_text(status)
    go(shoot, out)
    run = latest(read_status(out))
    assert (run.state, run.done + run.skipped) == ("ended", 4)


def test_what_was_restored_of_a_photo_is_told(out: Path) -> None:
    what = "subject at the AF area (+1.0 to -1.0 px); 30% of the photo"
    write_journal(
        out,
        {"event": "run-started", "inputs": 2, "time": at(0)},
        photo("a", "done", 60, rescued=what),
        photo("b", "done", 70),
    )
    status = read_status(out)
    assert [(photo.source, photo.what) for photo in latest(status).rescued] == [
        ("/shoot/a.CR2", what)
    ]
    assert f"restored in part or drawn anew:\n  /shoot/a.CR2: {what}" in to_text(status)


def test_the_rate_and_the_time_left_come_from_the_journals_times(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_journal(
        out,
        photo("old", "done", -500),
        {"event": "run-started", "inputs": 10, "time": at(0)},
        {"event": "run-planned", "to_do": 8, "skipped": [["already-done", 2]], "time": at(50)},
        photo("a", "started", 60),
        photo("b", "started", 61),
        photo("a", "done", 100),
        photo("c", "started", 101),
        photo("b", "failed", 120, stage="load", code="damaged", message="b.CR2: cut short"),
        photo("c", "started", 130, code="worker-crash", message="c.CR2: it died"),
    )
    monkeypatch.setattr("dpbatch.storage.local.is_locked", lambda _: True)
    status = read_status(out, START + timedelta(seconds=180))
    run = latest(status)
    assert (run.done, run.failed, run.skipped, run.in_progress, run.waiting) == (1, 1, 2, 1, 5)
    assert run.photos_per_minute == 1.0  # two in the two minutes since the first was begun
    assert run.seconds_left == 360.0
    assert run.working_on[0].runs_again == "c.CR2: it died"
    assert status.last_activity == at(130)
    assert (status.whole_folder.done, status.whole_folder.unfinished) == (2, 1)
    text = to_text(status, START + timedelta(seconds=180))
    for part in (
        "last activity 00:50 ago",
        "1 photos/min, 06:00 left",
        "(already-done: 2)",
        "/shoot/b.CR2: cut short [load]",
        "/shoot/c.CR2: runs again; it died",
        "2 done, 1 failed, 1 unfinished",
    ):
        assert part in text, text


def test_a_pause_is_told_with_its_reason(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpbatch.storage.local.is_locked", lambda _: True)
    lines = [
        {"event": "run-started", "inputs": 1, "time": at(0)},
        {"event": "run-planned", "to_do": 1, "time": at(1)},
        photo("a", "started", 2),
        {"event": "run-paused", "message": "paused: no space left", "time": at(3)},
    ]
    write_journal(out, *lines)
    status = read_status(out)
    assert (latest(status).state, latest(status).seconds_left) == ("paused", None)
    assert "paused: no space left (since" in to_text(status)
    write_journal(out, *lines, {"event": "run-resumed", "time": at(4)})
    assert latest(read_status(out)).state == "running"


def test_a_torn_last_line_and_lines_of_newer_releases_are_passed_over(
    shoot: Path, out: Path
) -> None:
    go(shoot, out)
    before = read_status(out)
    path = out / ".dpbatch" / "journal.jsonl"
    line = path.read_bytes().splitlines()[-1]
    for torn in (b'{"event": "run-of-luck", "mood": 1}\n', b"\xff\n", line[: len(line) // 2]):
        with path.open("ab") as stream:
            stream.write(torn)
        assert read_status(out) == before


def test_a_journal_from_before_runs_were_noted_is_read(out: Path) -> None:
    write_journal(out, photo("a", "started", 0), photo("a", "done", 9), photo("b", "started", 10))
    status = read_status(out)
    assert status.latest_run is None
    assert (status.whole_folder.done, status.whole_folder.unfinished) == (1, 1)
    assert "no run is in progress" in to_text(status)


def test_a_folder_without_a_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(AbortError, match=r"journal\.jsonl: no journal; give the folder"):
        read_status(tmp_path)
    assert not list(tmp_path.iterdir())
    ran = CliRunner().invoke(main, ["status", str(tmp_path / "missing")])
    assert (ran.exit_code, "no journal, and no such folder" in ran.output) == (3, True)


def test_the_command_prints_text_or_json(shoot: Path, out: Path) -> None:
    go(shoot, out)
    text = CliRunner().invoke(main, ["status", str(out)])
    assert text.exit_code == 0
    assert "ended" in text.output
    assert "done              4" in text.output
    said = json.loads(CliRunner().invoke(main, ["status", str(out), "--json"]).output)
    assert said == json.loads(json.dumps(read_status(out).to_dict()))
    assert said["latest_run"]["done"] == said["whole_folder"]["done"] == 4


def test_looking_writes_nothing_and_keeps_no_run_from_starting(shoot: Path, out: Path) -> None:
    assert not is_locked(out)
    go(shoot, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not is_locked(out)
    read_status(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with locked(out):
        assert is_locked(out)


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_without_locks_nobody_claims_that_a_run_was_broken_off(
    shoot: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    go(shoot, out)
    path = out / ".dpbatch" / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert latest(read_status(out)).state == "broken off"
    monkeypatch.setattr("fcntl.flock", no_locks)
    status = read_status(out)
    assert (status.running, latest(status).state) == (None, "unknown")
    assert "still running or was killed" in to_text(status)


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_a_run_that_starts_during_a_look_waits_for_its_end(shoot: Path, out: Path) -> None:
    import fcntl

    go(shoot, out)
    with (out / ".dpbatch" / "lock").open("rb") as look:
        fcntl.flock(look, fcntl.LOCK_SH | fcntl.LOCK_NB)
        release = threading.Timer(0.15, lambda: fcntl.flock(look, fcntl.LOCK_UN))
        release.start()
        assert Counter(go(shoot, out).codes.values()) == {"already-done": 4}
        release.join()
