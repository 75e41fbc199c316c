"""The engine of many GPUs, on one machine or a cluster: Ray runs the steps, this file schedules.

    load tasks --> actors, a restorer each --> save tasks     results pass through the object store

Few photos are in flight at a time (`window.py`), so memory does not depend on their number. Ray
itself retries nothing: a task or an actor that dies comes back here as an error and costs one try
of the photo that it worked on (`attempts.py`). A photo whose result was lost with a node is no
suspect and starts again.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Generic

import ray
from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayError,
    RayTaskError,
)

from dpbatch.engine.attempts import Attempts, ignore, never, overdue_reason
from dpbatch.engine.node_check import OpenCheck
from dpbatch.engine.ray import steps as ray_steps
from dpbatch.engine.ray.actors import Actor, Pool
from dpbatch.engine.ray.calls import TaskCall, ready, reason
from dpbatch.engine.ray.cluster import check_nodes, joined, living_nodes, on_all_nodes, task_memory
from dpbatch.engine.ray.metrics import Metrics
from dpbatch.engine.ray.photos import PhotoInFlight, nearest, next_of
from dpbatch.engine.ray.window import Window
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import (
    ClusterOptions,
    JobT,
    Limits,
    LoadedT,
    Outcome,
    RestoredT,
    Stages,
    Status,
    outcome_of,
)

_POLL_S = 0.25
_UPDATE_S = 5.0
_MOST_LOSSES = 10
"""Times that a photo may be lost with a node before that counts as a crash of its own."""
_LOST = (NodeDiedError, ObjectLostError, ActorUnavailableError)
_STALL_S = 600.0
"""Added to the time limit of a step: the longest wait for a free processor of the cluster."""
_ANSI_COLOURS = re.compile("\x1b\\[[0-9;]*m")


@dataclass(frozen=True)
class RayEngine(Generic[JobT, LoadedT, RestoredT]):
    """Runs `stages` on a Ray cluster.

    options: which cluster, and the resources of an actor. A process that has joined a cluster
        already stays in it.
    loaders: photos that may be loaded ahead at a time; 0 measures what keeps the actors busy.
    open_check: prepares the check that runs on every node before the first photo; None for none.
    clean: called on every node at the end; removes what dead processes left unfinished.
    should_stop, on_retry, limits, log: as for `LocalEngine`; Ray's output goes to `log` too.
    on_busy: called every few seconds with the share of time that each actor has worked, in [0, 1].
    on_warning: called with warnings for people.
    """

    stages: Stages[JobT, LoadedT, RestoredT]
    options: ClusterOptions = field(default_factory=ClusterOptions)
    loaders: int = 0
    open_check: OpenCheck | None = None
    clean: Callable[[], None] | None = None
    should_stop: Callable[[], bool] = never
    limits: Limits = field(default_factory=Limits)
    on_retry: Callable[[JobT, str], None] = ignore
    on_busy: Callable[[Sequence[float]], None] = ignore
    on_warning: Callable[[str], None] = ignore
    log: Path | None = None

    def run(self, jobs: Iterable[JobT]) -> Iterator[tuple[JobT, Outcome]]:
        """See `Engine.run`.

        Raises AbortError where the cluster cannot be joined, a node is unfit, no actor can be
        built, nothing makes progress, and after `limits.crashes_in_a_row`.
        """
        with joined(self.options.address, self.log):
            if self.open_check is not None:
                with self.open_check() as check:
                    check_nodes(living_nodes(), check, self.on_warning)
            run = _Run(self, jobs)
            try:
                yield from run.outcomes()
            finally:
                run.close()
            if self.clean is not None:
                on_all_nodes(self.clean)


class _Run(Generic[JobT]):
    def __init__(self, engine: RayEngine[JobT, Any, Any], jobs: Iterable[JobT]) -> None:
        self._engine = engine
        self._attempts = Attempts(jobs, engine.limits, engine.on_retry)
        self._losses: Counter[str] = Counter()
        self._photos: list[PhotoInFlight[JobT]] = []
        self._loaded: deque[PhotoInFlight[JobT]] = deque()
        self._stages = ray.put(engine.stages)
        self._pool = Pool(self._stages, engine.options, engine.on_warning)
        self._window = Window(engine.loaders)
        self._metrics = Metrics()
        options = {"num_returns": "streaming", "max_retries": 0, "num_cpus": 1}
        options |= task_memory(living_nodes())
        self._load: Any = ray.remote(ray_steps.load).options(
            **options, scheduling_strategy="SPREAD"
        )
        self._save: Any = ray.remote(ray_steps.save).options(**options)
        self._progress_s = time.monotonic()
        self._updated_s = -_UPDATE_S

    def outcomes(self) -> Iterator[tuple[JobT, Outcome]]:
        while True:
            stopping = self._engine.should_stop()
            if stopping:
                self._give_up()
            else:
                self._update()
                self._start_steps()
            if not self._photos and (stopping or not self._attempts.left):
                return
            self._check_progress()
            for job, outcome in chain(self._poll(), self._kill_overdue()):
                self._metrics.finished(outcome)
                yield job, outcome
                self._progress_s = time.monotonic()  # the caller may have taken its time

    def close(self) -> None:
        """Kill everything that still runs."""
        for photo in self._photos:
            if photo.call is not None:
                photo.call.cancel()
        self._pool.close()

    def _update(self) -> None:
        """Adapt to the current nodes of the cluster, every few seconds."""
        now = time.monotonic()
        if now - self._updated_s < _UPDATE_S and not self._pool.has_lost_one:
            return
        self._updated_s = now
        nodes = living_nodes()
        self._pool.update(nodes)
        self._window.update(nodes, self._pool.size)
        if warning := self._window.warning():
            self._engine.on_warning(warning)
        busy = self._pool.busy_shares()
        self._engine.on_busy(busy)
        self._metrics.update(len(self._photos), busy)

    def _check_progress(self) -> None:
        limit_s = self._engine.limits.step_s
        if limit_s and time.monotonic() - self._progress_s > limit_s + _STALL_S:
            raise AbortError(
                f"no step has finished for {(limit_s + _STALL_S) / 60:.0f} minutes: the cluster "
                f"has {self._pool.size} actors and no free processor for the waiting steps"
            )

    def _give_up(self) -> None:
        """Kill what would still take long: loading and restoring."""
        for photo in [photo for photo in self._photos if photo.restored is None]:
            if photo.call is not None:
                photo.call.cancel()
            self._forget(photo)
        self._pool.close()

    # Starting steps --------------------------------------------------------------------------

    def _start_steps(self) -> None:
        """Give idle actors loaded photos, and load ahead as far as the window allows."""
        for actor in self._pool.idle():
            if self._loaded:
                photo = nearest(self._loaded, actor)
                self._loaded.remove(photo)
                self._restore(photo, actor)
        self._prefetch()
        while len(self._photos) < self._window.size:
            job = self._attempts.next(len(self._photos))
            if job is None:
                return
            call = TaskCall(self._load.remote(self._stages, job))
            self._photos.append(PhotoInFlight(job, "load", call))

    def _restore(self, photo: PhotoInFlight[JobT], actor: Actor) -> None:
        photo.stage, photo.actor = "restore", actor
        photo.given_s = photo.started_s = time.monotonic()
        photo.call = actor.restore(photo.number, photo.loaded)

    def _prefetch(self) -> None:
        """Send each busy actor its next photo, so that it has two."""
        for photo in self._loaded:
            if photo.prefetched_by not in self._pool:
                photo.prefetched_by = None
        supplied = {photo.prefetched_by for photo in self._loaded}
        for actor in self._pool.busy():
            if actor in supplied:
                continue
            following = next_of(self._loaded, actor, self._pool.is_on)
            if following is not None:
                following.prefetched_by = actor
                actor.fetch(following.number, following.loaded)

    # Handling reports ------------------------------------------------------------------------

    def _poll(self) -> Iterator[tuple[JobT, Outcome]]:
        """Wait briefly for reports and handle all that are ready."""
        running = {photo.call.pending: photo for photo in self._photos if photo.call is not None}
        waiting = [*running, *self._pool.pending()]
        if not waiting:
            time.sleep(_POLL_S)
            return
        for ref in ready(waiting, _POLL_S):
            self._progress_s = time.monotonic()
            if ref in running:
                yield from self._handle(running[ref])
            else:
                self._pool.handle(ref)

    def _handle(self, photo: PhotoInFlight[JobT]) -> Iterator[tuple[JobT, Outcome]]:
        assert photo.call is not None
        try:
            report = photo.call.poll()
        except RayError as error:
            yield from self._fail_step(photo, error)
            return
        if isinstance(report, ray_steps.Started):
            photo.started_s = time.monotonic()
            if photo.stage == "load":
                photo.node = report.node
        elif isinstance(report, ray_steps.Verdict):
            yield from self._finish_step(photo, report)

    def _finish_step(
        self, photo: PhotoInFlight[JobT], verdict: ray_steps.Verdict
    ) -> Iterator[tuple[JobT, Outcome]]:
        """Record a step that returned or raised PhotoError; start the next one, if any."""
        assert photo.call is not None
        photo.seconds = replace(photo.seconds, **{photo.stage: verdict.seconds})
        result, photo.call = photo.call.result, None
        self._metrics.step(photo.stage, verdict.seconds)
        turnaround_s = time.monotonic() - photo.given_s
        self._window.record(photo.stage, turnaround_s, verdict.result_bytes)
        if photo.actor is not None:
            self._pool.finished(photo.actor, verdict.seconds)
            photo.actor = None
        if verdict.error is not None or photo.stage == "save":
            self._forget(photo)
            self._attempts.finished()
            yield photo.job, _outcome(photo, verdict)
        elif photo.stage == "load":
            photo.loaded = result
            self._loaded.append(photo)
        else:
            photo.loaded, photo.restored = None, result
            photo.stage, photo.given_s, photo.started_s = "save", time.monotonic(), None
            photo.call = TaskCall(self._save.remote(self._stages, photo.job, result))

    def _fail_step(
        self, photo: PhotoInFlight[JobT], error: RayError
    ) -> Iterator[tuple[JobT, Outcome]]:
        """Handle a step that died. Its actor is killed, unless only the photo's data was lost."""
        if isinstance(error, LocalRayletDiedError):
            raise AbortError(f"Ray has ended on this machine: {error}") from error
        is_lost = isinstance(error, _LOST)
        if photo.actor is not None and not isinstance(error, ObjectLostError):
            living = {node.id for node in living_nodes()}
            is_lost = is_lost or photo.actor.node not in living
            self._pool.drop(photo.actor)
        elif photo.actor is not None:
            self._pool.finished(photo.actor, 0.0)
        if is_lost:
            self._losses[photo.job.id] += 1
            if self._losses[photo.job.id] <= _MOST_LOSSES:
                self._forget(photo)
                self._attempts.interrupted(photo.job)
                return
        detail = _ANSI_COLOURS.sub("", str(error)) if isinstance(error, RayTaskError) else ""
        yield from self._crash(photo, reason(error), detail)

    def _kill_overdue(self) -> Iterator[tuple[JobT, Outcome]]:
        limit_s = self._engine.limits.step_s
        now = time.monotonic()
        for photo in list(self._photos):
            if not limit_s or photo.started_s is None or now - photo.started_s <= limit_s:
                continue
            if photo.call is None or ready([photo.call.pending], 0):
                continue  # finished in time, not polled yet
            photo.call.cancel()
            if photo.actor is not None:
                self._pool.drop(photo.actor)
            yield from self._crash(photo, overdue_reason(limit_s))

    def _crash(
        self, photo: PhotoInFlight[JobT], why: str, detail: str = ""
    ) -> Iterator[tuple[JobT, Outcome]]:
        """Record that the photo has used up one try."""
        self._forget(photo)
        log = self._engine.log
        where = f"; see {log}" if log is not None and not detail else ""
        error = WorkerCrashError(f"{photo.job}: the {photo.stage} process died: {why}{where}")
        outcome = self._attempts.crashed(
            photo.job, photo.stage, error, photo.seconds, has_died=not detail
        )
        if outcome is not None:
            yield photo.job, replace(outcome, detail=detail)

    def _forget(self, photo: PhotoInFlight[JobT]) -> None:
        self._photos.remove(photo)
        if photo in self._loaded:
            self._loaded.remove(photo)


def _outcome(photo: PhotoInFlight[JobT], verdict: ray_steps.Verdict) -> Outcome:
    if verdict.error is not None:
        return outcome_of(verdict.error, photo.stage, photo.seconds)
    return Outcome(Status.DONE, "save", saved=verdict.saved, seconds=photo.seconds)
