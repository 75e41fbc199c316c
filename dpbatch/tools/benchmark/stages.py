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

import msgspec

from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.engine.attempts import ignore
from dpbatch.settings import Settings
from dpbatch.tools.benchmark.clock import Clock
from dpbatch.tools.benchmark.figures import Spent, StageFigures
from dpbatch.tools.benchmark.floor import floor_s, measure_machine, network_cost
from dpbatch.tools.benchmark.watch import watch_stages
from dpbatch.types import Job, Photo
from ldp.devices import choose_device, choose_precision
from ldp.models.weights import load_network, resolve, sha256


def time_stages(photos: Sequence[Path], out: Path, settings: Settings) -> StageFigures:
    """Load, restore and save photos in turn; the first one twice if it is the only one.

    settings: with the network and the blur map named. Raises DpbatchError and LdpError.
    """
    clock = Clock()
    network = watch_stages(clock)
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
    cost = network_cost(load_network(resolve(settings.restore.model)))
    least = floor_s(machine, shape[0] * shape[1], network_px, cost)
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
