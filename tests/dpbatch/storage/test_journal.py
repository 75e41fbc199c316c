"""The journal and the lock of a remote output folder: no line is lost, and one run at a time."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from dpbatch.batch.journal import Journal, Past, Record, RunLine, read_history, read_past
from dpbatch.errors import AbortError
from dpbatch.location import RemotePath
from dpbatch.storage import remote_lock as lock_module
from dpbatch.storage import retry, segments, store
from dpbatch.storage.remote import RemoteFolder
from dpbatch.storage.remote_lock import Lock, held, is_held
from dpbatch.storage.segments import SegmentLog, StoredLog, state_folder
from tests.helpers.s3_server import S3Server, remote

pytestmark = pytest.mark.slow  # processes are started


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(retry, "PAUSES_S", ())
    monkeypatch.setattr(lock_module, "BEAT_S", 0.05)
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.2)


@pytest.fixture(params=["s3", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemotePath]:
    if request.param == "s3":
        server = request.getfixturevalue("server")
        server.forget()
        yield remote(server.bucket() + "/out")
        return
    yield remote(f"memory://{tmp_path.name}/out")
    fsspec.filesystem("memory").store.clear()


@contextmanager
def opened(out: RemotePath) -> Iterator[Journal]:
    with RemoteFolder(out).hold() as log:
        yield Journal(log)


def past_of(out: RemotePath, target: str) -> Past | None:
    return read_past(RemoteFolder(out).log()).get(target)


def write(out: RemotePath, *lines: Record | RunLine) -> None:
    with opened(out) as journal:
        for line in lines:
            journal.append(line)


def started(name: str) -> Record:
    return Record("started", name, f"/shoot/{name}.CR2")


def done(name: str) -> Record:
    return Record("done", name, f"/shoot/{name}.CR2", fingerprint="f")


def said(out: RemotePath) -> list[str]:
    lines = read_history(StoredLog(out))
    return [f"{line.status} {line.target}" for line in lines if isinstance(line, Record)]


def state_files(out: RemotePath) -> list[str]:
    return sorted(path.name for path in state_folder(out).glob("*"))


def break_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: RemotePath, content: bytes) -> None:
        raise OSError(errno.EIO, "the network is down")

    monkeypatch.setattr(store, "write", refuse)


def test_the_runs_journals_are_read_as_one(out: RemotePath) -> None:
    write(out, started("a"), done("a"), started("b"), RunLine("run-ended"))
    write(out, started("b"), done("b"), started("a"))
    for _ in range(2):  # reading changes nothing
        past = past_of(out, "a")
        assert past is not None
        assert past.done is not None
        assert (past.last.status, past.done.fingerprint) == ("started", "f")
        assert isinstance(list(read_history(StoredLog(out)))[3], RunLine)
        assert said(out) == [
            *("started a", "done a", "started b"),
            *("started b", "done b", "started a"),
        ]
    assert len([path for path in store.files_below(out) if "journal-" in path.name]) == 2
    assert state_files(out) == []


def test_a_folder_without_a_journal_knows_nothing_and_stays_so(out: RemotePath) -> None:
    assert past_of(out, "a") is None
    assert store.files_below(out) == {}


def test_every_line_is_stored_when_append_returns(out: RemotePath) -> None:
    with opened(out) as journal:
        for name in "abc":
            journal.append(done(name))
            assert past_of(out, name) is not None


def test_the_files_stay_small_and_in_order(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 500)
    names = [f"photo {number}" for number in range(40)]
    write(out, *map(started, names[:20]))
    write(out, *map(started, names[20:]))
    files = [stamp for path, stamp in store.files_below(out).items() if "journal-" in path.name]
    assert len(files) >= 8
    assert max(stamp.size for stamp in files) < 1000
    assert said(out) == [f"started {name}" for name in names]
    assert state_files(out) == []


def test_a_line_that_could_not_be_stored_is_stored_by_the_next_run_here(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(out) as journal:
        journal.append(started("a"))
        with monkeypatch.context() as patch:
            break_writing(patch)
            with pytest.raises(AbortError, match=r"cannot be written: .*network is down"):
                journal.append(done("a"))
    assert said(out) == ["started a"]
    write(out, started("b"))
    assert said(out) == ["started a", "done a", "started b"]
    assert state_files(out) == []


def test_a_line_that_did_not_fit_on_the_disk_here_comes_once(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, failures = os.fsync, [OSError(errno.ENOSPC, "no space left on device")]

    def full_once(descriptor: int) -> None:
        fsync(descriptor)
        if failures:
            raise failures.pop()

    with opened(out) as journal:
        journal.append(started("a"))
        journal.on_full = lambda: True
        monkeypatch.setattr(os, "fsync", full_once)
        journal.append(done("a"))
        (here,) = state_folder(out).glob("journal-*")
        assert here.read_text().count("\n") == 2
    assert not failures
    assert said(out) == ["started a", "done a"]


def test_a_second_run_is_refused_with_what_to_do(out: RemotePath) -> None:
    with (
        held(out),
        pytest.raises(AbortError, match=rf"process {os.getpid()} on .*remove \w+://.*/lock"),
        held(out),
    ):
        pass
    with held(out):  # free again
        pass
    assert store.files_below(out) == {}


def make_foreign(out: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another machine holds, or once held."""
    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "host_name", lambda: "elsewhere")
        patch.setattr(Lock, "release", Lock.stop_renewing)
        with held(out):
            pass


