"""Time the CLIP maps of a 1680 x 1120 photo with randomly initialised networks of real size.

    python -m training.evaluation.clip_speed [--device cpu] [--patches 32]

Weights do not change the time, so none are fetched.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ldp.blur.clip_dense import ClipEstimator
from ldp.blur.clip_model import VIT_B_16, VIT_B_32, Clip, frozen
from ldp.blur.clip_patch import BATCH, PATCH_PX, ClipPatchEstimator, patch_starts
from ldp.devices import choose_device
from ldp.types import ViewPair

HEIGHT, WIDTH = 1120, 1680


@dataclass(frozen=True)
class Seconds:
    """Two measures of one time.

    wall: by the clock. processor: of all threads; other work on the machine changes it less.
    """

    wall: float
    processor: float

    def times(self, factor: float) -> Seconds:
        """Return the time of so many times the work."""
        return Seconds(self.wall * factor, self.processor * factor)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Times the CLIP maps of a 1680 x 1120 photo.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--patches", type=int, default=24, help="patches timed in one go")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    given = parser.parse_args()
    device = choose_device(given.device)
    patches = len(patch_starts(HEIGHT)) * len(patch_starts(WIDTH))
    few = min(given.patches, patches)
    print(
        f"{WIDTH} x {HEIGHT} on {device.type}, {torch.get_num_threads()} threads, fastest of "
        f"{given.rounds}. Patches: {few} were timed, x {patches / few:.4g} for all {patches}."
    )
    torch.manual_seed(0)
    times = _patch_seconds(_random_clip(VIT_B_16, device), few, given.rounds)
    released, single, batched = (found.times(patches / few) for found in times)
    _show("clip-patch, one patch and its prompt at a time (as released)", released)
    _show("clip-patch, one patch at a time, the prompt encoded once", single)
    _show(f"clip-patch, up to {BATCH[device.type]} patches at a time", batched)
    dense = _dense_seconds(_random_clip(VIT_B_32, device), given.rounds)
    _show("clip (dense), measured whole", dense)
    _compare("batches to the released way", released, batched)
    _compare("batches to single patches", single, batched)
    _compare("dense to batches", batched, dense)


def _show(what: str, seconds: Seconds) -> None:
    line = f"{seconds.wall:8.1f} s by the clock, {seconds.processor:8.1f} s of processor time"
    print(f"{what:<62} {line}", flush=True)


def _compare(what: str, slow: Seconds, fast: Seconds) -> None:
    by_processor = slow.processor / fast.processor
    print(f"{what}: {slow.wall / fast.wall:.2f} x as fast, {by_processor:.2f} x by processor time")


def _patch_seconds(clip: Clip, count: int, rounds: int) -> list[Seconds]:
    """Time `count` patches: singly with the prompt each time, singly, in batches."""
    estimator = ClipPatchEstimator.of(clip)
    single = replace(estimator, batch=1)
    one, many = _views(PATCH_PX, PATCH_PX), _views(PATCH_PX, PATCH_PX * count)

    def with_prompt() -> None:
        for _ in range(count):
            replace(ClipPatchEstimator.of(clip), batch=1).logits(one)

    ways: tuple[Callable[[], object], ...] = (
        with_prompt,
        lambda: single.logits(many),
        lambda: estimator.logits(many),
    )
    # In turns, so that whatever else runs on the machine slows all of them alike.
    found = [[_seconds(way, clip.device) for way in ways] for _ in range(rounds)]
    return [_fastest([times[i] for times in found]) for i in range(len(ways))]


def _dense_seconds(clip: Clip, rounds: int) -> Seconds:
    estimator, photo = ClipEstimator.of(clip), _views(HEIGHT, WIDTH)
    return _fastest(
        [_seconds(lambda: estimator.estimate(photo), clip.device) for _ in range(rounds)]
    )


def _fastest(times: list[Seconds]) -> Seconds:
    return Seconds(min(x.wall for x in times), min(x.processor for x in times))


def _seconds(work: Callable[[], object], device: torch.device) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def _random_clip(name: str, device: torch.device) -> Clip:
    import open_clip

    return frozen(open_clip.create_model(name, load_weights=False), device)


def _views(height: int, width: int) -> ViewPair:
    left, right = np.random.default_rng(0).random((2, height, width, 3), np.float32)
    return ViewPair(left, right)


if __name__ == "__main__":
    main()
