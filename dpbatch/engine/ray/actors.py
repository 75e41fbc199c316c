"""The actors that hold the network: as many as the GPUs have room for, replaced when they die."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dpbatch.engine.ray.calls import ActorCall
from dpbatch.engine.ray.cluster import Node, actor_memory, living_nodes, on_node, request_gpus
from dpbatch.engine.ray.steps import Restorer
from dpbatch.errors import AbortError
from dpbatch.types import ClusterOptions

_START_TRIES = 3
"""Actors in a row that may die on a node while idle and before their first photo."""


class Actor:
    """One copy of the network. node: Ray's id of the node."""

    def __init__(self, node: Node, stages: Any, gpus: float, threads: int) -> None:
        """Start the actor. stages: a reference. threads: for computing on the CPU."""
        self.node, self.address = node.id, node.address
        self.call: ActorCall | None = None
        """The photo being restored; None when idle."""
        self.has_worked = False
        """Whether it has restored or rejected a photo."""
        self.ready_s = 0.0
        """When it became ready, by `time.monotonic`; 0 before."""
        self._busy_s = self._given_s = 0.0
        options: dict[str, Any] = {
            "num_cpus": 0,  # reserving a core might leave none for loading
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": on_node(node),
            **actor_memory(node, int(node.cpus) // threads),
            "concurrency_groups": {"beside": 2},
        }
        remote: Any = ray.remote  # its types lack concurrency groups
        self._handle = remote(**options)(Restorer).remote()
        self.built = self._handle.build.remote(stages, threads)
        self.death = self._beside("wait_forever")
        """A reference that becomes ready only when the actor dies."""

    def _beside(self, method: str, *arguments: Any) -> Any:
        return getattr(self._handle, method).options(concurrency_group="beside").remote(*arguments)

    def restore(self, key: int, loaded: Any) -> ActorCall:
        """Start on a photo; the actor must be idle. key: a number that no other photo has."""
        self._given_s = time.monotonic()
        self.call = ActorCall(*self._handle.restore.options(num_returns=2).remote(key, loaded))
        return self.call

    def fetch(self, key: int, loaded: Any) -> None:
        """Have it take a loaded photo into its memory while it is busy with another."""
        self._beside("fetch", key, loaded)

    def finish(self, seconds: float) -> None:
        """Become idle; the photo took so long."""
        self._busy_s += seconds
        self.call, self.has_worked = None, True

    def busy_share(self) -> float:
        """Return the share of its time since it was ready that it spent on photos, in [0, 1]."""
        now = time.monotonic()
        busy_s = self._busy_s + (now - self._given_s if self.call else 0.0)
        return min(1.0, busy_s / max(now - self.ready_s, 1e-3))

    def kill(self) -> None:
        """Kill its process."""
        ray.kill(self._handle, no_restart=True)


class Pool:
    """All actors of a run."""

    def __init__(self, stages: Any, options: ClusterOptions, warn: Callable[[str], None]) -> None:
        """stages: a reference. warn: called for nodes that leave or are unfit."""
        self._stages, self._warn = stages, warn
        self._gpus_per_actor, self._cpu_actors = options.gpus_per_actor, options.cpu_actors
        self._asked_actors = options.gpu_actors
        if self._asked_actors:
            request_gpus(self._asked_actors, self._gpus_per_actor)
        self._actors: list[Actor] = []
        self._failed_starts: Counter[str] = Counter()
        self._unfit: dict[str, str] = {}
        """Nodes on which no actor can be built, with the reason."""
        self._nodes: dict[str, Node] = {}
        self._has_had_any = False
        self.has_lost_one = False
        """Whether an actor was dropped that `update` has not replaced yet."""

    @property
    def size(self) -> int:
        """Number of actors, including those being built."""
        return len(self._actors)

    def update(self, nodes: Sequence[Node]) -> None:
        """Build actors where there is room, and forget those of nodes that have left.

        Raises AbortError where there has never been room for one.
        """
        self.has_lost_one = False
        current = {node.id: node for node in nodes}
        for gone in self._nodes.keys() - current.keys():
            self._warn(f"warning: node {self._nodes[gone].address} has left the cluster")
        self._nodes = current
        self._actors = [actor for actor in self._actors if actor.call or actor.node in current]
        if not self._has_had_any:
            self._choose_cpus()
        missing = list(self._missing())
        on_node = Counter(actor.node for actor in self._actors)
        on_node.update(node.id for node in missing)
        for node in missing:
            threads = max(1, int(node.cpus) // on_node[node.id])
            gpus = 0.0 if self._cpu_actors else self._gpus_per_actor
            self._actors.append(Actor(node, self._stages, gpus, threads))
        if self._actors:
            self._has_had_any = True
        elif not self._has_had_any and not self._asked_actors:
            raise AbortError(
                f"no node has {self._gpus_per_actor:g} GPUs for an actor; give --cpu-actors N to "
                "restore on processors"
            )

    def _choose_cpus(self) -> None:
        """Use one CPU actor per node where no node has a GPU and the user asked for none."""
        asked = self._cpu_actors or self._gpus_per_actor != ClusterOptions.gpus_per_actor
        if asked or self._asked_actors or any(node.gpus for node in self._nodes.values()):
            return
        self._cpu_actors = sum(node.cpus > 0 for node in self._nodes.values())
        self._warn(
            f"no GPU in the cluster: restoring on CPUs, {self._cpu_actors} at a time, "
            "one per node (--cpu-actors N changes that)"
        )

    def _room(self, node: Node) -> int:
        """Return how many actors a node may hold."""
        if node.id in self._unfit:
            return 0
        if self._cpu_actors:
            return self._cpu_actors if node.cpus > 0 else 0
        return int(node.gpus / self._gpus_per_actor + 1e-6)

    def _missing(self) -> Iterator[Node]:
        """Yield a node for each actor to be built now."""
        has = Counter(actor.node for actor in self._actors)
        able = [node for node in self._nodes.values() if self._room(node)]
        if not self._cpu_actors:
            for node in able:
                yield from [node] * (self._room(node) - has[node.id])
            return
        for _ in range(self._cpu_actors - len(self._actors) if able else 0):
            emptiest = min(able, key=lambda node: has[node.id] / node.cpus)
            has[emptiest.id] += 1
            yield emptiest

    def idle(self) -> list[Actor]:
        """Return the actors that are ready and have no photo."""
        return [actor for actor in self._actors if actor.ready_s and actor.call is None]

    def busy(self) -> list[Actor]:
        """Return the actors that have a photo."""
        return [actor for actor in self._actors if actor.call is not None]

    def __contains__(self, actor: Actor | None) -> bool:
        """Whether an actor is there and has not been dropped."""
        return actor in self._actors

    def is_on(self, node: str) -> bool:
        """Whether there is an actor on a node."""
        return any(actor.node == node for actor in self._actors)

    def pending(self) -> list[Any]:
        """Return references that become ready once an actor is built, or dies while idle."""
        building = [actor.built for actor in self._actors if not actor.ready_s]
        return building + [actor.death for actor in self._actors if actor.call is None]

    def handle(self, ref: Any) -> None:
        """Handle one of `pending` that is ready. Raises AbortError as `drop`."""
        actor = next((one for one in self._actors if ref in (one.built, one.death)), None)
        if actor is None:
            return
        try:
            ray.get(ref)
        except RayError as error:
            self.drop(actor, error)
            return
        actor.ready_s = time.monotonic()

    def finished(self, actor: Actor, seconds: float) -> None:
        """Record that an actor restored or rejected a photo in so much time."""
        actor.finish(seconds)
        self._failed_starts[actor.node] = 0

    def drop(self, actor: Actor, error: RayError | None = None) -> None:
        """Kill an actor that is dead or unusable; `update` builds another one.

        error: the reason, where it died without a photo.

        Raises AbortError where actors keep dying before their first photo and no other node is
        left.
        """
        actor.kill()
        self.has_lost_one = True
        if actor in self._actors:
            self._actors.remove(actor)
        if error is None or actor.has_worked:
            return
        if actor.node not in {node.id for node in living_nodes()}:
            return
        self._failed_starts[actor.node] += 1
        raised = isinstance(error, RayTaskError)
        if not raised and self._failed_starts[actor.node] < _START_TRIES:
            return
        cause = str(error.cause if isinstance(error, RayTaskError) else error)
        reason = f"the restore process could not start on node {actor.address}: "
        reason += cause.partition("\n")[0]
        self._unfit[actor.node] = reason
        if not self._actors and not any(self._room(node) for node in self._nodes.values()):
            raise AbortError(reason)
        self._warn(f"warning: {reason}; going on without it")

    def busy_shares(self) -> tuple[float, ...]:
        """Return `Actor.busy_share` of each actor that is ready."""
        return tuple(actor.busy_share() for actor in self._actors if actor.ready_s)

    def close(self) -> None:
        """Kill all actors, and ask for no more machines."""
        for actor in self._actors:
            actor.kill()
        self._actors = []
        if self._asked_actors:
            request_gpus(0, self._gpus_per_actor)
