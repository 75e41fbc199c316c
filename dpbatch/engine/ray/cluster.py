"""Joining or starting a Ray cluster, its nodes, and the log that Ray's output goes to."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dpbatch.engine.node_check import Check, small_shared_memory
from dpbatch.engine.ray.private_cluster import check_private, init_arguments, private_cluster
from dpbatch.errors import AbortError

_T = TypeVar("_T")

_AMOUNTS = ("CPU", "GPU", "object_store_memory", "memory")  # in Node's order
_TASK_BYTES = 1 << 30
_NEXT_PHOTO_BYTES = 2 * 2 * 45_000_000
"""Two mosaics of 45 MP, which an actor holds beside the photo that it restores."""
_ACTOR_BYTES = (3 << 30) + _NEXT_PHOTO_BYTES
_CHECK_TIMEOUT_S = 300.0
_CHECK_TRIES = 4
_CHECK_PAUSE_S = 3.0
_CLEAN_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Node:
    """A living node. address: its IP address. store_bytes: size of its object store.

    memory_bytes: what Ray hands out to steps that state their memory; 0 where it is not known.
    """

    id: str
    address: str
    cpus: float
    gpus: float
    store_bytes: float
    memory_bytes: float = 0.0


def living_nodes() -> tuple[Node, ...]:
    """Return the nodes that Ray considers alive, in a fixed order."""
    nodes = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            resources = node["Resources"]
            amounts = (resources.get(name, 0.0) for name in _AMOUNTS)
            nodes.append(Node(node["NodeID"], node["NodeManagerAddress"], *amounts))
    return tuple(sorted(nodes, key=lambda node: node.id))


@contextmanager
def joined(address: str, log: Path | None) -> Iterator[None]:
    """Make this process a driver of a Ray cluster while the context is open.

    address: as for `ray.init`; "" takes RAY_ADDRESS, which `ray job submit` sets, and without that
        starts a cluster of this machine alone, which ends with the context. A process that has
        joined a cluster already stays in it.
    log: file for the output of Ray and of the processes on the nodes.

    Raises AbortError where there is no such cluster, it refuses the connection, or a cluster that
    is started here is not private.
    """
    if ray.is_initialized():
        yield
        return
    # The engine reports lost tasks itself, once each.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    starts_own = not (address or os.environ.get("RAY_ADDRESS"))
    with _ray_output_in(log) as is_in_log, ExitStack() as stack:
        folder = stack.enter_context(private_cluster()) if starts_own else None
        arguments = {"address": address or None} if folder is None else init_arguments(folder)
        try:
            with _stderr_in(log):
                ray.init(
                    **arguments,
                    log_to_driver=is_in_log,
                    configure_logging=log is None,
                    logging_level=logging.ERROR,
                )
        except Exception as error:  # where a node starts too slowly Ray raises a bare Exception
            where = "a Ray cluster of this machine could not be started"
            if not starts_own:
                where = f"no Ray cluster at {address or os.environ['RAY_ADDRESS']}"
            raise AbortError(f"{where}: {error}") from error
        try:
            if folder is not None:
                check_private(folder)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _ray_output_in(log: Path | None) -> Iterator[bool]:
    """Send Ray's output to `log` instead of the terminal; gives whether that worked.

    Ray prints the last lines of a raylet to the driver's stdout whenever a process dies, even with
    `log_to_driver` off; there is no public way to redirect them.
    """
    if log is None:
        yield False
        return
    from ray._private import worker as ray_worker

    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("ray")
    before = logger.propagate, logger.handlers[:], logger.level
    logger.propagate, logger.handlers = False, [handler]
    logger.setLevel(logging.INFO)
    nodes = logging.Logger("nodes")  # a logger of its own: ray.init sets the level of "ray"
    nodes.addHandler(handler)
    name = "print_to_stdstream"
    printing = getattr(ray_worker, name, None)

    def write(data: Mapping[str, Any], *_: object, **__: object) -> None:
        if data.get("pid") == "autoscaler":
            return  # reports its state every five seconds
        source = " ".join(str(data[key]) for key in ("ip", "pid") if data.get(key))
        for line in data.get("lines", ()):
            nodes.info("(%s) %s", source, str(line).rstrip())

    if printing is not None:
        setattr(ray_worker, name, write)
    try:
        yield printing is not None
    finally:
        if printing is not None:
            setattr(ray_worker, name, printing)
        logger.propagate, logger.handlers = before[:2]
        logger.setLevel(before[2])
        handler.close()


@contextmanager
def _stderr_in(log: Path | None) -> Iterator[None]:
    """Send this process's stderr to `log`, including what C++ code writes."""
    if log is None:
        yield
        return
    before = os.dup(2)
    try:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def request_gpus(actors: int, gpus_per_actor: float) -> None:
    """Ask a cluster that scales by itself to have GPUs for so many actors; 0 withdraws it.

    Actors that are placed on machines which exist never make such a cluster start one. Any other
    cluster takes no notice.
    """
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{"GPU": gpus_per_actor}] * actors)


