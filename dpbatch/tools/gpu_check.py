"""Measure on a GPU what this program promises of it, in a few minutes, and write it as JSON.

python -m dpbatch.tools.gpu_check gpu.json

For each network: the time of a photo on the device by stage, with the network as it is and
compiled, how long compiling takes anew and with what an earlier run kept, how far the result is
from the CPU's, and the floor of each stage; then whole runs, in photos a minute. The file is
written after every part, so that a check that is stopped leaves what it has measured; a part that
fails is named with its error, and the others go on. It runs on a CPU too, to try it out at a small
size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import dpbatch
import ldp
from dpbatch.errors import DpbatchError
from dpbatch.photo import LoadedPhoto, centre, load, views_of
from dpbatch.settings import RawSettings
from dpbatch.tools.benchmark.clock import Clock
from dpbatch.tools.benchmark.floor import floor_s, measure_machine, network_cost
from dpbatch.tools.benchmark.photos import write_photos
from dpbatch.tools.benchmark.runs import measured_run
from dpbatch.tools.benchmark.watch import watch_stages
from dpbatch.types import Photo
from ldp.devices import choose_device, choose_precision
from ldp.errors import LdpError
from ldp.models.weights import load_network, resolve
from ldp.restore.compiled import Compiler, inductor

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_CHECKOUT = Path(dpbatch.__file__).parents[1]


@dataclass(frozen=True)
class CheckOptions:
    """What is measured.

    size_px: (width, height) of the photos, which are wholly out of focus, so that every tile is
        restored. repeats: photos a stage's time is the median of. photos: of a whole run.
    agreement_px: side of the square of which the CPU's result is compared with the device's.
    tile: as for ldp.load. minutes: no part begins after that.
    engines: of the whole runs: local, or ray with the GPUs of an actor, as in ray:0.25, of which
        four share a GPU: one matches views on the processor while another has the GPU.
    """

    device: str = "cuda"
    models: tuple[str, ...] = ("tiny", "small")
    size_px: tuple[int, int] = (6720, 4480)
    repeats: int = 5
    photos: int = 48
    agreement_px: int = 1024
    tile: int = 0
    minutes: float = 8.0
    engines: tuple[str, ...] = ("ray:0.25", "ray:1", "local", "ray:0.5")


def run_check(
    options: CheckOptions, write: Callable[[dict[str, Any]], None], compiler: Compiler = inductor
) -> dict[str, Any]:
    """Return the figures; write(figures) is called after every part.

    Raises DpbatchError or LdpError where the device or the photo cannot be had.
    """
    started = time.monotonic()
    device = choose_device(options.device)
    figures: dict[str, Any] = {
        "version": dpbatch.__version__,
        "options": dataclasses.asdict(options),
        "machine": _machine(device),
        "networks": {},
        "runs": {},
        "left out": [],
        "failed": {},
    }
    clock = Clock()
    watch = watch_stages(clock)
    with (
        tempfile.TemporaryDirectory(prefix="dpbatch-gpu-check-") as folder,
        _compiled_networks_in(Path(folder) / "compiled"),
    ):
        shoot = Path(folder) / "shoot"
        shoot.mkdir()
        write_photos(shoot, options.size_px, 1, in_focus=0.0)
        (path,) = shoot.iterdir()
        loaded = load(Photo("raw", (path,), path.stem), RawSettings())
        parts: list[tuple[str, Callable[[], None]]] = []
        for name in options.models:
            found: dict[str, Any] = {}
            figures["networks"][name] = found
            measured = _Measured(options, device, name, loaded, clock, lambda: watch.pixels)
            parts += [
                (f"{name}: as it is", partial(measured.as_it_is, found)),
                (f"{name}: agreement", partial(measured.agreement, found)),
                (f"{name}: compiled", partial(measured.compiled, found, compiler)),
            ]
        for engine in options.engines:
            for name in options.models:
                run = partial(_run, options, engine, name, path, figures["runs"])
                parts.append((f"run: {engine}, {name}", run))
        for title, part in parts:
            if time.monotonic() - started > 60 * options.minutes:
                figures["left out"].append(title)
                continue
            try:
                part()
            except (DpbatchError, LdpError) as error:
                figures["failed"][title] = str(error)
            figures["seconds"] = time.monotonic() - started
            write(figures)
    write(figures)
    return figures


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    measured = measure_machine(device, choose_precision(device))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        **dataclasses.asdict(measured),
        "name": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": cores,
    }


@dataclass(frozen=True)
class _Measured:
    """One network on a photo. pixels: how many its windows have had."""

    options: CheckOptions
    device: torch.device
    name: str
    loaded: LoadedPhoto
    clock: Clock
    pixels: Callable[[], int]

    def as_it_is(self, figures: dict[str, Any]) -> None:
        """Add the stages' times and their floor."""
        model = self._model()
        figures["first photo s"], _ = self._seconds(model)
        before = self.pixels()
        figures["stages s"] = self._stages(model)
        network_px = (self.pixels() - before) // self.options.repeats
        machine = measure_machine(self.device, choose_precision(self.device))
        width, height = self.options.size_px
        cost = network_cost(load_network(resolve(self.name)))
        floor = floor_s(machine, width * height, network_px, cost)
        figures["floor s"] = {
            stage: floor[stage] for stage in figures["stages s"] if stage in floor
        }
        figures["windows' pixels"] = network_px

    def agreement(self, figures: dict[str, Any]) -> None:
        """Add how close the device's result of the middle of the photo is to the CPU's."""
        here = self._sharp(self._model(), self.device)
        cpu = torch.device("cpu")
        figures["PSNR to the CPU's, dB"] = _psnr_db(here, self._sharp(self._model("cpu"), cpu))

    def compiled(self, figures: dict[str, Any], compiler: Compiler) -> None:
        """Add how long compiling takes, without and with what it keeps, and what it gives."""
        figures["compiling s"] = found = {}
        for turn in ("anew", "kept"):
            torch.compiler.reset()
            model = self._model()
            start = time.perf_counter()
            succeeded = model.compile_in_background(compiler)()
            found[turn] = time.perf_counter() - start if succeeded else None
        if succeeded:
            figures["stages compiled s"] = self._stages(model)
            figures["PSNR compiled to as it is, dB"] = _psnr_db(
                self._sharp(model, self.device), self._sharp(self._model(), self.device)
            )

    def _model(self, device: str = "") -> ldp.Model:
        device = device or self.options.device
        return ldp.load(self.name, device=device, tile=self.options.tile)

    def _seconds(self, model: ldp.Model) -> tuple[float, dict[str, float]]:
        """Restore the photo; return the time of all, and by stage."""
        self.clock.spent = {}
        with self.clock.stage("rest of restoring"):
            model.restore_photo(partial(views_of, self.loaded, RawSettings()))
        stages = {name: spent.wall_s for name, spent in self.clock.spent.items()}
        return sum(stages.values()), stages

    def _stages(self, model: ldp.Model) -> dict[str, float]:
        turns = [self._seconds(model)[1] for _ in range(self.options.repeats)]
        stages = {name: median(turn[name] for turn in turns) for name in turns[0]}
        return {**stages, "all": median(sum(turn.values()) for turn in turns)}

    def _sharp(self, model: ldp.Model, device: torch.device) -> npt.NDArray[np.uint16]:
        square = centre(self.loaded, self.options.agreement_px)
        views = views_of(square, RawSettings(), device)
        return model.restore_photo(lambda _: views).sharp


