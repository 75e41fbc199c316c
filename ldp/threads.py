"""Parts of a photo side by side on a CPU.

PyTorch divides every operation among its threads, which then wait for each other. Operations on a
part of a photo are so short that this takes longer than one thread, and several times as long where
other programs keep a core busy. Here every thread has a part for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> list[Result]:
    """Return work(item) of every item, in their order; on a CPU in as many threads as PyTorch has.

    An exception is raised once no thread works any more. On a GPU, and inside such a thread, one
    item follows the other.
    """
    threads = thread_count(device)
    if threads == 1 or len(items) == 1:
        return [work(item) for item in items]
    results = [_pool(threads).submit(work, item) for item in items]
    wait(results)
    return [result.result() for result in results]


def thread_count(device: torch.device) -> int:
    """Return how many items side_by_side works on at a time."""
    return torch.get_num_threads() if device.type == "cpu" else 1


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads in each of which PyTorch computes with one."""
    pool = ThreadPoolExecutor(threads, "side-by-side")
    all_started = Barrier(threads)

    def start(_: int) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # or the first operation would take the number of the last line
        all_started.wait()

    wait([pool.submit(start, number) for number in range(threads)])
    torch.set_num_threads(threads)  # of threads that others start later
    return pool
