"""The local engine: every job ends once, and what happens to a process costs one photo only."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dpbatch.engine.local import LocalEngine
from dpbatch.errors import AbortError
from dpbatch.types import Limits, Outcome, Processes, Status
from tests.helpers.toy_stages import (
    CrowdedStages,
    KilledAtStart,
    OverlappingStages,
    Toy,
    ToyStages,
)


def run(engine: LocalEngine[Toy, Any, Any], jobs: list[Toy]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for job, outcome in engine.run(jobs):
        assert job.name not in outcomes
        outcomes[job.name] = outcome
    return outcomes


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies have no command line
            if "spawn_main" in str(child.cmdline()):
                found.append(child)
    return found


def test_every_photo_goes_through_all_steps_unharmed_by_its_neighbours_end(tmp_path: Path) -> None:
    troubles = {
        "crashed-reading": "load:abort",
        "exited-reading": "load:exit",
        "damaged": "load:damaged",
        "ordinary": "load:ordinary",
        "surprise": "load:bug",
        "crashed-writing": "save:exit",
        "unwritable": "save:damaged",
    }
    jobs = [Toy("first", folder=tmp_path)]
    for name, trouble in troubles.items():
        jobs += [Toy(name, trouble, folder=tmp_path), Toy(f"after-{name}", folder=tmp_path)]
    log = tmp_path / "log"
    outcomes = run(LocalEngine(ToyStages(), Processes(loaders=2), log=log), jobs)

    assert set(outcomes) == {job.name for job in jobs}
    ended = {name: (o.status, o.stage, o.code) for name, o in outcomes.items() if name in troubles}
    assert ended == {
        "crashed-reading": (Status.FAILED, "load", "worker-crash"),
        "exited-reading": (Status.FAILED, "load", "worker-crash"),
        "damaged": (Status.FAILED, "load", "damaged"),
        "ordinary": (Status.SKIPPED, "load", "not-dual-pixel"),
        "surprise": (Status.FAILED, "load", "worker-crash"),
        "crashed-writing": (Status.FAILED, "save", "worker-crash"),
        "unwritable": (Status.FAILED, "save", "damaged"),
    }
    for name in set(outcomes) - set(troubles):
        assert outcomes[name].status is Status.DONE
        assert (tmp_path / name).read_bytes() == bytes([8]) * 100
    assert "SIGABRT" in outcomes["crashed-reading"].message
    assert "exit code 3" in outcomes["exited-reading"].message
    assert "ZeroDivisionError: this is unexpected" in outcomes["surprise"].message
    assert "make_trouble" in outcomes["surprise"].detail
    assert "Fatal Python error: Aborted" in log.read_text()
    assert not children()


def test_poison_is_tried_three_times_at_last_alone_and_harms_no_neighbour(tmp_path: Path) -> None:
    good = [Toy(f"good{n}", "", 100 + n, tmp_path) for n in range(20)]
    jobs = list(good)
    jobs.insert(3, Toy("kills-loading", "load:abort", folder=tmp_path))
    jobs.insert(9, Toy("kills-restoring", "", 666, tmp_path))
    tries, retries = tmp_path / "tries", []
    engine = LocalEngine(
        ToyStages(tries=tries),
        processes=Processes(loaders=2),
        on_retry=lambda job, why: retries.append((job.name, why)),
        log=tmp_path / "log",
    )
    outcomes = run(engine, jobs)

    assert all(outcomes[job.name].status is Status.DONE for job in good)
    failed = {name: o for name, o in outcomes.items() if o.status is not Status.DONE}
    assert {name: (o.stage, o.code) for name, o in failed.items()} == {
        "kills-loading": ("load", "worker-crash"),
        "kills-restoring": ("restore", "worker-crash"),
    }
    assert "killed by SIGABRT" in failed["kills-loading"].message
    assert "exit code 9" in failed["kills-restoring"].message
    assert all("tried 3 times, the last time alone" in o.message for o in failed.values())

    lines = tries.read_text().splitlines()
    expected = Counter(f"load {job.name}" for job in good)
    expected.update(f"restore {job.size}" for job in good)
    expected.update({"load kills-loading": 3, "load kills-restoring": 3, "restore 666": 3})
    assert Counter(lines) == expected
    # Each suspect waited until all others had ended.
    first_again = min(
        [n for n, line in enumerate(lines) if line == f"load {name}"][1] for name in failed
    )
    assert {line.split()[-1] for line in lines[first_again:]} == {*failed, "666"}
    assert sorted(name for name, _ in retries) == sorted([*failed, *failed])
    assert not children()


def test_a_crash_that_was_the_moments_fault_costs_nothing(tmp_path: Path) -> None:
    jobs = [Toy(f"{n}", folder=tmp_path) for n in range(4)]
    killed, outcomes = False, {}

    def kill_once(job: Toy, done: int, total: int) -> None:
        nonlocal killed
        if job.name == "1" and not killed:
            killed = True
            for child in children():  # the loader holds the next photo then
                child.kill()

    for job, outcome in LocalEngine(ToyStages(seconds={"restore": 0.3}), on_progress=kill_once).run(
        jobs
    ):
        assert job.name not in outcomes
        outcomes[job.name] = outcome.status
    assert outcomes == {f"{n}": Status.DONE for n in range(4)}


def test_a_photo_that_was_read_survives_the_end_of_the_restorer(tmp_path: Path) -> None:
    jobs = [Toy("poison", "", 666, tmp_path), Toy("next", folder=tmp_path)]
    tries = tmp_path / "tries"
    outcomes = run(LocalEngine(ToyStages(seconds={"restore": 0.5}, tries=tries)), jobs)
    assert outcomes["next"].status is Status.DONE
    assert tries.read_text().splitlines().count("load next") == 1


@pytest.mark.parametrize("size", [666, 668])  # the process exits; an exception ends it
def test_what_ends_the_restorer_costs_no_other_photo_there_a_try(tmp_path: Path, size: int) -> None:
    good = [Toy(f"good{n}", "", 100 + n, tmp_path) for n in range(8)]
    jobs = [*good[:3], Toy("poison", "", size, tmp_path), *good[3:]]
    retries, tries = [], tmp_path / "tries"
    engine = LocalEngine(
        ToyStages(seconds={"restore": 0.05}, tries=tries),
        Processes(2, 2, 2),
        on_retry=lambda job, why: retries.append(job.name),
        log=tmp_path / "log",
    )
    outcomes = run(engine, jobs)
    assert outcomes.pop("poison").code == "worker-crash"
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}
    assert retries == ["poison", "poison"]
    assert tries.read_text().splitlines().count("load poison") == 3
    assert {job.name for job in good} <= {path.name for path in tmp_path.iterdir()}
    assert not children()


@pytest.mark.slow
def test_a_photo_that_waits_for_one_that_hangs_is_not_overdue(tmp_path: Path) -> None:
    jobs = [Toy("hangs", "", 667, tmp_path), *(Toy(f"{n}", folder=tmp_path) for n in range(3))]
    retries: list[str] = []
    engine = LocalEngine(
        ToyStages(),
        Processes(2, 2, 2),
        limits=Limits(tries=1, step_s=6),
        on_retry=lambda job, why: retries.append(job.name),
    )
    outcomes = run(engine, jobs)
    assert "the time limit" in outcomes.pop("hangs").message
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}
    assert not retries


@pytest.mark.slow
def test_a_step_that_hangs_is_stopped_at_the_time_limit(tmp_path: Path) -> None:
    jobs = [
        Toy("save", "save:hang", folder=tmp_path),
        Toy("restore", "", 667, tmp_path),
        Toy("load", "load:hang", folder=tmp_path),
        *(Toy(f"{n}", folder=tmp_path) for n in range(4)),
    ]
    outcomes = run(LocalEngine(ToyStages(), limits=Limits(tries=1, step_s=6)), jobs)
    assert all(outcomes[f"{n}"].status is Status.DONE for n in range(4))
    for stage in ("load", "restore", "save"):
        hung = outcomes[stage]
        assert (hung.status, hung.stage, hung.code) == (Status.FAILED, stage, "worker-crash")
        assert "not done within 0.1 minutes, the time limit (--time-limit)" in hung.message
    assert not children()


@pytest.mark.slow
def test_a_picture_that_does_not_arrive_is_stopped_at_the_time_limit(tmp_path: Path) -> None:
    # The process that restores is frozen once the next picture, larger than a pipe, is on its way.
    frozen: list[psutil.Process] = []

    def freeze(job: Toy, done: int, total: int) -> None:
        if not frozen:
            # Those that restore and load; the one that saves begins to start only now.
            frozen.extend(sorted(children(), key=psutil.Process.create_time)[:2])
            for child in frozen:
                child.suspend()

    jobs = [Toy(f"{n}", "", 4_000_000 + n, tmp_path) for n in range(3)]
    limits = Limits(tries=3, step_s=5)
    retries: list[str] = []
    engine = LocalEngine(
        ToyStages(), limits=limits, on_progress=freeze, on_retry=lambda _, why: retries.append(why)
    )
    outcomes = run(engine, jobs)
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}
    assert retries
    assert all("the time limit (--time-limit)" in why for why in retries)


@pytest.mark.slow
def test_photos_that_wait_for_the_parent_are_not_overdue(tmp_path: Path) -> None:
    jobs = [Toy(f"{n}", folder=tmp_path) for n in range(5)]
    engine = LocalEngine(ToyStages(), limits=Limits(tries=1, step_s=6))
    statuses = []
    for _, outcome in engine.run(jobs):
        statuses.append(outcome.status)
        if len(statuses) == 1:
            time.sleep(7)  # as a run does that waits for room on the disk
    assert statuses == [Status.DONE] * 5


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_a_restorer_that_no_longer_answers_is_replaced(tmp_path: Path) -> None:
    size, stopped, outcomes = 3_000_000, False, {}  # more than a pipe holds
    for job, outcome in LocalEngine(ToyStages(), limits=Limits(step_s=5)).run(
        [Toy(f"{n}", "load:damaged" if n == 1 else "", size, tmp_path) for n in range(4)]
    ):
        outcomes[job.name] = outcome.status
        if not stopped:
            stopped = True
            restorer = min(children(), key=lambda child: child.create_time())
            restorer.send_signal(signal.SIGSTOP)
    expected = [Status.DONE, Status.FAILED, Status.DONE, Status.DONE]
    assert [outcomes[f"{n}"] for n in range(4)] == expected
    assert not children()


def test_a_process_that_never_gets_ready_ends_the_run(tmp_path: Path) -> None:
    engine = LocalEngine(ToyStages(setup="hang"), limits=Limits(step_s=3))
    with pytest.raises(AbortError, match="restore process could not start: stopped, not done"):
        run(engine, [Toy("a", folder=tmp_path)])
    assert not children()


def test_a_machine_on_which_every_process_dies_ends_the_run(tmp_path: Path) -> None:
    jobs = [Toy(f"{n}", "load:exit", folder=tmp_path) for n in range(9)]
    engine = LocalEngine(ToyStages(), limits=Limits(crashes_in_a_row=3))
    with pytest.raises(AbortError, match=r"3 photos in a row.*exit code 3"):
        run(engine, jobs)
    assert not children()


def test_photos_that_raise_do_not_end_the_run_before_the_good_ones(tmp_path: Path) -> None:
    jobs = [Toy(f"bug{n}", "load:bug", folder=tmp_path) for n in range(4)]
    engine = LocalEngine(ToyStages(), limits=Limits(tries=1, crashes_in_a_row=3))
    outcomes = run(engine, [*jobs, Toy("good", folder=tmp_path)])
    assert outcomes["good"].status is Status.DONE
    assert [outcomes[job.id].status for job in jobs] == [Status.FAILED] * 4


def test_large_pictures_arrive_whole(tmp_path: Path) -> None:
    size = 20_000_001  # some chunks and a rest
    run(LocalEngine(ToyStages()), [Toy("large", "", size, tmp_path)])
    assert np.array_equal(np.fromfile(tmp_path / "large", np.uint8), np.full(size, 8, np.uint8))


def test_steps_of_different_photos_overlap(tmp_path: Path) -> None:
    jobs = [Toy(str(n), "", n + 1, tmp_path) for n in range(5)]
    stages = OverlappingStages(tries=tmp_path / "tries", last=4)
    outcomes = run(LocalEngine(stages, limits=Limits(tries=1)), jobs)
    assert [outcome.status for outcome in outcomes.values()] == [Status.DONE] * 5


def test_the_next_photo_arrives_and_several_are_saved_while_one_is_restored(tmp_path: Path) -> None:
    jobs = [Toy(str(n), "", n + 1, tmp_path) for n in range(5)]
    stages = CrowdedStages(tries=tmp_path / "tries", last=4)
    engine = LocalEngine(stages, Processes(1, 2, 2), limits=Limits(tries=1))
    outcomes = run(engine, jobs)
    assert [outcome.status for outcome in outcomes.values()] == [Status.DONE] * 5
    assert all((tmp_path / job.name).read_bytes() == bytes([8]) * job.size for job in jobs)


def test_jobs_are_taken_only_as_fast_as_they_are_worked_on(tmp_path: Path) -> None:
    taken, ended, most_in_flight = 0, 0, 0

    def jobs() -> Any:
        nonlocal taken
        for number in range(12):
            taken += 1
            yield Toy(str(number), folder=tmp_path)

    for _ in LocalEngine(ToyStages(seconds={"restore": 0.02})).run(jobs()):
        most_in_flight = max(most_in_flight, taken - ended)
        ended += 1
    assert ended == 12
    assert most_in_flight <= 4  # one in each of the three processes, and the one just ended


def test_progress_and_seconds_are_those_of_the_photo(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    engine = LocalEngine(
        ToyStages(seconds={"load": 0.1, "restore": 0.2, "save": 0.05}),
        on_progress=lambda job, done, total: reported.append((job.name, done, total)),
    )
    outcomes = run(engine, [Toy("a", folder=tmp_path), Toy("b", folder=tmp_path)])
    assert reported == [("a", 1, 2), ("a", 2, 2), ("b", 1, 2), ("b", 2, 2)]
    for outcome in outcomes.values():
        seconds = outcome.seconds
        assert seconds.load >= 0.1
        assert seconds.restore >= 0.2
        assert seconds.save >= 0.05


def test_the_process_that_saves_starts_while_the_first_photo_is_restored(tmp_path: Path) -> None:
    processes: list[int] = []
    engine = LocalEngine(ToyStages(), on_progress=lambda *_: processes.append(len(children())))
    run(engine, [Toy("a", folder=tmp_path)])
    assert processes[0] == 3


def test_a_process_that_saves_and_is_killed_while_it_starts_is_started_again(
    tmp_path: Path,
) -> None:
    killed: list[psutil.Process] = []

    def kill_newest(job: Toy, done: int, total: int) -> None:
        if not killed:
            killed.append(max(children(), key=psutil.Process.create_time))
            killed[0].kill()

    outcomes = run(LocalEngine(ToyStages(), on_progress=kill_newest), [Toy("a", folder=tmp_path)])
    assert outcomes["a"].status is Status.DONE
    assert killed


@pytest.mark.parametrize("trouble", ["exit", "bug", "damaged"])
def test_a_restorer_that_cannot_be_built_ends_the_run(tmp_path: Path, trouble: str) -> None:
    with pytest.raises(AbortError, match="restore process could not start"):
        run(LocalEngine(ToyStages(setup=trouble)), [Toy("a", folder=tmp_path)])
    assert not children()


@pytest.mark.parametrize("killed", [2, 3])
def test_a_process_that_replaces_another_may_be_killed_twice_at_its_start(
    tmp_path: Path, killed: int
) -> None:
    # "poison" ends the restorer; starting another one takes the most memory of all.
    jobs = [Toy("poison", "", 666, tmp_path), Toy("a", folder=tmp_path), Toy("b", folder=tmp_path)]
    engine = LocalEngine(KilledAtStart(tries=tmp_path / "tries", killed=killed))
    if killed > 2:
        with pytest.raises(AbortError, match="could not start: killed by SIGKILL"):
            run(engine, jobs)
    else:
        outcomes = run(engine, jobs)
        assert [outcomes[name].status for name in ("a", "b")] == [Status.DONE] * 2
        assert outcomes["poison"].status is Status.FAILED
    assert not children()


@pytest.mark.parametrize("processes", [Processes(), Processes(3, 2, 2)])
def test_a_stop_finishes_what_is_restored_and_gives_up_the_rest(
    tmp_path: Path, processes: Processes
) -> None:
    stop = False
    engine = LocalEngine(ToyStages(seconds={"save": 0.5}), processes, should_stop=lambda: stop)
    outcomes: dict[str, Outcome] = {}
    for job, outcome in engine.run([Toy(str(n), folder=tmp_path) for n in range(50)]):
        outcomes[job.name] = outcome
        stop = True
    assert 1 <= len(outcomes) <= 2 + processes.savers + processes.photos_at_restorer - 1
    assert all(outcome.status is Status.DONE for outcome in outcomes.values())
    assert {path.name for path in tmp_path.iterdir()} == set(outcomes)  # also no part of a file


def test_a_process_that_died_while_idle_costs_nothing(tmp_path: Path) -> None:
    statuses = []
    for job, outcome in LocalEngine(ToyStages()).run(
        [Toy(str(n), folder=tmp_path, trouble="load:damaged" if n < 2 else "") for n in range(4)]
    ):
        statuses.append(outcome.status)
        if job.name == "0":
            time.sleep(0.5)  # the loader has reported its photo and waits for the next one
            max(children(), key=lambda child: child.create_time()).kill()
            time.sleep(0.2)
    assert statuses == [Status.FAILED, Status.FAILED, Status.DONE, Status.DONE]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_request_a_stop_leave_the_processes_alone(
    tmp_path: Path, number: signal.Signals
) -> None:
    statuses = []
    engine = LocalEngine(ToyStages(seconds={"restore": 0.05}), limits=Limits(tries=1))
    for _, outcome in engine.run([Toy(str(n), folder=tmp_path) for n in range(6)]):
        statuses.append(outcome.status)
        for child in children():
            child.send_signal(number)
    assert statuses == [Status.DONE] * 6
    assert not children()


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from dpbatch.engine.local import LocalEngine\n"
        "from tests.helpers.toy_stages import Toy, ToyStages\n"
        "if __name__ == '__main__':\n"
        "    stages = ToyStages(seconds={'load': 0.1, 'restore': 60})\n"
        f"    jobs = [Toy(str(n), folder=Path({str(tmp_path)!r})) for n in range(3)]\n"
        "    list(LocalEngine(stages).run(jobs))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        process = psutil.Process(parent.pid)
        deadline = time.monotonic() + 20
        while len(process.children()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        orphans = process.children()
        assert len(orphans) >= 2
        time.sleep(0.5)
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(orphans, timeout=10)
    assert not alive
