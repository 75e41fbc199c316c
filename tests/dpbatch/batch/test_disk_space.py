"""A full disk pauses a run, and no photo is lost by it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from dpbatch.batch import disk_space as space
from dpbatch.batch.disk_space import Space, has_room
from dpbatch.batch.journal import Journal, Record
from dpbatch.errors import AbortError
from dpbatch.storage.local import FileLog
from dpbatch.types import ClusterOptions
from tests.helpers.toy_runs import REPOSITORY, go, journal_text, visible, write_pair
from tests.helpers.toy_stages import CopyStages


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_CHECK_S", 0.05)
    monkeypatch.setattr(space, "_POLL_S", 0.01)


def made_space(wait_s: float = 0.2, stopped: bool = False) -> tuple[Space, list[tuple[str, bool]]]:
    reports: list[tuple[str, bool]] = []
    return Space(
        wait_s, lambda: stopped, lambda text, paused: reports.append((text, paused))
    ), reports


def test_room_is_found_by_writing_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "not" / "yet"
    assert has_room(folder, 9_000_000)
    assert not list(folder.iterdir())
    assert not has_room(tmp_path, 1 << 62)

    def over_quota(_: int) -> None:
        raise OSError(errno.EDQUOT, "quota exceeded")

    monkeypatch.setattr(os, "fsync", over_quota)
    assert not has_room(tmp_path, 100)  # though the disk has room
    assert not list(folder.iterdir())


def test_a_wait_ends_with_room_or_with_its_time_or_with_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [False, False, False, True]
    monkeypatch.setattr(space, "has_room", lambda *_: answers.pop(0) if answers else False)
    waiting, reports = made_space(wait_s=10)
    assert waiting.wait("a.CR2", tmp_path, 3_000_000)
    assert not answers
    (pause, is_paused), (resume, is_still_paused) = reports
    assert (is_paused, is_still_paused) == (True, False)
    for part in ("a.CR2", str(tmp_path), "about 3.0 MB needed", "goes on by itself", "Ctrl-C"):
        assert part in pause
    assert "room again" in resume

    given_up, reports = made_space()
    assert not given_up.wait("a.CR2", tmp_path, 1)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("its time was over"))
    assert not given_up.wait("b.CR2", tmp_path, 1)

    stopped, reports = made_space(wait_s=1e9, stopped=True)
    assert not stopped.wait("a.CR2", tmp_path, 1)

    never, reports = made_space(wait_s=0)
    assert not never.wait("a.CR2", tmp_path, 1)
    assert not reports


def test_a_photo_that_comes_again_needed_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def yes(_: Path, need_bytes: int) -> bool:
        asked.append(need_bytes)
        return True

    monkeypatch.setattr(space, "has_room", yes)
    waiting, _ = made_space(wait_s=0.12)
    assert [waiting.wait(name, tmp_path, 100) for name in ("a", "b", "a", "a")] == [True] * 4
    assert asked == [100, 100, 200, 400]
    # However often room is found: without a photo finished meanwhile the time runs out.
    results = [waiting.wait("a", tmp_path, 100) for _ in range(5)]
    assert not results[-1]
    waiting.finished()
    assert waiting.wait("a", tmp_path, 100)


def test_a_line_of_the_journal_waits_for_room_too(tmp_path: Path) -> None:
    class Full(FileLog):
        room = False

        def append(self, line: bytes) -> None:
            if not self.room:
                raise OSError(errno.ENOSPC, "no space left on device")
            super().append(line)

    with Full(tmp_path / "journal.jsonl") as log:
        journal = Journal(log)
        with pytest.raises(AbortError, match="cannot be written"):
            journal.append(Record("started", "a.tif", "a.CR2"))

        def make_room() -> bool:
            log.room = True
            return True

        journal.on_full = make_room
        journal.append(Record("started", "a.tif", "a.CR2"))
    assert Journal(log).past("a.tif") is not None


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    for number in range(6):
        write_pair(tmp_path / "shoot", f"{number}")
    return tmp_path / "shoot"


ON_RAY = pytest.param(ClusterOptions(cpu_actors=1), marks=pytest.mark.slow, id="ray")


@pytest.mark.parametrize("cluster", [pytest.param(None, id="local"), ON_RAY])
def test_a_run_goes_on_once_there_is_room(
    shoot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: ClusterOptions | None
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # Ray's workers unpickle the stages
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # a socket's path must be short
    full, out = tmp_path / "full", tmp_path / "out"
    full.touch()
    asked = 0

    def made_at_the_third_look(*_: object) -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            full.unlink()
        return not full.exists()

    monkeypatch.setattr(space, "has_room", made_at_the_third_look)
    ran = go(shoot, out, CopyStages(full=full), cluster=cluster)
    assert (ran.code, Counter(ran.codes.values())) == (0, {"done": 6})
    assert len(visible(out)) == 6
    lines = [json.loads(line) for line in journal_text(out).splitlines()]
    events = [line["event"] for line in lines if "event" in line]
    assert events[:3] == ["run-started", "run-planned", "run-paused"]
    assert events[3] == "run-resumed"
    statuses = Counter((line["target"], line["status"]) for line in lines if "target" in line)
    assert all(statuses[f"{n}.tif", "done"] == 1 for n in range(6))
    assert not any(status == "failed" for _, status in statuses)
    assert ran.text.count("paused: no space left for") == 1


def test_ctrl_c_ends_a_pause_and_no_photo_has_failed(
    shoot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, out = tmp_path / "full", tmp_path / "out"
    full.touch()

    def none_and_a_key_is_pressed(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    monkeypatch.setattr(space, "has_room", none_and_a_key_is_pressed)
    ran = go(shoot, out, CopyStages(full=full))
    assert (ran.code, set(ran.codes.values())) == (130, {"not-reached"})
    full.unlink()
    assert set(go(shoot, out).codes.values()) == {"done"}


def test_a_disk_that_stays_full_stops_the_run_with_nothing_lost(
    shoot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, out = tmp_path / "full", tmp_path / "out"
    full.touch()
    monkeypatch.setattr(space, "has_room", lambda *_: False)
    ran = go(shoot, out, CopyStages(full=full), wait_for_space_s=0.3)
    assert ran.code == 3
    assert "no space left" in ran.text.splitlines()[-1]
    assert set(ran.codes.values()) == {"disk-full", "not-reached"}
    full.unlink()
    assert set(go(shoot, out).codes.values()) == {"done"}


def test_without_a_wait_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    write_pair(shoot, "0", "save:full")
    for number in range(1, 9):
        write_pair(shoot, f"{number}")
    ran = go(shoot, out, CopyStages(seconds={"restore": 0.1}), wait_for_space_s=0)
    assert ran.code == 3
    assert ran.codes["0"] == "disk-full"
    assert ran.codes["8"] == "not-reached"
    assert "no space left" in ran.text.splitlines()[-1]


def test_a_disk_that_is_full_at_the_last_photo_is_a_stop_too(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    for name in "abz":
        write_pair(shoot, name, "save:full" if name == "z" else "")
    ran = go(shoot, out, wait_for_space_s=0)
    assert (ran.code, ran.end["done"], ran.end["failed"]) == (3, 2, 1)


CAN_MOUNT = (
    shutil.which("unshare") is not None
    and not subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        check=False,
        capture_output=True,
    ).returncode
)


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs user namespaces")
def test_on_a_disk_that_is_really_full(tmp_path: Path) -> None:
    shoot, out, kept = tmp_path / "shoot", tmp_path / "out", tmp_path / "kept"
    out.mkdir()
    kept.mkdir()
    for number in range(6):
        write_pair(shoot, f"{number}", f"{number}" * 150_000)
    # 2 MB, of which a file takes most that goes away once the run has noticed.
    script = f"""
        mount -t tmpfs -o size=2m none {out} && head -c 1700000 /dev/zero > {out}/filler || exit 9
        {sys.executable} -m tests.helpers.toy_run {shoot} {out} 0 &
        while kill -0 $! && ! grep -q run-paused {out}/.dpbatch/journal.jsonl; do sleep 0.1; done
        rm {out}/filler
        wait $!
        code=$?
        cp -r {out}/. {kept}
        exit $code
    """
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "paused: no space left for" in ran.stdout
    assert "there is room again" in ran.stdout
    assert visible(kept) == {f"{n}.tif": f"{n}".encode() * 150_000 for n in range(6)}
