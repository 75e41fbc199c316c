"""Which functions' time belongs to which stage."""

from __future__ import annotations

import torch
from torch import Tensor

from dpbatch.tools.benchmark.clock import Clock, find
from ldp.restore.compiled import Run

WATCHED = (
    ("develop", "dpbatch.raw.develop:develop"),
    ("develop", "dpbatch.raw.develop:RawViews.__init__"),
    ("develop", "dpbatch.raw.develop:RawViews.pair"),
    ("develop", "dpbatch.raw.develop:RawViews.untouched"),
    ("develop", "dpbatch.raw.develop:RawViews.reduced"),
    ("blur map", "ldp.blur.disparity:DisparityEstimator.estimate"),
    ("blur map", "ldp.blur.radius:RadiusEstimator.estimate"),
    ("blur map", "ldp.blur.learned:LearnedEstimator.estimate"),
    ("blur map", "ldp.blur.clip_dense:ClipEstimator.estimate"),
    ("blur map", "ldp.blur.clip_patch:ClipPatchEstimator.estimate"),
)
"""The stages that are parts of load or restore, with the functions whose time is theirs; the
network's calls are seen apart."""
RUN_NETWORK = "ldp.restore.deblur:run_network"


class NetworkWatch:
    """Counts the time of a network's calls and the pixels that it is given.

    It replaces the function that calls networks for the rest of the process.
    """

    def __init__(self, clock: Clock) -> None:
        self.pixels = 0
        self._clock = clock
        owner, name = find(RUN_NETWORK)
        self._run_network = getattr(owner, name)
        setattr(owner, name, self._watched)

    def _watched(self, run: Run, views: Tensor, blur: Tensor, *, precision: torch.dtype) -> Tensor:
        self.pixels += views.shape[0] * views.shape[-2] * views.shape[-1]
        with self._clock.stage("network"):
            restored: Tensor = self._run_network(run, views, blur, precision=precision)
        return restored


def watch_stages(clock: Clock) -> NetworkWatch:
    """Count the time of the parts of load and restore, for the rest of the process."""
    for name, function in WATCHED:
        clock.watch(name, function)
    return NetworkWatch(clock)
