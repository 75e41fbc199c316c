"""How many processes suit this machine."""

from __future__ import annotations

import os

from dpbatch.types import ClusterOptions, Processes

_FEW_CORES = 4
"""With fewer, one photo is read and one written while one is restored, and restoring finds all."""
_SPARE_CORES = 8
"""From which on a CPU that restores has cores to spare: one in four loads, and finds ahead."""
_LOADERS, _SAVERS = 10 / 16, 3 / 16
"""For each core where a GPU restores: with 16 cores about 100 photos of 30 MP a minute, see
docs/speed.md."""
_MOST_LOADERS, _MOST_SAVERS = 18, 6
_PROCESS_BYTES = 2 << 30
"""Taken by a process that loads or saves a photo of 45 MP, with what it imports."""


def processes_here(on_gpu: bool, cluster: ClusterOptions | None, loaders: int = 0) -> Processes:
    """Return the processes of a run on this machine, or on a cluster, which chooses their number.

    on_gpu: whether a GPU restores. loaders: 0 to choose.
    """
    if cluster is not None:
        return Processes(loaders, finds_ahead=on_gpu)
    import psutil

    memory_bytes = psutil.virtual_memory().total
    return processes_for(core_count(), memory_bytes, on_gpu=on_gpu, loaders=loaders)


def processes_for(cores: int, memory_bytes: int, *, on_gpu: bool, loaders: int = 0) -> Processes:
    """Return the processes of the local engine.

    memory_bytes: of the machine; half of it may be used. Others as for processes_here.
    """
    if cores < _FEW_CORES:
        return Processes(loaders or 1)
    fitting = memory_bytes // 2 // _PROCESS_BYTES
    if on_gpu:
        savers = _bounded(cores * _SAVERS, min(_MOST_SAVERS, fitting // 4))
        chosen = _bounded(cores * _LOADERS, min(_MOST_LOADERS, fitting - savers))
        return Processes(loaders or chosen, savers, photos_at_restorer=2, finds_ahead=True)
    if cores < _SPARE_CORES:
        return Processes(loaders or 1)
    chosen = _bounded(cores / 4, min(_MOST_LOADERS, fitting // 2))
    return Processes(loaders or chosen, finds_ahead=True)


def core_count() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bounded(number: float, most: int) -> int:
    return max(1, min(int(number), most))
