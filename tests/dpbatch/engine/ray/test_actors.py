"""How many actors a cluster gets, and with what; no cluster is started."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from dpbatch.engine.ray import actors
from dpbatch.engine.ray.actors import Pool
from dpbatch.engine.ray.cluster import Node
from dpbatch.errors import AbortError
from dpbatch.types import ClusterOptions


class Recorded:
    """In the place of an actor: remembers what it was made with."""

    def __init__(self, node: Node, stages: object, gpus: float, threads: int) -> None:
        self.node, self.address, self.gpus, self.threads = node.id, node.address, gpus, threads
        self.call = None
        made.append((node.id, gpus, threads))


made: list[tuple[str, float, int]] = []


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    monkeypatch.setattr(actors, "Actor", Recorded)


def node(name: str, cpus: float, gpus: float = 0) -> Node:
    return Node(name, f"10.0.0.{name}", cpus, gpus, 1e9)


def test_each_gpu_gets_an_actor_and_its_share_of_the_processors() -> None:
    warnings: list[str] = []
    pool = Pool(None, ClusterOptions(), warnings.append)
    pool.update([node("1", 16, 2), node("2", 8, 1), node("3", 4)])
    assert made == [("1", 1.0, 8), ("1", 1.0, 8), ("2", 1.0, 8)]
    pool.update([node("1", 16, 2), node("2", 8, 1), node("3", 4), node("4", 12, 1)])
    assert made[3:] == [("4", 1.0, 12)]
    assert warnings == []


def test_without_a_gpu_each_node_restores_on_its_processors() -> None:
    warnings: list[str] = []
    pool = Pool(None, ClusterOptions(), warnings.append)
    pool.update([node("1", 16), node("2", 8), node("3", 0)])
    assert sorted(made) == [("1", 0.0, 16), ("2", 0.0, 8)]
    assert [text for text in warnings if "no GPU" in text] == warnings
    assert len(warnings) == 1
    pool.update([node("1", 16), node("2", 8), node("3", 0)])
    assert (len(made), len(warnings)) == (2, 1)


def test_shares_of_gpus_that_nobody_has_are_an_error_that_names_the_way_out() -> None:
    pool = Pool(None, ClusterOptions(gpus_per_actor=0.5), lambda text: pytest.fail(text))
    with pytest.raises(AbortError, match=r"0\.5 GPUs.*--cpu-actors"):
        pool.update([node("1", 16)])


def test_actors_on_processors_spread_over_the_nodes_and_share_each() -> None:
    pool = Pool(None, ClusterOptions(cpu_actors=3), lambda text: pytest.fail(text))
    pool.update([node("1", 16), node("2", 8)])
    assert sorted(made) == [("1", 0.0, 8), ("1", 0.0, 8), ("2", 0.0, 8)]


def test_actors_that_no_node_has_room_for_are_asked_for_and_built_when_nodes_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, float]] = []
    monkeypatch.setattr(actors, "request_gpus", lambda *request: asked.append(request))
    pool = Pool(None, ClusterOptions(gpu_actors=2), lambda text: pytest.fail(text))
    assert asked == [(2, 1.0)]
    pool.update([node("1", 16)])
    assert (made, pool.size) == ([], 0)
    pool.update([node("1", 16), node("2", 8, 1)])
    assert made == [("2", 1.0, 8)]
    monkeypatch.setattr(Recorded, "kill", lambda self: None, raising=False)
    pool.close()
    assert asked[1:] == [(0, 1.0)]
