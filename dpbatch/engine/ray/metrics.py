"""Metrics of a run for Prometheus, through the port that every Ray node opens for it."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from dpbatch.types import Outcome

_BOUNDARIES_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class Metrics:
    """Five metrics.

    ray_dpbatch_photos_total{status}, ray_dpbatch_step_seconds{step}, ray_dpbatch_in_flight,
    ray_dpbatch_actors, and ray_dpbatch_actor_busy, the mean over the actors.
    """

    def __init__(self) -> None:
        self._photos = Counter(
            "dpbatch_photos_total", description="Photos finished, by status.", tag_keys=("status",)
        )
        self._seconds = Histogram(
            "dpbatch_step_seconds",
            description="Wall time of a photo's step.",
            boundaries=_BOUNDARIES_S,
            tag_keys=("step",),
        )
        self._in_flight = Gauge("dpbatch_in_flight", description="Photos being worked on.")
        self._actors = Gauge("dpbatch_actors", description="Actors that are ready.")
        self._busy = Gauge("dpbatch_actor_busy", description="Mean busy share of the actors.")

    def finished(self, outcome: Outcome) -> None:
        """Count a photo's outcome."""
        self._photos.inc(tags={"status": outcome.status.value})

    def step(self, name: str, seconds: float) -> None:
        """Record how long a step took."""
        self._seconds.observe(seconds, tags={"step": name})

    def update(self, in_flight: int, busy: Sequence[float]) -> None:
        """Set the current values. busy: share of each actor that is ready, in [0, 1]."""
        self._in_flight.set(in_flight)
        self._actors.set(len(busy))
        if busy:
            self._busy.set(sum(busy) / len(busy))