def test_another_machines_lock_counts_until_it_is_silent(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_foreign(out, monkeypatch)
    with pytest.raises(AbortError, match="on elsewhere since"), held(out):
        pass
    monkeypatch.setattr(lock_module, "STALE_S", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "check", lambda lock: None)
        write(out, done("a"))
    assert [path for path in store.files_below(out) if "journal-" not in path.name] == []


def test_the_lock_of_a_process_of_this_machine_that_is_gone_is_taken_at_once(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 2**22 + 1)  # above every process number there is
        patch.setattr(Lock, "release", Lock.stop_renewing)
        with held(out):
            pass
    write(out, done("a"))


def test_a_lock_that_is_not_understood_is_no_free_folder(out: RemotePath) -> None:
    path = out / ".dpbatch" / "lock"
    store.write(path, b"{")
    assert is_held(out)
    with pytest.raises(AbortError, match="on unknown since unknown"), held(out):
        pass


def test_who_asks_is_told_whether_a_run_holds_the_folder(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_held(out)
    with held(out):
        assert is_held(out)
    assert not is_held(out)
    make_foreign(out, monkeypatch)
    assert is_held(out)
    monkeypatch.setattr(lock_module, "STALE_S", -1.0)
    assert not is_held(out)


def test_a_lock_whose_making_was_not_answered_is_ours(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create

    def create_twice(path: RemotePath, content: bytes) -> None:
        create(path, content)
        create(path, content)

    monkeypatch.setattr(store, "create", create_twice)
    with held(out) as lock:
        lock.check()


def test_a_living_run_renews_its_lock(out: RemotePath) -> None:
    with held(out) as lock:
        path = out / ".dpbatch" / "lock"
        first = lock.last_renewed_s
        while lock.last_renewed_s == first:
            time.sleep(0.01)
        assert store.stamp_of(path).size > 0
        lock.check()


def has_lost(lock: Lock) -> bool:
    try:
        lock.check()
    except AbortError:
        return True
    return False


def test_a_run_whose_folder_was_taken_over_stops_at_its_next_line(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(out) as lock:
        journal = Journal(SegmentLog(out, lock.check))
        journal.append(done("a"))
        path = out / ".dpbatch" / "lock"
        other = lock_module.Holder("other", "elsewhere", 7, "now")
        store.write(path, other.encoded())
        while not has_lost(lock):
            # A beat between reading and writing may have won: then the other run stops.
            time.sleep(0.1)
            if lock_module.read_holder(path) != other:
                store.write(path, other.encoded())
        with pytest.raises(AbortError, match=r"process 7 on elsewhere .*taken over"):
            journal.append(done("b"))
    assert lock_module.read_holder(path) == other  # not ours to remove
    assert past_of(out, "b") is None


def test_a_run_that_cannot_renew_its_lock_stops_before_another_may_take_it(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(out) as lock:
        break_writing(monkeypatch)
        monkeypatch.setattr(lock_module, "STALE_S", 0.3)
        message = ""
        for _ in range(200):
            try:
                lock.check()
            except AbortError as error:
                message = str(error)
                break
            time.sleep(0.05)
    assert "could not be renewed" in message


def test_of_many_that_find_a_dead_lock_one_gets_it(
    out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_foreign(out, monkeypatch)
    monkeypatch.setattr(lock_module, "STALE_S", -1.0)
    monkeypatch.setattr(lock_module, "BEAT_S", 60.0)
    monkeypatch.setattr(lock_module, "_SETTLE_S", 2.0)
    got: list[Lock] = []
    refused: list[AbortError] = []
    all_tried = threading.Barrier(4)

    def try_it() -> None:
        try:
            with held(out) as lock:
                got.append(lock)
                all_tried.wait(20)
        except AbortError as error:
            refused.append(error)
            all_tried.wait(20)

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 3)


def test_a_place_that_cannot_be_written_is_told(server: S3Server) -> None:
    with pytest.raises(AbortError, match=r"s3://no-such-bucket/out: the output folder cannot be"):
        write(remote("s3://no-such-bucket/out"))
