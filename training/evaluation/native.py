"""Score the scales of restoring on rendered scenes at a camera's own resolution.

    python -m training.evaluation.native PHOTOS --model tiny
    python -m training.evaluation.native PHOTOS --size 1200x900 --held-out
    python -m training.evaluation.native PHOTOS --size 6000x4000 --only r20,mixed --save DIR

Scenes of one depth, blurred by 5, 20, 45 and 80 px in radius, and of three depths, each for lenses
whose views lie 0.15 and 0.6 radii apart; see training.evaluation.native_scenes. Columns: PSNR of
the mean view; of the picture restored at its own size, and at a half, a quarter, an eighth of it
and scaled up again; of `--scale auto`; and the gain of auto over the best single scale. A border
as wide as the scene's largest radius is left out. 14 scenes of 1500x1000 take several minutes with
`tiny` on one core, 12 whole frames of 6000x4000 half an hour and 8 GiB.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

import ldp
from ldp.blur.estimator import BlurEstimator
from ldp.restore.photo_views import StoredViews, whole
from ldp.restore.reduced_views import ReducedViews
from ldp.restore.scale_weights import FACTORS
from ldp.types import FloatArray, ViewPair, as_float
from training.evaluation.metrics import psnr_db
from training.evaluation.native_scenes import (
    FRAME,
    NativePair,
    NativeScene,
    Photo,
    held_out_scenes,
    make_pair,
    shrunk,
    standard_scenes,
)
from training.pictures import write_png
from training.simulator.scenes import ESTIMATOR, read_photos


@dataclass(frozen=True)
class Scales:
    """The same network at its own scale and at the scale that suits each region."""

    single: ldp.Model
    auto: ldp.Model

    @classmethod
    def load(cls, model: str, blur: str | BlurEstimator) -> Scales:
        """Load the network twice. Raises what ldp.load raises."""
        return cls(*(ldp.load(model, blur=blur, scale=scale) for scale in ("1", "auto")))


@dataclass(frozen=True)
class NativeScore:
    """PSNR in dB of one scene: mean view, one picture for each of FACTORS, auto."""

    scene: NativeScene
    mean_db: float
    single_db: tuple[float, ...]
    auto_db: float

    @property
    def best_db(self) -> float:
        """That of the best single scale."""
        return max(self.single_db)


def score(scene: NativeScene, pair: NativePair, scales: Scales) -> tuple[NativeScore, FloatArray]:
    """Restore a scene at every scale and return the scores, and the picture of auto."""
    border_px = math.ceil(max(map(abs, scene.radii_px)))

    def psnr(picture: FloatArray) -> float:
        shown, truth = inside(picture, border_px), inside(pair.truth, border_px)
        return psnr_db(np.clip(shown, 0, 1).astype(np.float64), truth.astype(np.float64))

    auto = scales.auto.restore(pair.views).sharp
    mean = mean_view(pair.views)
    singles = tuple(psnr(_at_scale(scales.single, pair.views, factor)) for factor in FACTORS)
    return NativeScore(scene, psnr(mean), singles, psnr(auto)), auto


def inside(picture: FloatArray, border_px: int) -> FloatArray:
    """Return a picture without its border, if something is left.

    What lies beyond the frame of a scene is its mirror image, which blur carries in as far as it
    reaches. No photo is so, and a network that mirrors at the border would be taken for better.
    """
    height, width = picture.shape[:2]
    if 2 * border_px >= min(height, width):
        return picture
    return picture[border_px : height - border_px, border_px : width - border_px]


def _at_scale(model: ldp.Model, views: ViewPair, factor: int) -> FloatArray:
    sharp = model.restore(scaled_down(views, factor)).sharp
    height, width = views.size
    if factor == 1:
        return sharp
    size = (sharp.shape[1] * factor, sharp.shape[0] * factor)
    large = cv2.resize(sharp, size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large[:height, :width], np.float32)


def mean_view(views: ViewPair) -> FloatArray:
    """Return the mean of the two views, white at 1."""
    return np.asarray(0.5 * (as_float(views.left) + as_float(views.right)), np.float32)


def scaled_down(views: ViewPair, factor: int) -> ViewPair:
    """Return views of which every pixel is the mean of factor x factor."""
    if factor == 1:
        return views
    device = torch.device("cpu")
    return whole(ReducedViews(StoredViews(views, device), factor, device))


def estimator_for(size: tuple[int, int], name: str) -> str | BlurEstimator:
    """Return the estimator for scenes of `size` (H, W): that of any photo for whole frames. In a
    small part of a frame disparities are a larger share of the width, so the simulator's is taken.
    """
    is_part = size[0] * size[1] < FRAME[0] * FRAME[1]
    return ESTIMATOR if name == "disparity" and is_part else name


def formatted(scores: NativeScore) -> str:
    """Return one line of the table."""
    singles = "".join(f"{value:8.2f}" for value in scores.single_db)
    gain = scores.auto_db - scores.best_db
    return f"{scores.scene.name:22}{scores.mean_db:8.2f}{singles}{scores.auto_db:8.2f}{gain:+8.2f}"


def large_enough(photos: Sequence[Photo], size: tuple[int, int]) -> list[Photo]:
    """Return the photos of at least `size` (H, W) cut to it; all as they are where none is."""
    height, width = size
    fitting = [p for p in photos if p.shape[0] >= height and p.shape[1] >= width]
    return [np.ascontiguousarray(p[:height, :width]) for p in fitting] or list(photos)


def width_height(text: str) -> tuple[int, int]:
    """Read WxH, two sides in px. Raises ArgumentTypeError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected WxH in px, such as 1500x1000, found {text!r}")
    return int(match[1]), int(match[2])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of sharp photographs")
    parser.add_argument("--shrink", type=float, default=0.74, help="scale photographs down first")
    parser.add_argument("--size", type=width_height, default="1500x1000", metavar="WxH")
    parser.add_argument("--only", default="", metavar="NAMES", help="scenes whose name has one")
    parser.add_argument("--model", default="tiny", metavar="NAME|FILE")
    parser.add_argument("--blur", default="disparity", choices=["disparity", "learned"])
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the pictures there")
    parser.add_argument("--held-out", action="store_true", help="scenes that nothing was tuned by")
    args = parser.parse_args()
    try:
        for line in _lines(args):
            print(line, flush=True)
    except (ValueError, OSError, ldp.LdpError) as error:
        sys.exit(f"training.evaluation.native: {error}")


def _lines(args: argparse.Namespace) -> Iterator[str]:
    """Yield the table; write the pictures where that is asked for."""
    width, height = args.size
    photos = large_enough(shrunk(read_photos(args.photos), args.shrink), (height, width))
    scales = Scales.load(args.model, estimator_for((height, width), args.blur))
    factors = "".join(f"{f'1/{f}':>8}" for f in FACTORS)
    yield f"{'scene':22}{'mean':>8}{factors}    auto    gain"
    scenes = held_out_scenes() if args.held_out else standard_scenes()
    for number, scene in enumerate(scenes):
        if not any(part in scene.name for part in args.only.split(",")):
            continue
        pair = make_pair(scene, photos, (height, width), number)
        scores, picture = score(scene, pair, scales)
        yield formatted(scores)
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            mean = mean_view(pair.views)
            for name, shown in (("mean", mean), ("auto", picture), ("true", pair.truth)):
                rounded = (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
                write_png(args.save / f"{scene.name}-{name}.png", rounded)


if __name__ == "__main__":
    main()
