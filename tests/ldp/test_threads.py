"""Parts of a photo side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ldp.threads import side_by_side, thread_count

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_are_in_the_order_of_the_items() -> None:
    assert side_by_side(lambda number: number**2, range(20), CPU) == [n**2 for n in range(20)]
    assert side_by_side(str, [], CPU) == []


def test_each_thread_computes_alone_and_others_as_before(threads: int) -> None:
    inside = side_by_side(lambda _: torch.get_num_threads(), range(8), CPU)
    assert inside == [1] * 8
    assert torch.get_num_threads() == threads
    later: list[int] = []
    other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert later == [threads]


def test_as_many_items_at_a_time_as_pytorch_has_threads(threads: int) -> None:
    together = threading.Barrier(threads)
    side_by_side(lambda _: together.wait(10), range(2 * threads), CPU)


def test_inside_a_thread_one_item_follows_the_other(threads: int) -> None:
    def nested(_: int) -> list[int]:
        return side_by_side(lambda _: threading.get_ident(), range(3), CPU)

    for found in side_by_side(nested, range(4), CPU):
        assert len(set(found)) == 1


def test_an_exception_is_raised_after_all_have_ended(threads: int) -> None:
    ended = []

    def fail_first(number: int) -> None:
        if number == 0:
            raise MemoryError
        ended.append(number)

    with pytest.raises(MemoryError):
        side_by_side(fail_first, range(6), CPU)
    assert len(ended) == (5 if threads > 1 else 0)


def test_on_a_gpu_there_is_one_thread() -> None:
    assert thread_count(torch.device("cuda")) == 1
