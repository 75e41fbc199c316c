"""Score the disparity map against measured depth, and against the truth of rendered pairs.

    python -m training.evaluation.disparity ROOT [--enlarge 2] [--alone]
    python -m training.evaluation.disparity --photos PHOTOS --count 4 [--blur clip]

ROOT is laid out as
    box/NNN/{l,r,d}.png, casual/iphone/NNN/{l,r,d}.png   two views, and depth as grey/255 x 10 m
    flat/NNN/{0600,1500}/{f20,f4}/{l,r}.png              a flat target, before and behind the focus
and any part of it may be absent, but not all. PHOTOS are rendered as training.evaluation.synthetic
does.

AI(1) and AI(2) are the affine-invariant errors of Punnappurath et al. 2020, rho Spearman's, c > 0
the share of the pixels with a confidence above 0.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.disparity import DisparityEstimator
from ldp.blur.estimator import ESTIMATORS, OPENAI, BlurEstimator
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
from training.evaluation.scoring import photo_count
from training.evaluation.synthetic import (
    LEVELS,
    NOISES,
    SEED,
    linear_photos,
    sample_scene,
    simulate_view,
)
from training.pictures import read_grey, read_rgb8

Rgb8 = npt.NDArray[np.uint8]

_DEPTH_OF_WHITE_M = 10.0


@dataclass(frozen=True)
class SceneScore:
    """One scene's map against inverse depth; "half" is its more confident half of the pixels.

    The affine errors are in dioptres (1/m) over the whole frame. confident: the share of the pixels
    with a confidence above 0.
    """

    spearman_half: float
    spearman_full: float
    affine_mae: float
    affine_rmse: float
    rank_error: float
    confident: float
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


def score_scene(folder: Path, estimator: BlurEstimator, enlarge: int = 1) -> SceneScore:
    """Score one folder with l.png, r.png and d.png. enlarge: as for read_views."""
    views = read_views(folder, enlarge)
    started = time.perf_counter()
    blur_map = estimator.estimate(views)
    seconds = time.perf_counter() - started
    disparity, confidence = _disparity_and_confidence(blur_map)
    confident = _confident_half(confidence)
    height, width = disparity.shape
    inverse_depth = read_inverse_depth(folder / "d.png", (width, height))
    return SceneScore(
        spearman_half=spearman(disparity[confident], inverse_depth[confident]),
        spearman_full=spearman(disparity, inverse_depth),
        affine_mae=affine_mae(disparity, inverse_depth),
        affine_rmse=affine_rmse(disparity, inverse_depth),
        rank_error=rank_error(disparity, inverse_depth),
        confident=float(np.mean(confidence > 0)),
        seconds=seconds,
    )


def _disparity_and_confidence(blur_map: BlurMap) -> tuple[Plane, Plane]:
    assert blur_map.disparity_px is not None
    assert blur_map.confidence is not None
    return blur_map.disparity_px, blur_map.confidence


def _confident_half(confidence: Plane) -> npt.NDArray[np.bool_]:
    return np.asarray(confidence >= np.median(confidence))


def scene_folders(root: Path) -> list[Path]:
    """Return the folders of scenes with depth."""
    return sorted(
        path.parent for path in (*root.glob("box/*/d.png"), *root.glob("casual/*/*/d.png"))
    )


def read_views(folder: Path, enlarge: int = 1) -> ViewPair:
    """Read the two views of a scene, each side scaled up `enlarge` times (bicubic)."""
    left, right = (_enlarged(read_rgb8(folder / f"{name}.png"), enlarge) for name in ("l", "r"))
    return ViewPair(left, right)


def _enlarged(view: Rgb8, factor: int) -> Rgb8:
    if factor == 1:
        return view
    size = (factor * view.shape[1], factor * view.shape[0])
    return np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_CUBIC), np.uint8)


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


def _print_scenes(root: Path, estimator: BlurEstimator, enlarge: int) -> None:
    folders = scene_folders(root)
    if not folders:
        return
    names = ("rho half", "rho full", "AI(1)", "AI(2)", "1-|rho|", "c > 0", "s")
    print(f"{'scene':20}", *(f"{name:>8}" for name in names))
    scores = []
    for folder in folders:
        scores.append(score_scene(folder, estimator, enlarge))
        _print_score(str(folder.relative_to(root)), scores[-1])
    means = np.mean([astuple(score) for score in scores], axis=0)
    _print_score("mean", SceneScore(*map(float, means)))


def _flat_folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("flat/*/*/*/l.png"))


def _print_score(name: str, score: SceneScore) -> None:
    print(f"{name:20}", *(f"{value:8.3f}" for value in astuple(score)))


def _print_flats(root: Path, estimator: BlurEstimator, enlarge: int) -> None:
    folders = _flat_folders(root)
    if folders:
        print(f"{'flat target':20} median disparity of the confident half, px before enlarging")
    for folder in folders:
        blur_map = estimator.estimate(read_views(folder, enlarge))
        disparity, confidence = _disparity_and_confidence(blur_map)
        median_px = np.median(disparity[_confident_half(confidence)]) / enlarge
        print(f"{folder.relative_to(root)!s:20} {median_px:+.3f}")


def main() -> None:
    """Command line."""
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
    parser.add_argument("--clip-weights", default=OPENAI, metavar="TAG|FILE", help="of its CLIP")
    parser.add_argument(
        "--enlarge",
        type=int,
        choices=(1, 2, 4),
        default=1,
        help="score ROOT's scenes with both sides of the views so many times as long",
    )
    parser.add_argument("--count", type=photo_count, default=0, help="only the first N of these")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="score matching alone on ROOT: nothing from the blur's shape, the falloff as it is",
    )
    args = parser.parse_args()
    if args.root is None and args.photos is None:
        parser.error("give ROOT, --photos or both")
    if args.root is not None and not args.root.is_dir():
        parser.error(f"{args.root}: no such folder")
    try:
        _print_tables(args)
    except (ValueError, LdpError) as error:
        parser.error(str(error))


def _print_tables(args: argparse.Namespace) -> None:
    if args.root is not None:
        if not scene_folders(args.root) and not _flat_folders(args.root):
            raise DataError(
                f"{args.root}: no scenes; expected box/NNN, casual/iphone/NNN or flat/NNN (--help)"
            )
        estimator = DisparityEstimator() if args.alone else load_estimator("disparity")
        _print_scenes(args.root, estimator, args.enlarge)
        _print_flats(args.root, estimator, args.enlarge)
    if args.photos is not None:
        photos = linear_photos(args.photos, args.count)
        print(f"\nrendered pairs, {args.blur}")
        _print_rendered(photos, load_estimator(args.blur, clip_weights=args.clip_weights))


if __name__ == "__main__":
    main()
