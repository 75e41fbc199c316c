"""The photos that the Ray engine has in flight."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic

from dpbatch.engine.ray.actors import Actor
from dpbatch.engine.ray.calls import ActorCall, TaskCall
from dpbatch.types import JobT, Seconds

_NUMBERS = itertools.count()


@dataclass(eq=False)
class PhotoInFlight(Generic[JobT]):
    """A photo in flight.

    call: the running step; None while a loaded photo waits for an actor.
    loaded, restored: references of results in the object store; dropped once they are used.
    node: where the loaded photo is stored.
    prefetched_by: the actor that the loaded photo was sent to ahead of its turn.
    number: of this try of the photo, unlike any other's.
    given_s, started_s: when the running step was submitted and when it started, None before that.
    """

    job: JobT
    stage: str
    call: TaskCall | ActorCall | None
    actor: Actor | None = None
    loaded: Any = None
    restored: Any = None
    node: str = ""
    prefetched_by: Actor | None = None
    given_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    seconds: Seconds = field(default_factory=Seconds)
    number: int = field(default_factory=lambda: next(_NUMBERS))


def nearest(loaded: Iterable[PhotoInFlight[JobT]], actor: Actor) -> PhotoInFlight[JobT]:
    """Return the photo that was sent to the actor, or lies on its node, or is the oldest.

    loaded: the photos that wait for an actor, the oldest first; at least one.
    """

    def distance(photo: PhotoInFlight[JobT]) -> int:
        if photo.prefetched_by is actor:
            return 0
        if photo.node == actor.node:
            return 1
        return 2 if photo.prefetched_by is None else 3

    return min(loaded, key=distance)


def next_of(
    loaded: Iterable[PhotoInFlight[JobT]], actor: Actor, has_actor: Callable[[str], bool]
) -> PhotoInFlight[JobT] | None:
    """Return the photo to send to a busy actor ahead of its turn, the oldest first; or None.

    It is one of the actor's node, or else of a node without an actor: the photos of other nodes
    are left to their own actors.

    loaded: as for nearest. has_actor: of a node.
    """
    free = [photo for photo in loaded if photo.prefetched_by is None]
    here = [photo for photo in free if photo.node == actor.node]
    return next(iter(here or [photo for photo in free if not has_actor(photo.node)]), None)
