"""How a run is ended from outside, and that there is only one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from dpbatch.batch.status import read_status
from dpbatch.batch.stop import StopSignal
from dpbatch.errors import AbortError
from tests.helpers.toy_runs import (
    REPOSITORY,
    go,
    journal_text,
    start_toy_run,
    visible,
    wait_for,
    write_pair,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    for number in range(6):
        write_pair(tmp_path / "shoot", f"{number}")
    return tmp_path / "shoot"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def half_written(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*.dpbatch-*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("request_stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_file_being_written_and_the_next_run_goes_on(
    shoot: Path, out: Path, request_stop: signal.Signals
) -> None:
    for number in range(6, 20):
        write_pair(shoot, f"{number}")
    process = start_toy_run(shoot, out, save_s=0.3)
    wait_for(lambda: journal_text(out).count('"done"') >= 2)
    children = psutil.Process(process.pid).children()
    # A terminal sends it to every process of the group, a service manager to those of the service.
    for receiver in (*children, psutil.Process(process.pid)):
        receiver.send_signal(request_stop)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in text
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive

    files = visible(out)
    assert 2 <= len(files) < 20
    assert all(b"slexip" in content for content in files.values())
    assert journal_text(out).count('"done"') == len(files)
    rest = go(shoot, out)
    assert rest.code == 0
    assert Counter(rest.codes.values()) == {"already-done": len(files), "done": 20 - len(files)}


@pytest.mark.parametrize("request_stop", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_requests_a_stop_and_the_second_interrupts(
    request_stop: signal.Signals,
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignal() as stop:
        assert not stop.is_requested()
        os.kill(os.getpid(), request_stop)
        assert stop.is_requested()
        assert stop.is_interrupted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), request_stop)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.slow
def test_after_kill_9_nothing_is_torn_lost_or_done_twice(shoot: Path, out: Path) -> None:
    for number in range(6, 12):
        write_pair(shoot, f"{number}")
    process = start_toy_run(shoot, out, save_s=0.4)
    parts = lambda: [p for p in out.rglob(".*.tif") if ".dpbatch" not in p.parts]  # noqa: E731
    wait_for(lambda: journal_text(out).count('"done"') >= 2 and parts())
    children = psutil.Process(process.pid).children()
    process.kill()  # while a file is being written
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive

    done = journal_text(out).count('"done"')
    whole = {name: content for name, content in visible(out).items() if not name.startswith(".")}
    assert all(b"slexip" in content for content in whole.values())
    assert len(whole) in (done, done + 1)  # the journal's line is written after the file
    rest = go(shoot, out)
    assert rest.code == 0
    assert Counter(rest.codes.values()) == {"already-done": done, "done": 12 - done}
    assert len(visible(out)) == 12  # and what the killed run left half written is gone


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once_and_leaves_nothing_half_written(shoot: Path, out: Path) -> None:
    import pty

    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "tests.helpers.toy_run", str(shoot), str(out), "60"]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(terminal)
    said = b""
    try:
        wait_for(lambda: half_written(out))
        children = psutil.Process(process.pid).children()
        os.write(keyboard, b"\x03")
        while b"Ctrl-C again stops at once" not in said:
            said += os.read(keyboard, 4096)
        assert process.poll() is None  # it is still writing, for a minute
        os.write(keyboard, b"\x03")
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
    assert process.returncode != 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not half_written(out)
    assert not visible(out)
    run = read_status(out).latest_run
    assert run is not None
    assert (run.state, run.exit_code, run.message, run.done) == ("ended", 130, "interrupted", 0)
    assert set(go(shoot, out).codes.values()) == {"done"}


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused_and_harms_nothing(
    shoot: Path, out: Path
) -> None:
    process = start_toy_run(shoot, out, save_s=1)
    try:
        wait_for(lambda: journal_text(out).count('"done"') >= 1)
        with pytest.raises(AbortError, match="another dpbatch is writing there"):
            go(shoot, out)
        process.communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == 0
    assert len(visible(out)) == 6
    assert journal_text(out).count('"run-started"') == 1