def _run(
    options: CheckOptions, engine: str, name: str, photo: Path, figures: dict[str, Any]
) -> None:
    """Add a whole run over copies of a photo."""
    torch.cuda.empty_cache()  # the run's processes need the memory
    with tempfile.TemporaryDirectory(prefix="dpbatch-gpu-check-") as folder:
        for number in range(options.photos):
            os.link(photo, Path(folder) / f"IMG_{number:04}{photo.suffix}")
        kind, _, share = engine.partition(":")
        arguments: tuple[str, ...] = ("--model", name, "--engine", kind)
        arguments += ("--gpus-per-actor", share) if share else ("--device", options.device)
        found = measured_run(_CHECKOUT, Path(folder), arguments)
    per_minute = 60 / found.later_s if found.later_s else None
    figures[f"{engine}, {name}"] = {**dataclasses.asdict(found), "photos a minute": per_minute}


def _psnr_db(one: npt.NDArray[np.uint16], other: npt.NDArray[np.uint16]) -> float:
    """Return the agreement of two pictures, at most that of pictures which differ by one level."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2)) / 65535**2
    return -10 * math.log10(max(error, 65535.0**-2))


@contextmanager
def _compiled_networks_in(folder: Path) -> Iterator[None]:
    """Keep compiled networks in a folder, also those of the runs, which find them there."""
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CACHE]
        else:
            os.environ[_CACHE] = before


def main() -> None:
    """Command line."""
    defaults = CheckOptions()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", type=Path, help="file that the figures are written to")
    parser.add_argument("--device", default=defaults.device)
    parser.add_argument("--models", nargs="+", default=defaults.models)
    parser.add_argument("--size", nargs=2, type=int, default=defaults.size_px, metavar=("W", "H"))
    parser.add_argument("--repeats", type=int, default=defaults.repeats)
    parser.add_argument("--photos", type=int, default=defaults.photos, help="of a whole run")
    parser.add_argument("--engines", nargs="*", default=defaults.engines)
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    args = parser.parse_args()
    options = CheckOptions(
        device=args.device,
        models=tuple(args.models),
        size_px=(args.size[0], args.size[1]),
        repeats=args.repeats,
        photos=args.photos,
        engines=tuple(args.engines),
        minutes=args.minutes,
    )
    try:
        figures = run_check(options, lambda found: _write(args.json, found))
    except (DpbatchError, LdpError) as error:
        sys.exit(f"gpu_check: {error}")
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    sys.exit(1 if figures["failed"] else 0)


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
