"""The Ray engine: what the local one promises, and what a cluster adds."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from dpbatch.engine.local import LocalEngine
from dpbatch.errors import AbortError
from dpbatch.types import Engine, Limits, Outcome, Processes, Status
from tests.helpers.ray_helpers import one_node
from tests.helpers.toy_runs import wait_for
from tests.helpers.toy_stages import OwnMemoryToys, Toy, ToyStages

ray = pytest.importorskip("ray")


from dpbatch.engine.node_check import node_check  # noqa: E402
from dpbatch.engine.ray.cluster import check_nodes, living_nodes  # noqa: E402
from dpbatch.engine.ray.engine import RayEngine  # noqa: E402
from dpbatch.storage.shared import shared_check  # noqa: E402
from dpbatch.types import ClusterOptions  # noqa: E402

TWO = ClusterOptions(cpu_actors=2)

pytestmark = pytest.mark.slow  # a cluster is started


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of one node for all tests of this file, which joins it first."""
    with one_node(3):
        yield


def run(engine: Engine[Toy], jobs: list[Toy]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for job, outcome in engine.run(jobs):
        assert job.name not in outcomes
        outcomes[job.name] = outcome
    return outcomes


def make(kind: str, stages: ToyStages, **options: Any) -> Engine[Toy]:
    if kind == "local":
        return LocalEngine(stages, Processes(options.pop("loaders", 1)), **options)
    return RayEngine(stages, TWO, **options)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["local", "ray"])
def test_poison_is_tried_three_times_and_harms_no_neighbour(tmp_path: Path, kind: str) -> None:
    jobs = [Toy(f"good{number}", "", 10 + number, tmp_path) for number in range(20)]
    jobs.insert(3, Toy("crashes-reading", "load:abort", 5, tmp_path))
    jobs.insert(9, Toy("kills-the-restorer", "", 666, tmp_path))
    tries = tmp_path / "tries"
    outcomes = run(make(kind, ToyStages(tries=tries), loaders=2), jobs)

    assert Counter(outcome.status for outcome in outcomes.values()) == {
        Status.DONE: 20,
        Status.FAILED: 2,
    }
    for name, stage in (("crashes-reading", "load"), ("kills-the-restorer", "restore")):
        outcome = outcomes[name]
        assert (outcome.status, outcome.stage, outcome.code) == (
            Status.FAILED,
            stage,
            "worker-crash",
        )
        assert "tried 3 times, the last time alone" in outcome.message
    counts = Counter(tries.read_text().splitlines())
    assert counts["load crashes-reading"] == 3
    assert counts["restore 666"] == 3
    for number in range(20):
        assert (tmp_path / f"good{number}").read_bytes() == bytes([8]) * (10 + number)
        assert counts[f"restore {10 + number}"] == 1


@pytest.mark.usefixtures("cluster")
def test_an_expected_error_is_final_and_an_unexpected_one_has_its_traceback(
    tmp_path: Path,
) -> None:
    tries = tmp_path / "tries"
    troubles = {
        "damaged": "load:damaged",
        "ordinary": "load:ordinary",
        "surprise": "load:bug",
        "unwritable": "save:damaged",
    }
    jobs = [Toy(name, trouble, folder=tmp_path) for name, trouble in troubles.items()]
    outcomes = run(RayEngine(ToyStages(tries=tries), TWO), jobs)
    assert {name: (o.status, o.stage, o.code) for name, o in outcomes.items()} == {
        "damaged": (Status.FAILED, "load", "damaged"),
        "ordinary": (Status.SKIPPED, "load", "not-dual-pixel"),
        "surprise": (Status.FAILED, "load", "worker-crash"),
        "unwritable": (Status.FAILED, "save", "damaged"),
    }
    assert "ZeroDivisionError: this is unexpected" in outcomes["surprise"].message
    assert "make_trouble" in outcomes["surprise"].detail
    counts = Counter(tries.read_text().splitlines())
    assert [counts[f"load {name}"] for name in troubles] == [1, 1, 3, 1]


