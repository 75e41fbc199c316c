"""The journal survives whatever ends a run, and tells files by their content."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dpbatch.batch.journal import Journal, Record, read_history, read_past
from dpbatch.errors import AbortError
from dpbatch.storage.local import FileLog
from dpbatch.storage.local_lock import is_locked, locked
from dpbatch.storage.stamps import same_content, stamp
from dpbatch.types import FileStamp

DONE = Record(
    "done",
    "day1/a.tif",
    "/shoot/day1/a.CR2",
    "key",
    inputs=(FileStamp("/shoot/day1/a.CR2", 12, 34, "ab"),),
    outputs=(FileStamp("day1/a.tif", 56, 78),),
    stage="save",
    load_s=1.5,
)


def log_of(out: Path) -> FileLog:
    return FileLog(out / ".dpbatch" / "journal.jsonl")


@contextmanager
def opened(out: Path) -> Iterator[Journal]:
    with log_of(out) as log:
        yield Journal(log)


def lines(out: Path) -> bytes:
    return (out / ".dpbatch" / "journal.jsonl").read_bytes()


def test_what_was_written_is_read_again_by_target(tmp_path: Path) -> None:
    failed = Record("failed", "b.tif", "/shoot/b.CR2", "key", code="damaged", message="torn é")
    with opened(tmp_path) as journal:
        for record in (Record("started", DONE.target, DONE.source, "key"), DONE, failed):
            journal.append(record)
        written = journal.past(DONE.target)
    read = Journal(log_of(tmp_path))
    for past in (written, read.past(DONE.target)):
        assert past is not None
        assert past.done == past.last
        assert past.last.inputs == DONE.inputs
        assert past.last.outputs == DONE.outputs
        assert past.last.load_s == 1.5
    of_failed = read.past("b.tif")
    assert of_failed is not None
    assert (of_failed.last.message, of_failed.done) == ("torn é", None)
    assert read.past("c.tif") is None


def test_the_newest_done_is_kept_beside_the_newest_line(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(DONE)
        journal.append(Record("started", DONE.target, DONE.source, "other key"))
    past = Journal(log_of(tmp_path)).past(DONE.target)
    assert past is not None
    assert past.last.status == "started"
    assert past.done is not None
    assert past.done.fingerprint == "key"


def test_every_line_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(DONE)
    record = json.loads(lines(tmp_path))
    assert record["status"] == "done"
    assert record["time"].startswith("20")


def test_a_torn_last_line_harms_neither_the_lines_before_nor_after(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(DONE)
    whole = lines(tmp_path)
    path = tmp_path / ".dpbatch" / "journal.jsonl"
    for length in [*range(0, len(whole), 9), len(whole) - 1]:
        path.write_bytes(whole + whole[:length])
        with opened(tmp_path) as journal:
            assert journal.past(DONE.target) is not None
            journal.append(Record("failed", "b.tif", "/shoot/b.CR2"))
        again = Journal(log_of(tmp_path))
        assert again.past("b.tif") is not None
        assert again.past(DONE.target) is not None


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(DONE)
    path = tmp_path / ".dpbatch" / "journal.jsonl"
    newer = {"status": "done", "target": "n.tif", "source": "s", "mood": "fine"}
    foreign = [b"\xff\xfe", b"[]", b"null", b"3", b'{"status": "done"}', json.dumps(newer).encode()]
    path.write_bytes(b"\n".join([*foreign, lines(tmp_path)]))
    journal = Journal(log_of(tmp_path))
    assert journal.past(DONE.target) is not None
    assert journal.past("n.tif") is None


def wrong_lines() -> Iterator[bytes]:
    """The journal's own lines with one value of another type at a time, and lines too deep."""
    wrong: Any
    of_photo: dict[str, Any] = {
        "status": "done",
        "target": "w.tif",
        "source": "s",
        "load_s": 1.0,
        "time": "t",
    }
    stamped = {"path": "w.tif", "size": 1, "mtime_ns": 2, "blake2b": "", "etag": ""}
    of_run: dict[str, Any] = {
        "event": "run-planned",
        "to_do": 1,
        "skipped": [["lone-half", 1]],
        "message": "m",
    }
    for right in (of_photo, of_run):
        for name in right:
            for wrong in (None, [], {}, [[1]], True, {"a": {"b": []}}):
                yield json.dumps(right | {name: wrong}).encode()
    for name in stamped:
        for wrong in (None, [], {"size": 1}, 1.5):
            yield json.dumps(of_photo | {"inputs": [stamped | {name: wrong}]}).encode()
    for wrong_stamps in ("text", 3, [3], [None], ["ab"], {"path": 1}, [[stamped]]):
        yield json.dumps(of_photo | {"outputs": wrong_stamps}).encode()
    yield b"[" * 100_000 + b"]" * 100_000
    yield b'{"status": ' * 50_000


def test_a_line_of_the_wrong_types_or_depth_is_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(DONE)
    (right,) = lines(tmp_path).splitlines()
    for wrong in wrong_lines():
        (tmp_path / ".dpbatch" / "journal.jsonl").write_bytes(wrong + b"\n" + right + b"\n")
        read = list(read_history(log_of(tmp_path)))
        assert [line.target for line in read if isinstance(line, Record)] in (
            [DONE.target],
            ["w.tif", DONE.target],  # an empty list is as good as none
        ), wrong
        assert "w.tif" not in read_past(log_of(tmp_path)) or b": []" in wrong, wrong


def test_reading_alone_leaves_no_trace(tmp_path: Path) -> None:
    Journal(log_of(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_run_and_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        (tmp_path / ".dpbatch").mkdir()
        (tmp_path / ".dpbatch" / "journal.jsonl").symlink_to("/dev/full")
        with pytest.raises(AbortError, match=r"journal\.jsonl.*No space left"):
            journal.append(DONE)


def test_same_size_and_time_or_same_content_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"first")
    known = [stamp(path)]
    assert same_content(known, [path], stamp)

    os.utime(path, ns=(1, 1))  # touched, or copied without its time
    assert same_content(known, [path], stamp)

    path.write_bytes(b"other")  # as long, at another time
    assert not same_content(known, [path], stamp)
    path.write_bytes(b"longer than it was")
    assert not same_content(known, [path], stamp)
    path.unlink()
    assert not same_content(known, [path], stamp)
    assert not same_content(known, [path, path], stamp)


def test_an_output_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    other_run = (
        "import pathlib, sys\n"
        "from dpbatch.storage.local_lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): pass\n"
    )

    def try_it() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", other_run, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with locked(tmp_path):
        refused = try_it()
    assert "another dpbatch is writing there" in refused.stderr
    assert try_it().returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_a_run_goes_on_and_leaves_no_mark(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with locked(tmp_path), locked(tmp_path):  # as after a run that was killed
        assert is_locked(tmp_path) is None
    assert [path.name for path in (tmp_path / ".dpbatch").iterdir()] == ["lock"]


def test_a_look_needs_no_permission_to_write(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / ".dpbatch" / "lock").chmod(0o444)
        assert is_locked(tmp_path)
    assert is_locked(tmp_path) is False
    assert is_locked(tmp_path / "nothing") is False


def test_an_output_folder_that_cannot_be_made_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AbortError, match="cannot be written"), locked(tmp_path / "file" / "out"):
        pass
