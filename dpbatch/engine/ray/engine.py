"""The engine of many GPUs, on one machine or a cluster: Ray carries, this file only keeps count.

    load tasks --> one restorer an actor --> save tasks     results pass through the object store

Few photos are in flight at a time (`ray_window.py`), so memory does not depend on how many there
are. Ray itself retries nothing: a task or an actor that dies comes back here as an error, costs one
try of the photo that it worked on (`attempts.py`), and another one takes its place. A photo whose
result was lost with a node is no suspect and simply begins again.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayError,
    RayTaskError,
)

from dpbatch.engine.attempts import Attempts
from dpbatch.engine.cluster import Needs, node_check
from dpbatch.engine.ray import steps as ray_steps
from dpbatch.engine.ray.actors import Actor, Pool
from dpbatch.engine.ray.calls import ActorCall, TaskCall, ready, why
from dpbatch.engine.ray.cluster import check_nodes, joined, living_nodes, on_all_nodes
from dpbatch.engine.ray.metrics import Metrics
from dpbatch.engine.ray.window import Window
from dpbatch.engine.stages import ignore, never
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import ClusterOptions, Limits, Outcome, Seconds, Stages, Status, outcome_of

_POLL_S = 0.25
_SURVEY_S = 5.0
_MOST_LOSSES = 10
"""So often a photo may be lost with a node before that counts as its own fault."""
_LOST = (NodeDiedError, ObjectLostError, ActorUnavailableError)
_PATIENCE_S = 600.0
"""Added to the time limit of a step: so long a cluster may let us wait for its processors."""
_COLOURS = re.compile("\x1b\\[[0-9;]*m")


@dataclass(frozen=True)
class RayEngine:
    """Runs `stages` on a Ray cluster.

    options: which cluster, and what an actor is given. A process that has joined a cluster already
        stays in that.
    loaders: photos that may be read ahead at a time; 0 finds out what keeps the actors busy.
    needs: what every node is probed for before the first photo; None asks nothing.
    clean: done on every node at the end: takes away what processes that died left half written.
    should_stop, on_retry, limits, log: as for `LocalEngine`; Ray's chatter goes to `log` too.
    on_use: told every few seconds how busy each actor has been since it was ready, 0 to 1.
    on_note: warnings for people.
    """

    stages: Stages
    options: ClusterOptions = field(default_factory=ClusterOptions)
    loaders: int = 0
    needs: Needs | None = None
    clean: Callable[[], None] | None = None
    should_stop: Callable[[], bool] = never
    limits: Limits = field(default_factory=Limits)
    on_retry: Callable[[Any, str], None] = ignore
    on_use: Callable[[Sequence[float]], None] = ignore
    on_note: Callable[[str], None] = ignore
    log: Path | None = None

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[Any, Outcome]]:
        """See `Engine.run`.

        Raises AbortError where the cluster cannot be joined, a node lacks what the run needs, no
        actor can be built, nothing moves any more, and after `limits.crashes_in_a_row`.
        """
        with joined(self.options.address, self.log):
            if self.needs is not None:
                with node_check(self.needs) as problem_here:
                    check_nodes(living_nodes(), problem_here, self.on_note)
            run = _Run(self, jobs)
            try:
                yield from run.outcomes()
            finally:
                run.end()
            if self.clean is not None:
                on_all_nodes(self.clean)


@dataclass(eq=False)
class _Photo:
    """A photo in flight.

    call: the step that runs; None while a loaded photo waits for an actor.
    loaded, restored: references of results in the object store; let go of once they are used.
    node: where the loaded one lies. given_s, began_s: when the running step was handed over and
    when it began, None before it has.
    """

    job: Any
    stage: str
    call: TaskCall | ActorCall | None
    actor: Actor | None = None
    loaded: Any = None
    restored: Any = None
    node: str = ""
    ahead_of: Actor | None = None
    given_s: float = field(default_factory=time.monotonic)
    began_s: float | None = None
    seconds: Seconds = field(default_factory=Seconds)


class _Run:
    def __init__(self, engine: RayEngine, jobs: Iterable[Any]) -> None:
        self._engine = engine
        self._attempts = Attempts(jobs, engine.limits, engine.on_retry)
        self._losses: Counter[str] = Counter()
        self._photos: list[_Photo] = []
        self._loaded: deque[_Photo] = deque()
        self._stages = ray.put(engine.stages)
        self._pool = Pool(self._stages, engine.options, engine.on_note)
        self._window = Window(engine.loaders)
        self._metrics = Metrics()
        options = {"num_returns": "streaming", "max_retries": 0, "num_cpus": 1}
        self._load: Any = ray.remote(ray_steps.load).options(
            **options, scheduling_strategy="SPREAD"
        )
        self._save: Any = ray.remote(ray_steps.save).options(**options)
        self._news_s = time.monotonic()
        self._surveyed_s = -_SURVEY_S

    def outcomes(self) -> Iterator[tuple[Any, Outcome]]:
        while True:
            stopping = self._engine.should_stop()
            if stopping:
                self._give_up()
            else:
                self._survey()
                self._begin()
            if not self._photos and (stopping or not self._attempts.left):
                return
            self._check_that_something_moves()
            for job, outcome in chain(self._listen(), self._end_the_overdue()):
                self._metrics.ended(outcome)
                yield job, outcome
                self._news_s = time.monotonic()  # the caller may have taken its time

    def end(self) -> None:
        """Leaves nothing running, however the run ended."""
        for photo in self._photos:
            if photo.call is not None:
                photo.call.cancel()
        self._pool.close()

    def _survey(self) -> None:
        """Looks now and then at what the cluster has become."""
        now = time.monotonic()
        if now - self._surveyed_s < _SURVEY_S and not self._pool.has_lost_one:
            return
        self._surveyed_s = now
        nodes = living_nodes()
        self._pool.follow(nodes)
        self._window.follow(nodes, self._pool.size)
        if warning := self._window.warning():
            self._engine.on_note(warning)
        busy = self._pool.use()
        self._engine.on_use(busy)
        self._metrics.follow(len(self._photos), busy)

    def _check_that_something_moves(self) -> None:
        limit_s = self._engine.limits.step_s
        if limit_s and time.monotonic() - self._news_s > limit_s + _PATIENCE_S:
            raise AbortError(
                f"nothing has moved for {(limit_s + _PATIENCE_S) / 60:.0f} minutes: the cluster "
                f"gives {self._pool.size} actors and no processor for what waits"
            )

    def _give_up(self) -> None:
        """Ends all that would still take long: reading and restoring."""
        for photo in [photo for photo in self._photos if photo.restored is None]:
            if photo.call is not None:
                photo.call.cancel()
            self._forget(photo)
        self._pool.close()

    # Work goes out ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """Gives idle actors work, and reads ahead as far as the window lets us."""
        for actor in self._pool.idle():
            if self._loaded:
                self._restore(self._nearest(actor), actor)
        self._fetch_ahead()
        while len(self._photos) < self._window.size:
            job = self._attempts.next(len(self._photos))
            if job is None:
                return
            call = TaskCall(self._load.remote(self._stages, job))
            self._photos.append(_Photo(job, "load", call))

    def _nearest(self, actor: Actor) -> _Photo:
        """Takes the loaded photo that is on its way to the actor, or on its node, or the oldest."""

        def distance(photo: _Photo) -> int:
            if photo.ahead_of is actor:
                return 0
            if photo.node == actor.node:
                return 1
            return 2 if photo.ahead_of is None else 3

        photo = min(self._loaded, key=distance)
        self._loaded.remove(photo)
        return photo

    def _restore(self, photo: _Photo, actor: Actor) -> None:
        photo.stage, photo.actor = "restore", actor
        photo.given_s = photo.began_s = time.monotonic()
        photo.call = actor.restore(photo.loaded)

    def _fetch_ahead(self) -> None:
        """Photos that were loaded where no actor is travel while actors are busy with others."""
        lacking = [actor for actor in self._pool.busy() if not actor.has_ahead]
        for photo in self._loaded:
            if lacking and photo.ahead_of is None and not self._pool.is_on(photo.node):
                photo.ahead_of = lacking.pop()
                photo.ahead_of.fetch(photo.loaded)

    # News comes in ---------------------------------------------------------------------------

    def _listen(self) -> Iterator[tuple[Any, Outcome]]:
        """Waits a moment for news, and hears all there is."""
        speaking = {photo.call.waits_for: photo for photo in self._photos if photo.call is not None}
        waiting = [*speaking, *self._pool.waits_for()]
        if not waiting:
            time.sleep(_POLL_S)
            return
        for ref in ready(waiting, _POLL_S):
            self._news_s = time.monotonic()
            if ref in speaking:
                yield from self._hear(speaking[ref])
            else:
                self._pool.hear(ref)

    def _hear(self, photo: _Photo) -> Iterator[tuple[Any, Outcome]]:
        assert photo.call is not None
        try:
            said = photo.call.hear()
        except RayError as error:
            yield from self._failed(photo, error)
            return
        if isinstance(said, ray_steps.Begun):
            photo.began_s = time.monotonic()
            if photo.stage == "load":
                photo.node = said.node
        elif isinstance(said, ray_steps.Verdict):
            yield from self._judge(photo, said)

    def _judge(self, photo: _Photo, verdict: ray_steps.Verdict) -> Iterator[tuple[Any, Outcome]]:
        """A step has ended as it should, or as it foresaw: the next one begins, if there is one."""
        assert photo.call is not None
        photo.seconds = replace(photo.seconds, **{photo.stage: verdict.seconds})
        result, photo.call = photo.call.result, None
        self._metrics.step(photo.stage, verdict.seconds)
        turnaround_s = time.monotonic() - photo.given_s
        self._window.learn(photo.stage, turnaround_s, verdict.result_bytes)
        if photo.actor is not None:
            self._pool.works(photo.actor, verdict.seconds)
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
            photo.stage, photo.given_s, photo.began_s = "save", time.monotonic(), None
            photo.call = TaskCall(self._save.remote(self._stages, photo.job, result))

    def _failed(self, photo: _Photo, error: RayError) -> Iterator[tuple[Any, Outcome]]:
        """A step did not come to its end. Who worked on it must go, unless it is gone."""
        if isinstance(error, LocalRayletDiedError):
            raise AbortError(f"Ray has ended on this machine: {error}") from error
        is_lost = isinstance(error, _LOST)
        if photo.actor is not None and not isinstance(error, ObjectLostError):
            living = {node.id for node in living_nodes()}
            is_lost = is_lost or photo.actor.node not in living
            self._pool.drop(photo.actor)
        elif photo.actor is not None:
            self._pool.works(photo.actor, 0.0)
        if is_lost:
            self._losses[photo.job.id] += 1
            if self._losses[photo.job.id] <= _MOST_LOSSES:
                self._forget(photo)
                self._attempts.interrupted(photo.job)
                return
        detail = _COLOURS.sub("", str(error)) if isinstance(error, RayTaskError) else ""
        yield from self._crash(photo, why(error), detail)

    def _end_the_overdue(self) -> Iterator[tuple[Any, Outcome]]:
        limit_s = self._engine.limits.step_s
        now = time.monotonic()
        for photo in list(self._photos):
            if not limit_s or photo.began_s is None or now - photo.began_s <= limit_s:
                continue
            if photo.call is None or ready([photo.call.waits_for], 0):
                continue  # done in time; we have not listened
            photo.call.cancel()
            if photo.actor is not None:
                self._pool.drop(photo.actor)
            late = f"stopped, not done within {limit_s / 60:.3g} minutes, the time limit"
            yield from self._crash(photo, late)

    def _crash(self, photo: _Photo, reason: str, detail: str = "") -> Iterator[tuple[Any, Outcome]]:
        """The photo has lost a try."""
        self._forget(photo)
        log = self._engine.log
        where = f"; see {log}" if log is not None and not detail else ""
        error = WorkerCrashError(f"{photo.job}: the {photo.stage} process died: {reason}{where}")
        outcome = self._attempts.crashed(photo.job, photo.stage, error, photo.seconds)
        if outcome is not None:
            yield photo.job, replace(outcome, detail=detail)

    def _forget(self, photo: _Photo) -> None:
        self._photos.remove(photo)
        if photo in self._loaded:
            self._loaded.remove(photo)


def _outcome(photo: _Photo, verdict: ray_steps.Verdict) -> Outcome:
    if verdict.error is not None:
        return outcome_of(verdict.error, photo.stage, photo.seconds)
    return Outcome(Status.DONE, "save", saved=verdict.saved, seconds=photo.seconds)
