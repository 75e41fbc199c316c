"""The local engine: every job ends once, and what happens to a process costs one photo only."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from dpbatch.engine.local import LocalEngine
from dpbatch.engine.stages import Outcome, Status
from dpbatch.errors import AbortError
from tests.toy_stages import Toy, ToyStages


def run(engine: LocalEngine, jobs: list[Toy]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for job, outcome in engine.run(jobs):
        assert job.name not in outcomes
        outcomes[job.name] = outcome
    return outcomes


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spawn_main" in str(child.cmdline())]


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
    outcomes = run(LocalEngine(ToyStages(), loaders=2, log=log), jobs)

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
    assert "ZeroDivisionError: nobody foresaw this" in outcomes["surprise"].message
    assert "make_trouble" in outcomes["surprise"].detail
    assert "Fatal Python error: Aborted" in log.read_text()
    assert not children()


def test_a_crash_while_restoring_costs_one_photo_and_a_fresh_process_does_the_rest(
    tmp_path: Path,
) -> None:
    sizes = {"before": 10, "poison": 666, "after": 20}
    outcomes = run(
        LocalEngine(ToyStages()), [Toy(name, "", size, tmp_path) for name, size in sizes.items()]
    )
    assert [outcomes[name].status for name in sizes] == [Status.DONE, Status.FAILED, Status.DONE]
    assert (outcomes["poison"].stage, outcomes["poison"].code) == ("restore", "worker-crash")


def test_large_pictures_arrive_whole(tmp_path: Path) -> None:
    size = 20_000_001  # some chunks and a rest
    run(LocalEngine(ToyStages()), [Toy("large", "", size, tmp_path)])
    assert np.array_equal(np.fromfile(tmp_path / "large", np.uint8), np.full(size, 8, np.uint8))


def test_steps_of_different_photos_overlap(tmp_path: Path) -> None:
    step_s, photos = 0.3, 6
    engine = LocalEngine(ToyStages(seconds={"load": step_s, "restore": step_s, "save": step_s}))
    start, times = time.monotonic(), []
    for _ in engine.run([Toy(str(n), folder=tmp_path) for n in range(photos)]):
        times.append(time.monotonic() - start)
    # From the first result on, one photo a step: not three steps a photo.
    assert times[-1] - times[0] < 2 * step_s * (photos - 1)


def test_jobs_are_drawn_only_as_fast_as_they_are_worked_on(tmp_path: Path) -> None:
    drawn, ended, most_in_flight = 0, 0, 0

    def jobs() -> Any:
        nonlocal drawn
        for number in range(12):
            drawn += 1
            yield Toy(str(number), folder=tmp_path)

    for _ in LocalEngine(ToyStages(seconds={"restore": 0.02})).run(jobs()):
        most_in_flight = max(most_in_flight, drawn - ended)
        ended += 1
    assert ended == 12
    assert most_in_flight <= 4  # one in each of the three processes, and the one just ended


def test_progress_and_seconds_are_those_of_the_photo(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    engine = LocalEngine(
        ToyStages(seconds={"load": 0.1, "restore": 0.2, "save": 0.05}),
        on_progress=lambda job, done, of: heard.append((job.name, done, of)),
    )
    outcomes = run(engine, [Toy("a", folder=tmp_path), Toy("b", folder=tmp_path)])
    assert heard == [("a", 1, 2), ("a", 2, 2), ("b", 1, 2), ("b", 2, 2)]
    for outcome in outcomes.values():
        seconds = outcome.seconds
        assert seconds.load >= 0.1
        assert seconds.restore >= 0.2
        assert seconds.save >= 0.05


@pytest.mark.parametrize("trouble", ["exit", "bug", "damaged"])
def test_a_restorer_that_cannot_be_built_ends_the_run(tmp_path: Path, trouble: str) -> None:
    with pytest.raises(AbortError, match="restore process could not start"):
        run(LocalEngine(ToyStages(setup=trouble)), [Toy("a", folder=tmp_path)])
    assert not children()


def test_a_stop_finishes_what_is_restored_and_gives_up_the_rest(tmp_path: Path) -> None:
    stop = False
    engine = LocalEngine(ToyStages(seconds={"save": 0.5}), should_stop=lambda: stop)
    outcomes: dict[str, Outcome] = {}
    for job, outcome in engine.run([Toy(str(n), folder=tmp_path) for n in range(50)]):
        outcomes[job.name] = outcome
        stop = True
    assert 1 <= len(outcomes) <= 3
    assert all(outcome.status is Status.DONE for outcome in outcomes.values())
    assert {path.name for path in tmp_path.iterdir()} == set(outcomes)  # also no part of a file


def test_a_process_that_died_while_idle_costs_nothing(tmp_path: Path) -> None:
    statuses = []
    for job, outcome in LocalEngine(ToyStages()).run(
        [Toy(str(n), folder=tmp_path, trouble="load:damaged" if n < 2 else "") for n in range(4)]
    ):
        statuses.append(outcome.status)
        if job.name == "0":
            time.sleep(0.5)  # the loader has told of its photo and waits for the next one
            max(children(), key=lambda child: child.create_time()).kill()
            time.sleep(0.2)
    assert statuses == [Status.FAILED, Status.FAILED, Status.DONE, Status.DONE]


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from dpbatch.engine.local import LocalEngine\n"
        "from tests.toy_stages import Toy, ToyStages\n"
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
