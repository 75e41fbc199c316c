"""Score the disparity map against measured depth, and against the truth of rendered pairs.

    python -m training.evaluation.disparity ROOT
    python -m training.evaluation.disparity --photos PHOTOS --count 4 [--blur clip]

ROOT is laid out as
    box/NNN/{l,r,d}.png, casual/iphone/NNN/{l,r,d}.png   two views, and depth as grey/255 x 10 m
    flat/NNN/{0600,1500}/{f20,f4}/{l,r}.png              a flat target, before and behind the focus
and every part of it may be absent. PHOTOS are rendered as training.evaluation.synthetic does.

AI(1) and AI(2) are the affine-invariant errors of Punnappurath et al. 2020, rho Spearman's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.disparity import DisparityEstimator
from ldp.blur.estimator import ESTIMATORS, BlurEstimator
from ldp.blur.loading import load_estimator
from ldp.errors import LdpError
from ldp.types import BlurMap, FloatArray, Plane, ViewPair
from training.errors import DataError
from training.evaluation.disparity_metrics import (
    affine_mae,
    affine_rmse,
    blur_accuracy,
    in_focus_accuracy,
    rank_error,
    share_within,
    spearman,
)
from training.evaluation.synthetic import (
    LEVELS,
    NOISES,
    SEED,
    linear_photos,
    sample_scene,
    simulate_view,
)
from training.pictures import read_grey, read_rgb8

_DEPTH_OF_WHITE_M = 10.0


@dataclass(frozen=True)
class SceneScore:
    """One scene's map against inverse depth; "half" is its more confident half of the pixels.

    The affine errors are in dioptres (1/m) over the whole frame.
    """

    spearman_half: float
    spearman_full: float
    affine_mae: float
    affine_rmse: float
    rank_error: float
    seconds: float


@dataclass(frozen=True)
class RenderedScore:
    """The errors of one rendered pair's map over the whole frame; the truth is known.

    affine_mae, affine_rmse: of the disparity in px, after the best affine fit.
    rank_error: 1 - |rho| of the disparity and the true one.
    share_within_1: share of the pixels whose disparity is at most 1 px off.
    in_focus_accuracy: share of the pixels that the map rightly calls in focus (|disparity| at most
        1 px) or out of focus.
    blur_rank_error: 1 - |rho| of the blur amount and the true radius of the blur.
    blur_accuracy: as in_focus_accuracy, but by the blur amount with its best threshold.

    The first five are NaN for a map without disparity, such as CLIP's.
    """

    affine_mae: float
    affine_rmse: float
    rank_error: float
    share_within_1: float
    in_focus_accuracy: float
    blur_rank_error: float
    blur_accuracy: float


def score_rendered(
    photo: FloatArray, index: int, radius_px: float, noise: str, estimator: BlurEstimator
) -> RenderedScore:
    """Render the pair of a photo (linear light) and score its map; index seeds the scene."""
    pair, _ = sample_scene(photo, radius_px, np.random.default_rng([SEED, index]))
    rng = np.random.default_rng([SEED, index, int(radius_px * 10)])
    left, right = (simulate_view(view, noise, rng) for view in (pair.left, pair.right))
    found = estimator.estimate(ViewPair(left, right))
    # The map may be coarser than the picture.
    size = (found.amount.shape[1], found.amount.shape[0])
    true_px, coc_px = (
        np.asarray(cv2.resize(x, size), np.float32) for x in (pair.disparity_px, pair.coc_px)
    )

    def of_disparity(metric: Callable[[Plane, Plane], float]) -> float:
        return np.nan if found.disparity_px is None else metric(found.disparity_px, true_px)

    return RenderedScore(
        affine_mae=of_disparity(affine_mae),
        affine_rmse=of_disparity(affine_rmse),
        rank_error=of_disparity(rank_error),
        share_within_1=of_disparity(share_within),
        in_focus_accuracy=of_disparity(in_focus_accuracy),
        blur_rank_error=rank_error(found.amount, np.abs(coc_px)),
        blur_accuracy=blur_accuracy(found.amount, true_px),
    )


def score_scene(folder: Path, estimator: BlurEstimator) -> SceneScore:
    """Score one folder with l.png, r.png and d.png."""
    views = read_views(folder)
    started = time.perf_counter()
    blur_map = estimator.estimate(views)
    seconds = time.perf_counter() - started
    disparity, confident = _disparity_and_confident(blur_map)
    height, width = disparity.shape
    inverse_depth = read_inverse_depth(folder / "d.png", (width, height))
    return SceneScore(
        spearman_half=spearman(disparity[confident], inverse_depth[confident]),
        spearman_full=spearman(disparity, inverse_depth),
        affine_mae=affine_mae(disparity, inverse_depth),
        affine_rmse=affine_rmse(disparity, inverse_depth),
        rank_error=rank_error(disparity, inverse_depth),
        seconds=seconds,
    )


def _disparity_and_confident(blur_map: BlurMap) -> tuple[Plane, npt.NDArray[np.bool_]]:
    assert blur_map.disparity_px is not None
    assert blur_map.confidence is not None
    return blur_map.disparity_px, blur_map.confidence >= np.median(blur_map.confidence)


def scene_folders(root: Path) -> list[Path]:
    """Return the folders of scenes with depth."""
    return sorted(
        path.parent for path in (*root.glob("box/*/d.png"), *root.glob("casual/*/*/d.png"))
    )


def read_views(folder: Path) -> ViewPair:
    """Read the two views of a scene."""
    return ViewPair(read_rgb8(folder / "l.png"), read_rgb8(folder / "r.png"))


def read_inverse_depth(path: Path, size: tuple[int, int]) -> Plane:
    """Read inverse depth in 1/m at (width, height); NaN where the depth is 0, that is unknown.

    Raises DataError for a depth map of another type than grey of 8 bits, 255 at 10 m.
    """
    # Resized as integers: equal depths stay equal, which ranks depend on.
    stored = read_grey(path)
    if stored.dtype != np.uint8:
        raise DataError(
            f"{path}: {stored.dtype} samples, up to {stored.max()}; expected 8 bits, 255 at "
            f"{_DEPTH_OF_WHITE_M:g} m; convert it"
        )
    grey = cv2.resize(stored, size, interpolation=cv2.INTER_AREA)
    depth_m = grey.astype(np.float32) * np.float32(_DEPTH_OF_WHITE_M / 255.0)
    inverse: Plane = np.full_like(depth_m, np.nan)
    np.divide(1.0, depth_m, out=inverse, where=depth_m > 0)
    return inverse


def _print_rendered(photos: list[FloatArray], estimator: BlurEstimator) -> None:
    names = ("AI(1)", "AI(2)", "1-|rho|", "<=1 px", "|d|<=1", "blur", "b:|d|<=1")
    print(f"{'radius, noise':20}", *(f"{name:>8}" for name in names))
    for level in LEVELS:
        for noise in NOISES:
            scores = [
                astuple(score_rendered(photo, index, level.radius_px, noise, estimator))
                for index, photo in enumerate(photos)
            ]
            means = (f"{value:8.3f}" for value in np.mean(scores, axis=0))
            print(f"{f'{level.radius_px:g} px, {noise}':20}", *means, flush=True)


def _print_scenes(root: Path, estimator: DisparityEstimator) -> None:
    folders = scene_folders(root)
    if not folders:
        return
    names = ("rho half", "rho full", "AI(1)", "AI(2)", "1-|rho|", "s")
    print(f"{'scene':20}", *(f"{name:>8}" for name in names))
    scores = []
    for folder in folders:
        scores.append(score_scene(folder, estimator))
        _print_score(str(folder.relative_to(root)), scores[-1])
    means = np.mean([astuple(score) for score in scores], axis=0)
    _print_score("mean", SceneScore(*map(float, means)))


def _print_score(name: str, score: SceneScore) -> None:
    print(f"{name:20}", *(f"{value:8.3f}" for value in astuple(score)))


def _print_flats(root: Path, estimator: DisparityEstimator) -> None:
    folders = sorted(path.parent for path in root.glob("flat/*/*/*/l.png"))
    if folders:
        print(f"{'flat target':20} median disparity of the confident half, px")
    for folder in folders:
        disparity, confident = _disparity_and_confident(estimator.estimate(read_views(folder)))
        print(f"{folder.relative_to(root)!s:20} {np.median(disparity[confident]):+.3f}")


def main() -> None:
    """Command line.

    Real scenes are scored with the maps as they are and as measured (falloff not evened out),
    rendered pairs, which have no falloff, as measured.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--photos", type=Path, help="photos to render pairs from")
    parser.add_argument(
        "--blur",
        default="disparity",
        choices=ESTIMATORS,
        help="blur map that is scored on rendered pairs; clip and clip-patch need CLIP's weights",
    )
    parser.add_argument("--count", type=int, default=0, help="only the first N of these")
    args = parser.parse_args()
    if args.root is None and args.photos is None:
        parser.error("give ROOT, --photos or both")
    if args.root is not None and not args.root.is_dir():
        parser.error(f"{args.root}: no such folder")
    estimator = DisparityEstimator()
    measured = replace(estimator, field_falloff=0.0)
    try:
        _print_tables(args, estimator, measured)
    except (ValueError, LdpError) as error:
        parser.error(str(error))


def _print_tables(
    args: argparse.Namespace, estimator: DisparityEstimator, measured: DisparityEstimator
) -> None:
    if args.root is not None:
        for title, variant in (("default", estimator), ("falloff not evened out", measured)):
            print(f"\n{title}")
            _print_scenes(args.root, variant)
            _print_flats(args.root, variant)
    if args.photos is not None:
        photos = linear_photos(args.photos, args.count)
        chosen = measured if args.blur == "disparity" else load_estimator(args.blur)
        print(f"\nrendered pairs, {args.blur}")
        _print_rendered(photos, chosen)


if __name__ == "__main__":
    main()
