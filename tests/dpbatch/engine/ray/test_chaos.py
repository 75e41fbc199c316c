"""A Ray cluster of three nodes on which things die: in the end every photo is done, once."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from dpbatch.types import Outcome, Status
from tests.helpers.ray_helpers import (
    ENVIRONMENT,
    LONGEST_S,
    count_done,
    records,
    start_ray_run,
)
from tests.helpers.toy_runs import wait_for, write_pair
from tests.helpers.toy_stages import Toy, ToyStages

pytest.importorskip("ray")

SEEDS = int(os.environ.get("DPBATCH_CHAOS_SEEDS", "3"))
PHOTOS = 60
# A node that died counts as dead after 5 s; one that only waited for a processor does not.
SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 10}


class Nodes:
    """A head, which computes nothing, and three nodes that do; what dies is only ever ours."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SOON}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[Any] = []
        self.fill()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def fill(self) -> None:
        while len(self._nodes) < 3:
            self._nodes.append(self._cluster.add_node(num_cpus=2, object_store_memory=100 << 20))

    def workers(self, step: str) -> list[psutil.Process]:
        """The processes that are at a step: load, save, or those that hold a network."""
        found = []
        for node in self._nodes:
            (raylet,) = node.all_processes["raylet"]
            for child in psutil.Process(raylet.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # zombies have no command line
                    if "".join(child.cmdline()[:1]).startswith(f"ray::{step}"):
                        found.append(child)
        return found

    def kill_one(self, rng: random.Random) -> None:
        node = rng.choice(self._nodes)
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.end()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_dies_every_photo_is_done_once(nodes: Nodes, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    nodes.fill()
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    names = [f"{number:02}" for number in range(PHOTOS)]
    for name in names:
        write_pair(shoot / f"day {int(name) % 3}", name)

    driver = start(shoot, out, nodes)
    deaths: list[Callable[[], None]] = [
        lambda: kill_one_of(nodes, "Restorer", rng),
        lambda: kill_one_of(nodes, "load", rng),
        lambda: nodes.kill_one(rng),
        lambda: kill(driver),
    ]
    rng.shuffle(deaths)
    moments = sorted(rng.sample(range(2, PHOTOS - 15), len(deaths)))
    for moment, death in zip(moments, deaths, strict=True):
        wait_for(partial(has_done, out, moment), driver, LONGEST_S)
        death()
        if driver.poll() is not None:
            driver = start(shoot, out, nodes)
    said, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, said

    done = Counter(record["target"] for record in records(out) if record["status"] == "done")
    assert done == Counter(f"day {int(name) % 3}/{name}.tif" for name in names)
    files = {path for path in out.rglob("*") if path.is_file() and ".dpbatch" not in path.parts}
    assert {path.relative_to(out).as_posix() for path in files} == set(done)
    for path in files:
        assert path.read_bytes() == f"pixels of {path.stem}".encode()[::-1]
    assert not [path for path in (out / ".dpbatch").iterdir() if path.name.startswith("probe")]


def start(shoot: Path, out: Path, nodes: Nodes) -> subprocess.Popen[str]:
    return start_ray_run(shoot, out, nodes.address, actors=4, save_s=0.05)


def has_done(out: Path, photos: int) -> bool:
    return count_done(out) >= photos


def kill(driver: subprocess.Popen[str]) -> None:
    driver.kill()
    driver.communicate()


def kill_one_of(nodes: Nodes, step: str, rng: random.Random) -> None:
    workers: list[psutil.Process] = []

    def found() -> bool:
        workers[:] = nodes.workers(step)
        return bool(workers)

    wait_for(found, timeout_s=LONGEST_S)
    rng.choice(sorted(workers, key=lambda process: process.pid)).kill()


@pytest.mark.slow
def test_actors_follow_the_gpus_of_the_cluster(tmp_path: Path) -> None:
    """GPUs on paper: two actors on each; a node joins, the other one leaves."""
    import ray
    from ray.cluster_utils import Cluster

    from dpbatch.engine.ray.engine import RayEngine
    from dpbatch.types import ClusterOptions

    os.environ.update(ENVIRONMENT)
    head = {"num_cpus": 2, "include_dashboard": False, "_system_config": SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        first = cluster.add_node(num_cpus=0, num_gpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        busy: list[int] = []
        notes: list[str] = []
        engine = RayEngine(
            ToyStages(seconds={"restore": 0.2}),
            ClusterOptions(gpus_per_actor=0.5),
            on_busy=lambda shares: busy.append(len(shares)),
            on_warning=notes.append,
        )
        jobs = (Toy(str(number), folder=tmp_path) for number in itertools.count())
        statuses: Counter[Status] = Counter()
        with contextlib.closing(cast(Generator[tuple[Toy, Outcome]], engine.run(jobs))) as outcomes:
            until = take(outcomes, statuses)
            until(lambda: busy[-1:] == [2])
            cluster.add_node(num_cpus=0, num_gpus=2)
            until(lambda: busy[-1] == 6)
            cluster.remove_node(first, allow_graceful=False)
            until(lambda: busy[-1] == 4 and bool(notes))  # actors end before their node is missed
            assert "has left the cluster" in notes[0]
        assert set(statuses) == {Status.DONE}
    finally:
        ray.shutdown()
        cluster.shutdown()


def take(
    outcomes: Iterator[tuple[Any, Outcome]], statuses: Counter[Status]
) -> Callable[[Callable[[], bool]], None]:
    """A function that lets a run go on until something is so."""

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 3 * LONGEST_S
        for job, outcome in outcomes:
            statuses[outcome.status] += 1
            assert time.monotonic() < deadline, job
            if condition():
                return

    return until
