"""Judge --refocus: a restored photo that is drawn anew, beside what the lens would have drawn.

    python -m training.evaluation.refocus PHOTOS --count 4

PHOTOS: as for `training.evaluation.focus`, whose scenes of two depths these are. `dpbatch run`
restores each, draws it focused on the near depth and on the far one (--refocus), and leaves it as
it was taken (--strength 0). All three are compared with the scene rendered with that focus, over
the whole frame but a margin of the largest radius.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ldp.types import FloatArray
from training.evaluation.focus import (
    FAR,
    LENS,
    NEAR,
    command,
    disparities_px,
    make_scene,
    restored,
    surfaces,
)
from training.evaluation.metrics import psnr_db
from training.pictures import encode_clipped
from training.simulator.render import render

RUNS = ("refocused", "restored", "original")


def evaluate(
    photos: Sequence[FloatArray], radius_px: float, count: int, model: str
) -> dict[tuple[str, str], dict[str, float]]:
    """Return the dB of RUNS by scene and depth in focus, of the first `count` photos.

    photos: linear light. radius_px: of the stronger blur. Raises DataError.
    """
    scenes = {f"{index:02}": make_scene(photos, index, radius_px) for index in range(count)}
    near_px, far_px = disparities_px(next(iter(scenes.values())))
    choices = {
        "restored": ["--keep-restoration"],
        "original": ["--strength=0"],
        "near": [f"--refocus={near_px:.3f}"],
        "far": [f"--refocus={far_px:.3f}"],
    }
    with tempfile.TemporaryDirectory() as folder:
        pictures = restored(Path(folder), scenes, model, choices)
    margin = round(radius_px)
    inner = slice(margin, -margin), slice(margin, -margin)
    found = {}
    for index, (name, of_scene) in enumerate(pictures.items()):
        for focus, share in (("near", NEAR), ("far", FAR)):
            pair = render(surfaces(photos, index, radius_px, share * radius_px), LENS)
            truth = encode_clipped(0.5 * (pair.left + pair.right)).astype(np.float64)[inner]
            runs = zip(RUNS, (focus, "restored", "original"), strict=True)
            found[name, focus] = {run: psnr_db(of_scene[key][inner], truth) for run, key in runs}
    return found


def lines(
    photos: Sequence[FloatArray], radii_px: Sequence[float], count: int, model: str
) -> Iterator[str]:
    """Yield the table: a row for each radius, scene and focus, and the means of a radius."""
    yield f"{'radius, scene, focus':28}" + "".join(f"{run:>11}" for run in RUNS) + " dB"
    for radius_px in radii_px:
        found = evaluate(photos, radius_px, count, model)
        for (name, focus), values in found.items():
            yield _row(f"{radius_px:g} px, {name}, {focus}", list(values.values()))
        means = np.mean([list(values.values()) for values in found.values()], axis=0)
        yield _row(f"{radius_px:g} px, mean", means.tolist())


def _row(title: str, values: Sequence[float]) -> str:
    return f"{title:28}" + "".join(f"{value:11.2f}" for value in values)


def main() -> None:
    """Command line."""
    command("refocus", __doc__, lines)


if __name__ == "__main__":
    main()
