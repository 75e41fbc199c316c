"""How many photos may be in flight: enough to keep actors busy, without spilling to disk."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpbatch.engine.ray.cluster import Node

_SHARE_OF_STORE = 0.5
_MEMORY_OF_MEANS = 0.9


class Window:
    """min(2 x actors + loaders, half the object store / bytes per photo), measured during the run.

    Until the first photo is loaded its size is unknown, and two photos per node are loaded.
    """

    def __init__(self, loaders: int) -> None:
        """loaders: photos loaded beyond those of the actors; 0 chooses what keeps actors busy."""
        self._loaders = loaders
        self._nodes = self._actors = 1
        self._cpus = self._store_bytes = 0.0
        self._photo_bytes = 0
        self._mean_s: dict[str, float] = {}
        self._has_warned = False

    def update(self, nodes: Sequence[Node], actors: int) -> None:
        """Set the cluster's current size. actors: including those being built."""
        self._nodes, self._actors = max(1, len(nodes)), max(1, actors)
        self._cpus = sum(node.cpus for node in nodes)
        self._store_bytes = sum(node.store_bytes for node in nodes)

    def record(self, stage: str, seconds: float, result_bytes: int) -> None:
        """Record a step. seconds: including its wait for a processor."""
        before = self._mean_s.get(stage, seconds)
        self._mean_s[stage] = _MEMORY_OF_MEANS * before + (1 - _MEMORY_OF_MEANS) * seconds
        self._photo_bytes = max(self._photo_bytes, result_bytes)

    @property
    def size(self) -> int:
        """At least 1."""
        wanted = self._wanted()
        if not self._photo_bytes:
            return min(wanted, 2 * self._nodes)
        return max(1, min(wanted, self._fitting()))

    def warning(self) -> str:
        """Return a warning, once, where memory holds too few photos for the actors; else ""."""
        if self._has_warned or not self._photo_bytes or self._fitting() > self._actors:
            return ""
        self._has_warned = True
        return (
            f"warning: {self._actors} actors, but the object store of "
            f"{self._store_bytes / 2**30:.1f} GiB holds {self._fitting()} photos of "
            f"{self._photo_bytes / 2**30:.2f} GiB at a time (half of it is kept free); give Ray "
            "more memory (object_store_memory), or a container a larger /dev/shm"
        )

    def _fitting(self) -> int:
        return int(_SHARE_OF_STORE * self._store_bytes / max(self._photo_bytes, 1))

    def _wanted(self) -> int:
        loaders = self._loaders
        if not loaders:
            loaders = self._actors
            if "restore" in self._mean_s:
                # As many photos as are loaded and saved while every actor restores one.
                beside_s = self._mean_s.get("load", 0.0) + self._mean_s.get("save", 0.0)
                loaders = math.ceil(self._actors * beside_s / max(self._mean_s["restore"], 1e-3))
            loaders = max(1, min(loaders, int(self._cpus)))
        return 2 * self._actors + loaders
