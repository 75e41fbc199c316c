"""Joining a Ray cluster or starting one here, its nodes, and where Ray's chatter goes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dpbatch.engine.cluster import small_shared_memory
from dpbatch.errors import AbortError

_PROBE_S = 300.0
_MOST_ASKS = 4
_ASK_AGAIN_S = 3.0
_CLEANING_S = 30.0


@dataclass(frozen=True)
class Node:
    """A living node. address: its IP address. store_bytes: of its object store."""

    id: str
    address: str
    cpus: float
    gpus: float
    store_bytes: float


def living_nodes() -> tuple[Node, ...]:
    """The nodes that Ray holds for alive, in a fixed order."""
    nodes = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            resources = node["Resources"]
            amounts = (resources.get(name, 0.0) for name in ("CPU", "GPU", "object_store_memory"))
            nodes.append(Node(node["NodeID"], node["NodeManagerAddress"], *amounts))
    return tuple(sorted(nodes, key=lambda node: node.id))


@contextmanager
def joined(address: str, log: Path | None) -> Iterator[None]:
    """This process is a driver of a Ray cluster while the block lasts.

    address: as for `ray.init`; "" takes RAY_ADDRESS, which `ray job submit` sets, and else starts a
    cluster of this machine alone, which ends with the block. A program that has joined a cluster
    already stays in it. log: file for what Ray and the processes on the nodes say.
    Raises AbortError where there is no such cluster, or it does not let us in.
    """
    if ray.is_initialized():
        yield
        return
    # What is lost is told by the engine, once and in its own words.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    is_ours = not (address or os.environ.get("RAY_ADDRESS"))
    own: dict[str, Any] = {"address": "local", "include_dashboard": False} if is_ours else {}
    with _chatter_in(log) as is_in_log:
        try:
            with _stderr_in(log):
                ray.init(
                    **(own or {"address": address or None}),
                    log_to_driver=is_in_log,
                    configure_logging=log is None,
                    logging_level=logging.ERROR,
                )
        except Exception as error:  # a bare one is what Ray raises where a node starts too slowly
            where = "a Ray cluster of this machine could not be started"
            if not is_ours:
                where = f"no Ray cluster at {address or os.environ['RAY_ADDRESS']}"
            raise AbortError(f"{where}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _chatter_in(log: Path | None) -> Iterator[bool]:
    """Sends what Ray says to `log` instead of the terminal; gives whether that worked.

    Ray prints the last lines of a raylet to the driver's stdout whenever a process dies, whatever
    `log_to_driver` says; there is no public way to have them elsewhere.
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
    nodes = logging.Logger("nodes")  # one of its own: ray.init sets the other's level
    nodes.addHandler(handler)
    name = "print_to_stdstream"
    printing = getattr(ray_worker, name, None)

    def write(data: Mapping[str, Any], *_: object, **__: object) -> None:
        if data.get("pid") == "autoscaler":
            return  # its state every five seconds
        who = " ".join(str(data[key]) for key in ("ip", "pid") if data.get(key))
        for line in data.get("lines", ()):
            nodes.info("(%s) %s", who, str(line).rstrip())

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
    """Sends what this process writes to stderr, its C++ parts included, to `log`."""
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


def on_node(node: Node) -> NodeAffinitySchedulingStrategy:
    """Runs there or nowhere."""
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def check_nodes(
    nodes: Sequence[Node], problem_here: Callable[[], str], note: Callable[[str], None]
) -> None:
    """Runs `problem_here` on every node. Raises AbortError that names the node and what it lacks.

    note: told of what is no obstacle; a node that leaves meanwhile is none.
    """
    for _ in range(_MOST_ASKS):
        silent = _asked(nodes, problem_here, note)
        if not silent:
            return
        time.sleep(_ASK_AGAIN_S)  # a node that has just died counts as alive for a moment
        living = {node.id for node in living_nodes()}
        for node in silent:
            if node.id not in living:
                note(f"warning: node {node.address} left the cluster before the first photo")
        nodes = [node for node in silent if node.id in living]
        if not nodes:
            return
    raise AbortError(f"node {nodes[0].address} could not be asked: {silent[nodes[0]]}")


def _asked(
    nodes: Sequence[Node], problem_here: Callable[[], str], note: Callable[[str], None]
) -> dict[Node, RayError]:
    """The nodes that gave no answer, and why. Raises AbortError for one that is not fit, or that
    cannot even run the question."""
    tasks = _on_each(nodes, _probed, problem_here)
    done, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=_PROBE_S)
    if late:
        silent = ", ".join(tasks[task].address for task in late)
        raise AbortError(f"no answer within {_PROBE_S:.0f} s from the nodes {silent}")
    lost = {}
    for task in done:
        node = tasks[task]
        try:
            problem, warning = ray.get(task)
        except RayTaskError as error:
            raise AbortError(f"node {node.address} could not be asked: {error}") from error
        except RayError as error:
            lost[node] = error
            continue
        if problem:
            raise AbortError(f"node {node.address} {problem}")
        if warning:
            note(f"warning: node {node.address}: {warning}")
    return lost


def on_all_nodes(action: Callable[[], None]) -> None:
    """Does something on every node, as far as they do it soon and without an error."""
    tasks = list(_on_each(living_nodes(), _done, action))
    ray.wait(tasks, num_returns=len(tasks), timeout=_CLEANING_S, fetch_local=False)


def _on_each(nodes: Sequence[Node], function: Callable[..., Any], argument: Any) -> dict[Any, Node]:
    """A task a node, by its reference."""
    task: Any = ray.remote(function)
    return {
        task.options(num_cpus=0, max_retries=0, scheduling_strategy=on_node(node)).remote(
            argument
        ): node
        for node in nodes
    }


def _probed(problem_here: Callable[[], str]) -> tuple[str, str]:
    return problem_here(), small_shared_memory()


def _done(action: Callable[[], None]) -> None:
    action()
