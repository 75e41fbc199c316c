"""Judge focus control: the chosen depth as sharp as in a photo restored whole, the other as it was.

    python -m training.evaluation.focus PHOTOS --count 4

PHOTOS: sharp photographs, all of one size; each becomes a background behind the focus plane with
things cut out of another photo before it, blurred by at most 3, 6 and 12 px in radius, and is
written as a pair of views. `dpbatch run` restores all of it, nothing (--strength 0), and each of
the two depths by --focus-range, which reaches half way to the other depth.

gain dB: of the photo restored whole, on the chosen depth. loss dB: how much of that the choice
loses. other: share of the pixels of the other depth that have the untouched development's own
numbers. All three away from outlines, by the radius of the larger blur, and on all pixels of the
depth: around an outline the blur of one depth lies over the other, and no pixel belongs to one
alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ldp.errors import LdpError
from ldp.types import FloatArray
from training.errors import DataError
from training.evaluation.metrics import psnr_db
from training.evaluation.native_scenes import blob_mask
from training.evaluation.scoring import photo_count
from training.evaluation.synthetic import LEVELS, landscape_photos, simulate_view
from training.pictures import encode_clipped, read_float64, write_png
from training.simulator.optics import EOS_5D_MARK_IV_KERNEL, LensField
from training.simulator.render import RenderedPair, Surface, render

SEED = 7_141
FAR, NEAR = -1.0, 0.6
"""Signed radii of the two depths, as shares of the largest."""
LENS = LensField(EOS_5D_MARK_IV_KERNEL, disparity_loss=0.5)
"""Its disparities fall towards the frame's sides by the law that the estimator measures in a photo
and evens out."""
RUNS = ("all", "nothing", "near", "far")

Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.float64]
Table = Callable[[Sequence[FloatArray], Sequence[float], int, str], Iterator[str]]
"""Lines of photos (linear light), radii in px, the number of scenes, and a network."""


@dataclass(frozen=True)
class FocusScore:
    """Of one chosen depth: away from outlines, and on all of its pixels.

    loss_db: beside the photo that is restored whole. untouched: share of the pixels of the other
    depth that have the untouched photo's numbers. gain_db: of the photo restored whole.
    """

    gain_db: float
    loss_db: float
    untouched: float
    all_gain_db: float
    all_loss_db: float
    all_untouched: float


def make_scene(photos: Sequence[FloatArray], index: int, radius_px: float) -> RenderedPair:
    """Render the photo `index` (linear light) with things cut out of another before it."""
    return render(surfaces(photos, index, radius_px), LENS)


def surfaces(
    photos: Sequence[FloatArray], index: int, radius_px: float, focus_px: float = 0.0
) -> list[Surface]:
    """Return what a scene consists of. focus_px: signed radius of the depth that is in focus."""
    rng = np.random.default_rng([SEED, index])
    height, width = photos[index].shape[:2]
    alpha = blob_mask((height, width), rng, (4, 5), 0.7)
    other = photos[(index + max(1, len(photos) // 2)) % len(photos)]
    ones = np.ones((height, width), np.float32)
    return [
        Surface(photos[index], ones, np.float32(FAR * radius_px - focus_px) * ones),
        Surface(
            np.asarray(cv2.resize(other, (width, height)), np.float32),
            alpha,
            np.float32(NEAR * radius_px - focus_px) * ones,
        ),
    ]


def score(
    pictures: dict[str, Picture], truth: Picture, is_near: Mask, margin_px: float
) -> dict[str, FocusScore]:
    """Return the scores of the choices "near" and "far".

    pictures: by RUNS, (H, W, 3). is_near: (H, W), which pixels are of the near depth. margin_px:
        of what is away from outlines.
    """
    found = {}
    for name, chosen in (("near", is_near), ("far", ~is_near)):
        values: list[float] = []
        away_from_outlines = _eroded(chosen, margin_px), _eroded(~chosen, margin_px)
        for inside, outside in (away_from_outlines, (chosen, ~chosen)):
            of_run = {run: psnr_db(pictures[run][inside], truth[inside]) for run in RUNS}
            same = (pictures[name] == pictures["nothing"]).all(axis=2)[outside]
            values += [
                of_run["all"] - of_run["nothing"],
                of_run["all"] - of_run[name],
                float(same.mean()),
            ]
        found[name] = FocusScore(*values)
    return found


def disparities_px(pair: RenderedPair) -> tuple[float, float]:
    """Return the disparities of the near and of the far depth of a scene."""
    near, far = (
        float(np.median(pair.disparity_px[side])) for side in (pair.coc_px > 0, pair.coc_px < 0)
    )
    return near, far


def choices_of(scenes: dict[str, RenderedPair]) -> dict[str, list[str]]:
    """Return the options of RUNS."""
    near, far = disparities_px(next(iter(scenes.values())))
    middle, gap = (near + far) / 2, near - far
    return {
        "all": ["--keep-restoration"],
        "nothing": ["--strength=0"],
        "near": [f"--focus-range={near + gap:.3f}:{middle:.3f}"],
        "far": [f"--focus-range={middle:.3f}:{far - gap:.3f}"],
    }


def restored(
    folder: Path, scenes: dict[str, RenderedPair], model: str, choices: dict[str, list[str]]
) -> dict[str, dict[str, Picture]]:
    """Return every scene's pictures by the names of `choices`, as `dpbatch run` writes them.

    folder: an empty one for the views and the results. choices: the options of each run.

    Raises DataError where the program fails.
    """
    shoot = folder / "shoot"
    shoot.mkdir(parents=True)
    for name, pair in scenes.items():
        for side, view in (("L", pair.left), ("R", pair.right)):
            rng = np.random.default_rng(0)
            encoded = np.rint(simulate_view(view, "none", rng) * 65535).astype(np.uint16)
            write_png(shoot / f"{name}_{side}.png", encoded)
    pictures: dict[str, dict[str, Picture]] = {name: {} for name in scenes}
    for run, options in choices.items():
        out = folder / "out"
        command = [sys.executable, "-m", "dpbatch", "run", str(shoot), "--out", str(out)]
        command += ["--model", model, "--overwrite", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DataError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        for name in scenes:
            pictures[name][run] = read_float64(out / f"{name}.tif")
    return pictures


def evaluate(
    photos: Sequence[FloatArray], radius_px: float, count: int, model: str
) -> dict[tuple[str, str], FocusScore]:
    """Return the scores by scene and choice, of the first `count` photos (linear light).

    Raises DataError.
    """
    scenes = {f"{index:02}": make_scene(photos, index, radius_px) for index in range(count)}
    with tempfile.TemporaryDirectory() as folder:
        pictures = restored(Path(folder), scenes, model, choices_of(scenes))
    found: dict[tuple[str, str], FocusScore] = {}
    for name, pair in scenes.items():
        truth = encode_clipped(pair.sharp).astype(np.float64)
        of_scene = score(pictures[name], truth, pair.coc_px > 0, radius_px)
        found |= {(name, choice): figures for choice, figures in of_scene.items()}
    return found


def lines(
    photos: Sequence[FloatArray], radii_px: Sequence[float], count: int, model: str
) -> Iterator[str]:
    """Yield the table: a row for each radius, scene and choice, and the means of a radius."""
    yield f"{'':28}{'away from outlines':>26}{'all pixels':>26}"
    yield f"{'radius, scene, chosen':28}" + 2 * f"{'gain dB':>9}{'loss dB':>9}{'other':>8}"
    for radius_px in radii_px:
        found = evaluate(photos, radius_px, count, model)
        for (name, choice), figures in found.items():
            yield _row(f"{radius_px:g} px, {name}, {choice}", astuple(figures))
        means = np.mean([astuple(figures) for figures in found.values()], axis=0)
        yield _row(f"{radius_px:g} px, mean", means)


def _row(title: str, values: Sequence[float] | npt.NDArray[np.float64]) -> str:
    cells = "".join(
        f"{value:8.2%}" if number % 3 == 2 else f"{value:9.2f}"
        for number, value in enumerate(values)
    )
    return f"{title:28}{cells}"


def _eroded(mask: Mask, margin_px: float) -> Mask:
    """Return the pixels that are farther than a margin from those outside."""
    distance_px = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(distance_px > margin_px)


def command(name: str, description: str | None, lines: Table) -> None:
    """Print the table of a command that judges rendered scenes of two depths."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of sharp photographs")
    parser.add_argument(
        "--count", type=photo_count, default=0, metavar="N", help="only the first N scenes"
    )
    parser.add_argument(
        "--radius",
        type=float,
        nargs="+",
        default=[level.radius_px for level in LEVELS],
        metavar="PX",
    )
    parser.add_argument("--model", default="tiny", metavar="NAME|FILE")
    args = parser.parse_args()
    try:
        photos = landscape_photos(args.photos)
        count = min(args.count or len(photos), len(photos))
        for line in lines(photos, args.radius, count, args.model):
            print(line, flush=True)
    except (ValueError, OSError, LdpError) as error:
        sys.exit(f"training.evaluation.{name}: {error}")


def main() -> None:
    """Command line."""
    command("focus", __doc__, lines)


if __name__ == "__main__":
    main()
