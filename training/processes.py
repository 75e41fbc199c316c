"""One process, or several that torchrun started, each with a part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# The first process may prepare for long while the others wait.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """Which process of how many this is, and its device. The first one prints and saves."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and saves."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def any(self, is_so: bool) -> bool:
        """Return whether it is so in any of the processes; all must call it at the same place."""
        if self.count == 1:
            return is_so
        flag = torch.tensor(float(is_so), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def largest(self, value: float) -> float:
        """Return the largest value of all processes; all must call it at the same place."""
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found.item())


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes of torchrun, or return this one alone."""
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, count, device)
    finally:
        dist.destroy_process_group()
