"""How many photos the Ray engine has in flight."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from dpbatch.engine.ray.cluster import Node, actor_memory, task_memory
from dpbatch.engine.ray.window import Window

GIB = 2**30


def window(
    actors: int, *, loaders: int = 0, nodes: int = 1, cpus: float = 32, store_gib: float = 1000
) -> Window:
    made = Window(loaders)
    one = Node("a", "10.0.0.1", cpus / nodes, 0, store_gib * GIB / nodes)
    made.update([one] * nodes, actors)
    return made


def test_it_is_small_until_the_size_of_a_photo_is_known() -> None:
    assert window(8).size == 2
    assert window(8, nodes=3).size == 6
    assert window(1, loaders=1, nodes=9).size == 3


def test_then_it_is_twice_the_actors_and_the_loaders_as_far_as_memory_reaches() -> None:
    made = window(8, loaders=4, store_gib=100)
    made.record("load", 1.0, GIB)
    assert made.size == 2 * 8 + 4
    made.record("load", 1.0, 5 * GIB)
    assert made.size == 10  # half of 100 GiB
    made.record("load", 1.0, GIB)
    assert made.size == 10  # another one may be as large
    made.record("load", 1.0, 90 * GIB)
    assert made.size == 1


def test_there_are_as_many_loaders_as_the_actors_need() -> None:
    made = window(4)
    made.record("load", 6.0, 1)
    made.record("restore", 2.0, 1)
    made.record("save", 2.0, 0)
    assert made.size == 2 * 4 + 4 * (6 + 2) // 2
    slow = window(4)
    slow.record("load", 0.1, 1)
    slow.record("restore", 100.0, 1)
    assert slow.size == 2 * 4 + 1
    few = window(4, cpus=3)
    few.record("load", 60.0, 1)
    few.record("restore", 0.0, 1)
    assert few.size == 2 * 4 + 3


def test_it_adapts_to_the_cluster() -> None:
    made = window(2, loaders=1)
    made.record("load", 1.0, 1)
    assert made.size == 5
    made.update([Node("a", "10.0.0.1", 8, 4, 10 * GIB)], 4)
    assert made.size == 9
    made.update([], 0)
    assert made.size == 1  # nothing fits, and it goes on once there is something again


def test_too_little_memory_is_reported_once() -> None:
    made = window(8, store_gib=10)
    assert made.warning() == ""
    made.record("load", 1.0, GIB)
    assert "10.0 GiB holds 5 photos" in made.warning()
    assert made.warning() == ""
    roomy = window(4, store_gib=10)
    roomy.record("load", 1.0, GIB)
    assert roomy.warning() == ""


def test_steps_state_their_memory_and_leave_each_other_room() -> None:
    large, small = (Node("a", "10.0.0.1", 8, 1, GIB, gib * GIB) for gib in (64, 4))
    assert task_memory([large]) == {"memory": GIB}
    assert task_memory([large, small]) == {"memory": GIB}
    tiny = Node("b", "10.0.0.2", 2, 0, GIB, 2 * GIB)
    assert task_memory([large, tiny]) == {"memory": GIB // 2}
    next_photo = 2 * 2 * 45_000_000  # beside the one that is restored
    assert actor_memory(large, 4) == {"memory": 3 * GIB + next_photo}
    assert actor_memory(tiny, 2) == {"memory": GIB // 2}
    unknown = Node("c", "10.0.0.3", 2, 0, GIB)
    assert task_memory([unknown]) == actor_memory(unknown, 1) == task_memory([]) == {}
