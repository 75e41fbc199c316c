"""How many processes load, save and hold photos, by cores, memory and GPU."""

from __future__ import annotations

import pytest

from dpbatch.engine.processes import processes_for, processes_here
from dpbatch.types import ClusterOptions, Processes

GIB = 2**30


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_few_cores_have_one_process_for_each_step(cores: int, on_gpu: bool) -> None:
    assert processes_for(cores, 64 * GIB, on_gpu=on_gpu) == Processes()


@pytest.mark.parametrize(
    ("cores", "loaders", "savers"), [(4, 2, 1), (8, 5, 1), (16, 10, 3), (64, 18, 6)]
)
def test_beside_a_gpu_they_follow_the_cores(cores: int, loaders: int, savers: int) -> None:
    found = processes_for(cores, 512 * GIB, on_gpu=True)
    assert found == Processes(loaders, savers, photos_at_restorer=2, finds_ahead=True)


def test_a_cpu_that_restores_finds_ahead_where_it_has_cores_to_spare() -> None:
    assert processes_for(4, 64 * GIB, on_gpu=False) == Processes()
    assert processes_for(8, 64 * GIB, on_gpu=False) == Processes(2, finds_ahead=True)
    assert processes_for(16, 64 * GIB, on_gpu=False) == Processes(4, finds_ahead=True)
    assert processes_for(16, 8 * GIB, on_gpu=False).loaders == 1


@pytest.mark.parametrize("memory_gib", [1, 4, 8, 16, 24, 32])
def test_they_take_half_of_the_memory_at_most(memory_gib: int) -> None:
    found = processes_for(16, memory_gib * GIB, on_gpu=True)
    assert found.loaders >= 1
    assert found.savers >= 1
    assert found.loaders + found.savers <= max(2, memory_gib // 4)


def test_the_users_number_of_loaders_counts() -> None:
    assert processes_for(2, 8 * GIB, on_gpu=False, loaders=5).loaders == 5
    assert processes_for(16, 8 * GIB, on_gpu=True, loaders=5).loaders == 5


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_cluster_chooses_for_itself(on_gpu: bool) -> None:
    assert processes_here(on_gpu, ClusterOptions()) == Processes(0, finds_ahead=on_gpu)
