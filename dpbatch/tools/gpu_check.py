"""Measure on a GPU what this program promises of it, in a few minutes, and write it as JSON.

python -m dpbatch.tools.gpu_check gpu.json

What reading a photo, finding ahead what the processor can, and writing it take of processor time.
For each network: the time of a photo on the device by stage, with the network as it is and
compiled, how long compiling takes anew and with what an earlier run kept, how far the result is
from the CPU's, and the floor of each stage; then whole runs, in photos a minute. The file is
written after every part, so that a check that is stopped leaves what it has measured; a part that
fails is named with its error, and the others go on. Each part is announced on the standard error.
It runs on a CPU too, to try it out at a small size.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import dpbatch
import ldp
from dpbatch.batch.photo_stages import centre
from dpbatch.engine.processes import core_count
from dpbatch.errors import DpbatchError
from dpbatch.networks import two_view_header
from dpbatch.photo import LoadedPhoto, load, views_of
from dpbatch.settings import RawSettings
from dpbatch.terminal import printable, say
from dpbatch.tools.benchmark.beside import beside_network
from dpbatch.tools.benchmark.clock import Clock
from dpbatch.tools.benchmark.figures import Machine
from dpbatch.tools.benchmark.floor import floor_s, measure_machine, network_cost
from dpbatch.tools.benchmark.photos import write_photos
from dpbatch.tools.benchmark.runs import THIS_CHECKOUT, measured_run
from dpbatch.tools.benchmark.watch import NetworkWatch, watch_stages
from dpbatch.types import Photo
from ldp.devices import choose_device, choose_precision
from ldp.errors import LdpError
from ldp.models.weights import load_network, resolve
from ldp.restore.compiled import Compiler, inductor
from training.evaluation.metrics import psnr_db

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass(frozen=True)
class CheckOptions:
    """What is measured.

    size_px: (width, height) of the photos, which are wholly out of focus, so that every tile is
        restored. repeats: photos a stage's time is the median of. photos: of a whole run.
    agreement_px: side of the square of which the CPU's result is compared with the device's.
    tile: as for ldp.load. minutes: no part begins after that.
    engines: of the whole runs: local, or ray with the GPUs of an actor, as in ray:0.5, of which two
        share a GPU.
    """

    device: str = "cuda"
    models: tuple[str, ...] = ("tiny", "small")
    size_px: tuple[int, int] = (6720, 4480)
    repeats: int = 5
    photos: int = 48
    agreement_px: int = 1024
    tile: int = 0
    minutes: float = 8.0
    engines: tuple[str, ...] = ("local", "ray:1", "ray:0.5", "ray:0.25")


def run_check(
    options: CheckOptions,
    write: Callable[[dict[str, Any]], None],
    compiler: Compiler = inductor,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return the figures; write(figures) is called after every part.

    tell: is given a line before every part, and the error of one that fails.

    Raises DpbatchError or LdpError where the device or the photo cannot be had.
    """
    started = time.monotonic()
    device = choose_device(options.device)
    tell("measuring the device and making a photo")
    machine = measure_machine(device, choose_precision(device))
    figures: dict[str, Any] = {
        "version": dpbatch.__version__,
        "options": dataclasses.asdict(options),
        "machine": {**dataclasses.asdict(machine), **_environment(device)},
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
        photo = Photo("raw", (path,), path.stem)
        parts: list[tuple[str, Callable[[], None]]] = [
            ("beside the network", partial(_beside, path, options.models, figures))
        ]
        for name in options.models:
            found: dict[str, Any] = {}
            figures["networks"][name] = found
            measured = _Measured(options, device, name, machine, photo, clock, watch)
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
                tell(f"{title}: left out, there is no time for it")
                figures["left out"].append(title)
                continue
            tell(title)
            try:
                part()
            except (DpbatchError, LdpError) as error:
                tell(f"{title}: failed: {error}")
                figures["failed"][title] = str(error)
            figures["seconds"] = time.monotonic() - started
            write(figures)
    write(figures)
    return figures


def _environment(device: torch.device) -> dict[str, Any]:
    """Return the device's name, the versions of PyTorch and CUDA, and the number of cores."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    cores = core_count()
    return {
        "name": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": cores,
    }


@dataclass(frozen=True)
class _Measured:
    """One network on a photo."""

    options: CheckOptions
    device: torch.device
    name: str
    machine: Machine
    photo: Photo
    clock: Clock
    watch: NetworkWatch

    @cached_property
    def loaded(self) -> LoadedPhoto:
        """The photo with what a run beside a GPU finds ahead."""
        return load(self.photo, RawSettings(), find_for=two_view_header(self.name).blur_map)

    def as_it_is(self, figures: dict[str, Any]) -> None:
        """Add the stages' times and their floor."""
        model = self._model()
        figures["first photo s"], _ = self._seconds(model)
        self.watch.pixels = 0
        figures["stages s"] = self._stages(model)
        network_px = self.watch.pixels // self.options.repeats
        width, height = self.options.size_px
        cost = network_cost(load_network(resolve(self.name)))
        floor = floor_s(self.machine, width * height, network_px, cost)
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
        loaded = self.loaded
        matched = loaded.ahead.matched if loaded.ahead else None
        self.clock.spent = {}
        with self.clock.stage("rest of restoring"):
            model.restore_photo(partial(views_of, loaded, RawSettings()), matched=matched)
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


def _beside(photo: Path, models: Sequence[str], figures: dict[str, Any]) -> None:
    """Add what a photo costs the processor beside each network."""
    for name in models:
        spent = beside_network(photo, two_view_header(name).blur_map)
        figures["networks"][name]["beside the network s"] = {
            part: dataclasses.asdict(each) for part, each in spent.items()
        }


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
        found = measured_run(THIS_CHECKOUT, Path(folder), arguments)
    per_minute = 60 / found.later_s if found.later_s else None
    figures[f"{engine}, {name}"] = {**dataclasses.asdict(found), "photos a minute": per_minute}


def _psnr_db(one: npt.NDArray[np.uint16], other: npt.NDArray[np.uint16]) -> float:
    """Return the agreement of two pictures, at most that of pictures which differ by one level."""
    return min(psnr_db(one / 65535, other / 65535), 20 * math.log10(65535))


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

    def option(name: str, default: object, text: str, **more: Any) -> None:
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        parser.add_argument(name, default=default, help=f"{text} (default: {shown})", **more)

    option("--device", defaults.device, "cuda, cuda:N or cpu")
    option("--models", defaults.models, "networks: names or weights files", nargs="+")
    size = {"nargs": 2, "type": int, "metavar": ("W", "H")}
    option("--size", defaults.size_px, "width and height of a photo in px", **size)
    option("--repeats", defaults.repeats, "photos a stage's time is the median of", type=int)
    option("--photos", defaults.photos, "photos of a whole run", type=int)
    engines = "engines of the whole runs: local, or ray:N with N GPUs for each network"
    option("--engines", defaults.engines, engines, nargs="*")
    option("--minutes", defaults.minutes, "no part begins after that", type=float)
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
        figures = run_check(options, lambda found: _write(args.json, found), tell=_tell)
    except (DpbatchError, LdpError) as error:
        sys.exit(f"gpu_check: {error}")
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    sys.exit(1 if figures["failed"] else 0)


def _tell(line: str) -> None:
    say(f"gpu_check: {printable(line)}", sys.stderr)


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
