"""Time the stages of photos one after the other in this process.

`python -m dpbatch.tools.benchmark.stages SHOOT OUT SETTINGS` with the settings as JSON prints the
figures as JSON; a process of its own, so that the first photo is a cold one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from torch import nn

from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.engine.attempts import ignore
from dpbatch.settings import Settings
from dpbatch.tools.benchmark.clock import Clock
from dpbatch.tools.benchmark.figures import Spent, StageFigures
from dpbatch.tools.benchmark.floor import (
    NetworkCost,
    floor_s,
    measure_machine,
    network_cost,
)
from dpbatch.types import Job, Photo
from ldp.devices import choose_device, choose_precision
from ldp.models.network import LDPNet
from ldp.models.released import LDPReleased
from ldp.models.weights import resolve, sha256

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
network's calls are seen through its hooks."""


class _NetworkWatch:
    """Counts the time of a network's calls and the pixels that it is given."""

    def __init__(self, clock: Clock) -> None:
        self.pixels = 0
        self.cost: NetworkCost | None = None
        self._clock = clock
        nn.modules.module.register_module_forward_pre_hook(self._before)
        nn.modules.module.register_module_forward_hook(self._after)

    def _before(self, module: nn.Module, given: Any) -> None:
        if not _is_network(module):
            return
        if self.cost is None:
            self.cost = network_cost(getattr(module, "_orig_mod", module))
        self.pixels += given[0].shape[0] * given[0].shape[-2] * given[0].shape[-1]
        self._clock.enter("network")

    def _after(self, module: nn.Module, given: Any, result: Any) -> None:
        if _is_network(module):
            self._clock.leave()


def _is_network(module: nn.Module) -> bool:
    # A compiled network wraps the original; that of the cost count is on the meta device.
    network = getattr(module, "_orig_mod", module)
    if not isinstance(network, LDPNet | LDPReleased):
        return False
    return next(network.parameters()).device.type != "meta"


def time_stages(photos: Sequence[Path], out: Path, settings: Settings) -> StageFigures:
    """Load, restore and save photos in turn; the first one twice if it is the only one.

    settings: with the network and the blur map named. Raises DpbatchError and LdpError.
    """
    clock = Clock()
    for name, function in WATCHED:
        clock.watch(name, function)
    network = _NetworkWatch(clock)
    stages = PhotoStages(settings, sha256(resolve(settings.restore.model)))
    cold: dict[str, Spent] = {}
    later: list[dict[str, Spent]] = []
    network_px = 0
    restore = None
    shape = (0, 0)
    for path in [*photos, *photos[:1]] if len(photos) == 1 else photos:
        clock.spent = {}
        network.pixels = 0
        outputs = tuple(out / f"{path.stem}{suffix}" for suffix in stages.suffixes)
        job = Job(path.stem, path.name, Photo("raw", (path,), path.stem), outputs)
        with clock.stage("load"):
            loaded = stages.load(job)
        with clock.stage("rest of restoring"):
            if restore is None:
                restore = stages.restorer()
            restored = restore(loaded, ignore)
        with clock.stage("save"):
            stages.save(job, restored)
        shape = restored.value.sharp.shape[:2]
        network_px = network.pixels
        if cold:
            later.append(clock.spent)
        else:
            cold = clock.spent
    device = choose_device(settings.restore.device)
    machine = measure_machine(device, choose_precision(device))
    least = floor_s(machine, shape[0] * shape[1], network_px, network.cost)
    return StageFigures(cold, _medians(later), least, machine)


def _medians(photos: Sequence[Mapping[str, Spent]]) -> Mapping[str, Spent]:
    names = {name for photo in photos for name in photo}
    return {
        name: Spent(
            median(photo.get(name, Spent()).wall_s for photo in photos),
            median(photo.get(name, Spent()).cpu_s for photo in photos),
        )
        for name in names
    }


if __name__ == "__main__":
    shoot, out, settings_json = sys.argv[1:]
    figures = time_stages(
        sorted(Path(shoot).iterdir()), Path(out), msgspec.json.decode(settings_json, type=Settings)
    )
    sys.stdout.write(json.dumps(asdict(figures)) + "\n")