@pytest.mark.usefixtures("cluster")
def test_a_step_that_hangs_is_stopped_at_the_time_limit(tmp_path: Path) -> None:
    hanging = {"load": 100, "restore": 667, "save": 100}
    jobs = [Toy(stage, f"{stage}:hang", size, tmp_path) for stage, size in hanging.items()]
    jobs += [Toy(f"good{number}", folder=tmp_path) for number in range(4)]
    limits = Limits(tries=1, step_s=8.0)
    outcomes = run(RayEngine(ToyStages(), TWO, limits=limits), jobs)
    for stage in hanging:
        assert (outcomes[stage].status, outcomes[stage].stage) == (Status.FAILED, stage)
        assert "time limit" in outcomes[stage].message
    assert Counter(outcome.status for outcome in outcomes.values())[Status.DONE] == 4


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("trouble", ["exit", "bug", "damaged"])
def test_a_restorer_that_cannot_be_built_ends_the_run(tmp_path: Path, trouble: str) -> None:
    with pytest.raises(AbortError, match="restore process could not start on node"):
        run(RayEngine(ToyStages(setup=trouble), TWO), [Toy("a", folder=tmp_path)])


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_gpus_restores_on_processors(tmp_path: Path) -> None:
    warnings: list[str] = []
    engine = RayEngine(ToyStages(), on_warning=warnings.append)
    assert run(engine, [Toy("a", folder=tmp_path)])["a"].status is Status.DONE
    assert len([text for text in warnings if "no GPU in the cluster" in text]) == 1


@pytest.mark.usefixtures("cluster")
def test_a_stop_finishes_what_is_restored_and_gives_up_the_rest(tmp_path: Path) -> None:
    stop = False
    engine = RayEngine(ToyStages(seconds={"save": 0.5}), TWO, should_stop=lambda: stop)
    outcomes: dict[str, Outcome] = {}
    for job, outcome in engine.run([Toy(str(n), folder=tmp_path) for n in range(50)]):
        outcomes[job.name] = outcome
        stop = True
    assert 1 <= len(outcomes) <= 8
    assert all(outcome.status is Status.DONE for outcome in outcomes.values())
    assert {path.name for path in tmp_path.iterdir()} == set(outcomes)


@pytest.mark.usefixtures("cluster")
def test_an_idle_actor_that_dies_costs_nothing(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    engine = RayEngine(ToyStages(tries=tries), ClusterOptions(cpu_actors=1), loaders=1)
    jobs = (Toy(str(n), "load:damaged" if n < 4 else "", 10, tmp_path) for n in range(6))
    statuses = []
    for job, outcome in engine.run(jobs):
        statuses.append(outcome.status)
        if job.name == "0":
            wait_for(lambda: actors())
            for process in actors():
                process.kill()
            time.sleep(0.5)
    assert Counter(statuses) == {Status.FAILED: 4, Status.DONE: 2}
    assert Counter(tries.read_text().splitlines())["restore 10"] == 2


@pytest.mark.usefixtures("cluster")
def test_the_next_photo_is_in_the_actors_memory_before_its_turn(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    stages = OwnMemoryToys(tries=tries, photos=6)
    sizes = range(200_000, 200_006)  # larger than what Ray passes along with a call
    jobs = [Toy(str(size), "", size, tmp_path) for size in sizes]
    engine = RayEngine(stages, ClusterOptions(cpu_actors=1), loaders=2)
    outcomes = run(engine, jobs)
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}
    counts = Counter(tries.read_text().splitlines())
    assert [counts[f"restore {size}"] for size in sizes] == [1] * 6
    # Whether loading a further one ends in time is up to the machine.
    assert sum(counts[f"own {size}"] for size in sizes) >= 1


@pytest.mark.usefixtures("cluster")
def test_every_node_is_checked_before_the_first_photo(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    shoot.mkdir()
    files_check = partial(shared_check, (shoot,), out)
    fit, unfit = (
        partial(node_check, (model,), files_check) for model in ("tiny", "no-such-network")
    )
    jobs = [Toy("a", folder=tmp_path)]
    assert run(RayEngine(ToyStages(), TWO, open_check=fit), jobs)["a"].status is Status.DONE
    assert not list((out / ".dpbatch").iterdir())
    with pytest.raises(AbortError, match=r"no-such-network"):
        run(RayEngine(ToyStages(), TWO, open_check=unfit), jobs)


@pytest.mark.usefixtures("cluster")
def test_a_node_that_leaves_while_it_is_checked_is_no_obstacle() -> None:
    here = living_nodes()
    gone = replace(here[0], id="1" * len(here[0].id), address="192.0.2.1")
    warnings: list[str] = []
    check_nodes([gone, *here], lambda: "", warnings.append)
    check_nodes([gone], lambda: "", warnings.append)
    assert [text for text in warnings if "192.0.2.1" in text] == [
        "warning: node 192.0.2.1 left the cluster before the first photo"
    ] * 2
    with pytest.raises(AbortError, match="lacks a lens"):
        check_nodes([gone, *here], lambda: "lacks a lens", warnings.append)

    def broken() -> str:
        raise RuntimeError("no Python of that version")

    with pytest.raises(AbortError, match=r"(?s)could not be checked: .*no Python of that version"):
        check_nodes(here, broken, warnings.append)


def actors() -> list[psutil.Process]:
    """The processes of this test's cluster that hold a network."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies have no command line either
            if "Restorer" in "".join(child.cmdline()[:1]):
                found.append(child)
    return found