def task_memory(nodes: Sequence[Node]) -> dict[str, int]:
    """Return Ray's option by which loading and saving state their memory; none if unknown.

    What a photo of 45 MP takes, and at most a quarter of the smallest node's, so that each step
    finds room beside the actors, which state half of it at most.
    """
    smallest = min((node.memory_bytes for node in nodes), default=0.0)
    return _stated(min(_TASK_BYTES, smallest / 4))


def actor_memory(node: Node, actors: int) -> dict[str, int]:
    """Return the same for one of the actors of a node."""
    return _stated(min(_ACTOR_BYTES, node.memory_bytes / 2 / max(1, actors)))


def _stated(memory_bytes: float) -> dict[str, int]:
    return {"memory": int(memory_bytes)} if memory_bytes >= 1 else {}


def on_node(node: Node) -> NodeAffinitySchedulingStrategy:
    """Schedule on that node or not at all."""
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def check_nodes(nodes: Sequence[Node], check: Check, warn: Callable[[str], None]) -> None:
    """Run `check` on every node.

    warn: called with what is no obstacle; a node that leaves meanwhile is none.

    Raises AbortError that names the node and its problem.
    """
    for _ in range(_CHECK_TRIES):
        silent = _unanswered(nodes, check, warn)
        if not silent:
            return
        time.sleep(_CHECK_PAUSE_S)  # a node that has just died counts as alive for a moment
        living = {node.id for node in living_nodes()}
        for node in silent:
            if node.id not in living:
                warn(f"warning: node {node.address} left the cluster before the first photo")
        nodes = [node for node in silent if node.id in living]
        if not nodes:
            return
    raise AbortError(f"node {nodes[0].address} could not be checked: {silent[nodes[0]]}")


def _unanswered(
    nodes: Sequence[Node], check: Check, warn: Callable[[str], None]
) -> dict[Node, RayError]:
    """Run the check once; return the nodes that died before they answered, each with the error.

    Raises AbortError for a node that is unfit, that cannot run the check, or that is too slow.
    """
    tasks = _on_each(nodes, _checked, check)
    done, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=_CHECK_TIMEOUT_S)
    if late:
        silent = ", ".join(tasks[task].address for task in late)
        raise AbortError(f"no answer within {_CHECK_TIMEOUT_S:.0f} s from the nodes {silent}")
    lost = {}
    for task in done:
        node = tasks[task]
        try:
            problem, warning = ray.get(task)
        except RayTaskError as error:
            raise AbortError(f"node {node.address} could not be checked: {error}") from error
        except RayError as error:
            lost[node] = error
            continue
        if problem:
            raise AbortError(f"node {node.address} {problem}")
        if warning:
            warn(f"warning: node {node.address}: {warning}")
    return lost


def on_all_nodes(action: Callable[[], None]) -> None:
    """Run an action on every node; errors and slow nodes are ignored."""
    tasks = list(_on_each(living_nodes(), _done, action))
    ray.wait(tasks, num_returns=len(tasks), timeout=_CLEAN_TIMEOUT_S, fetch_local=False)


def _on_each(
    nodes: Sequence[Node], function: Callable[[_T], object], argument: _T
) -> dict[Any, Node]:
    """Start a task on each node; returns the nodes by the tasks' references."""
    task: Any = ray.remote(function)
    return {
        task.options(num_cpus=0, max_retries=0, scheduling_strategy=on_node(node)).remote(
            argument
        ): node
        for node in nodes
    }


def _checked(check: Check) -> tuple[str, str]:
    return check(), small_shared_memory()


def _done(action: Callable[[], None]) -> None:
    action()
