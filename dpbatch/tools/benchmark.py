"""Measure the time of each step of a run and the memory of all its processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import psutil

from dpbatch.errors import AbortError, SettingsError
from ldp.models.weights import resolve
from training.simulator.cr2.writer import write_dpraw_cr2

_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Result:
    """load_s, restore_s, save_s: means over the photos. run_s: wall time of the whole run.

    peak_memory_gib: of all processes of the run together.
    """

    load_s: float
    restore_s: float
    save_s: float
    run_s: float
    photos: int
    peak_memory_gib: float

    def to_text(self, megapixels: float, model: str) -> str:
        """Return a table for people."""
        return "\n".join(
            [
                f"{self.photos} Dual Pixel RAW of {megapixels:.1f} MP, network {model}",
                f"load      {self.load_s:7.1f} s a photo (decode both frames, split, develop)",
                f"restore   {self.restore_s:7.1f} s a photo (blur map, network)",
                f"save      {self.save_s:7.1f} s a photo (16-bit TIFF)",
                f"run       {self.run_s:7.1f} s for all, start included",
                f"memory    {self.peak_memory_gib:7.2f} GiB at most, all processes together",
            ]
        )


def run_benchmark(width: int, height: int, photos: int, model: str, device: str) -> Result:
    """Run `dpbatch run` on generated Dual Pixel RAW files of width x height active pixels.

    model, device: as the options of `run`. The files lie in a temporary folder. Raises AbortError
    if the run fails, SettingsError for a size that a CR2 cannot have, WeightsError.
    """
    resolve(model)  # raises before the time is spent
    arguments = ("--model", model, "--device", device)
    with tempfile.TemporaryDirectory(prefix="dpbatch-benchmark-") as folder:
        shoot, out = Path(folder) / "shoot", Path(folder) / "sharp"
        shoot.mkdir()
        for number in range(photos):
            left, right = _mosaics(width, height, number)
            try:
                write_dpraw_cr2(shoot / f"IMG_{number:04}.CR2", left, right, seed=number)
            except ValueError as error:
                raise SettingsError(f"size {width}x{height}: {error}") from error
        command = [sys.executable, "-m", "dpbatch", "run", str(shoot), "--out", str(out)]
        return _measured([*command, "--json-log", *arguments], photos)


def _mosaics(
    width: int, height: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return two views of a texture, some pixels apart, in DN above black of each photodiode."""
    rng = np.random.default_rng(seed)
    small = rng.random((height // 8, width // 8), np.float32)
    texture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) * 4000 + 500
    shift_px = width // 1000 * 2
    noise = (rng.standard_normal((height, width), np.float32) * 12 for _ in range(2))
    left, right = (view + grain for view, grain in zip((texture, texture), noise, strict=True))
    return left, np.roll(right, -shift_px, 1)


def _measured(command: list[str], photos: int) -> Result:
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _memory_bytes(process.pid))
            time.sleep(_SAMPLE_S)
        run_s = time.monotonic() - start
        lines = process.stdout.read().splitlines() if process.stdout else []
    records = [json.loads(line) for line in lines]
    done = [record for record in records if record.get("status") == "done"]
    if process.returncode or len(done) != photos:
        raise AbortError(f"the benchmark's run ended with {process.returncode}: {lines[-3:]}")
    load_s, restore_s, save_s = (
        float(np.mean([record["seconds"][stage] for record in done]))
        for stage in ("load", "restore", "save")
    )
    return Result(load_s, restore_s, save_s, run_s, photos, peak / 2**30)


def _memory_bytes(pid: int) -> int:
    """Return the memory of a process and its children.

    Shared pages count once if the system reports PSS.
    """
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", 0) or full.rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
