"""What a photo costs the processor beside the network, on one thread.

`python -m dpbatch.tools.benchmark.beside PHOTO BLUR` prints, as JSON, wall and processor time of
reading, of what is found ahead, and of writing, for the second of two turns. Nothing is restored:
what is written is the photo as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import torch

from dpbatch.ahead import FoundAhead, find_ahead
from dpbatch.engine.worker import THREADS
from dpbatch.errors import AbortError
from dpbatch.output.metadata import ProcessingNote
from dpbatch.photo import LoadedPhoto, RestoredPhoto, load, save, views_of
from dpbatch.settings import OutputSettings, RawSettings
from dpbatch.tools.benchmark.figures import Spent
from dpbatch.tools.benchmark.runs import THIS_CHECKOUT, environment_of
from dpbatch.types import Photo
from ldp.restore.untouched import untouched_uint16

T = TypeVar("T")


def beside_network(photo: Path, blur: str) -> dict[str, Spent]:
    """Return what each part takes, measured in a process of its own. Raises AbortError.

    blur: the blur map for which to find ahead what can be.
    """
    command = [sys.executable, "-m", "dpbatch.tools.benchmark.beside", str(photo), blur]
    environment = {**environment_of(THIS_CHECKOUT), **dict.fromkeys(THREADS, "1")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise AbortError(f"measuring what is beside the network failed: {ran.stderr[-300:]}")
    return msgspec.json.decode(ran.stdout, type=dict[str, Spent])


def measured_parts(path: Path, blur: str, folder: Path) -> dict[str, Spent]:
    """Return what each part takes in this process. folder: to write to."""
    raw, output = RawSettings(), OutputSettings()
    found: dict[str, Spent] = {}

    def timed(part: str, work: Callable[[], T]) -> T:
        start, start_cpu = time.perf_counter(), time.process_time()
        result = work()
        found[part] = Spent(time.perf_counter() - start, time.process_time() - start_cpu)
        return result

    for _ in range(2):  # the first turn also loads libraries
        loaded = timed("read", partial(load, Photo("raw", (path,), path.stem), raw, output.look))
        ahead = timed("find ahead", partial(_ahead, loaded, raw, blur))
        sharp = untouched_uint16(views_of(loaded, raw, torch.device("cpu")))
        restored = RestoredPhoto(sharp, None, 1, loaded.metadata, ahead.curve, has_look=True)
        target = folder / "photo.tif"
        timed("write", partial(save, restored, target, output, ProcessingNote("measured")))
    return found


def _ahead(loaded: LoadedPhoto, raw: RawSettings, blur: str) -> FoundAhead:
    views = views_of(loaded, raw, torch.device("cpu"))
    return find_ahead(views, loaded.preview, blur)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, help="a Dual Pixel RAW file")
    parser.add_argument("blur", help="the blur map for which to find ahead what can be")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):
        parts = beside_network(args.photo, args.blur)
    else:
        with tempfile.TemporaryDirectory(prefix="dpbatch-beside-") as folder:
            parts = measured_parts(args.photo, args.blur, Path(folder))
    sys.stdout.write(json.dumps({name: asdict(spent) for name, spent in parts.items()}) + "\n")


if __name__ == "__main__":
    main()
