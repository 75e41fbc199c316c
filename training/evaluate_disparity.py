"""python -m training.evaluate_disparity ROOT: the disparity map against measured depth.

ROOT is laid out as
    box/NNN/{l,r,d}.png, casual/iphone/NNN/{l,r,d}.png   two views, and depth as grey/255 x 10 m
    flat/NNN/{0600,1500}/{f20,f4}/{l,r}.png              a flat target, before and behind the focus
and every part of it may be absent.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ldp.blur.disparity import DisparityEstimator
from ldp.types import BlurMap, Plane, ViewPair
from training.disparity_metrics import affine_mae, affine_rmse, rank_error, spearman

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


def score_scene(folder: Path, estimator: DisparityEstimator) -> SceneScore:
    """The scores of one folder with l.png, r.png and d.png."""
    views = _read_views(folder)
    started = time.perf_counter()
    blur_map = estimator.estimate(views)
    seconds = time.perf_counter() - started
    disparity, confident = _disparity_and_confident(blur_map)
    height, width = disparity.shape
    inverse_depth = _read_inverse_depth(folder / "d.png", (width, height))
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


def _read_views(folder: Path) -> ViewPair:
    left, right = (np.ascontiguousarray(_read(folder / f"{side}.png")[..., ::-1]) for side in "lr")
    return ViewPair(left, right)


def _read_inverse_depth(path: Path, size: tuple[int, int]) -> Plane:
    """Inverse depth in 1/m at (width, height); NaN where the depth is 0, that is unknown."""
    # Resized as integers: equal depths stay equal, which ranks depend on.
    grey = cv2.resize(_read(path)[..., 0], size, interpolation=cv2.INTER_AREA)
    depth_m = grey.astype(np.float32) * np.float32(_DEPTH_OF_WHITE_M / 255.0)
    inverse: Plane = np.full_like(depth_m, np.nan)
    np.divide(1.0, depth_m, out=inverse, where=depth_m > 0)
    return inverse


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) BGR."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"{path}: missing, or not a picture")
    return np.asarray(picture, np.uint8)


def _print_scenes(root: Path, estimator: DisparityEstimator) -> None:
    folders = sorted(
        path.parent for path in (*root.glob("box/*/d.png"), *root.glob("casual/*/*/d.png"))
    )
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
        disparity, confident = _disparity_and_confident(estimator.estimate(_read_views(folder)))
        print(f"{folder.relative_to(root)!s:20} {np.median(disparity[confident]):+.3f}")


def main() -> None:
    """Print the tables, for the maps as they are and as measured (falloff not evened out)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("root", type=Path)
    root = parser.parse_args().root
    if not root.is_dir():
        parser.error(f"{root}: no such folder")
    estimator = DisparityEstimator()
    for title, variant in (
        ("default", estimator),
        ("falloff not evened out", replace(estimator, field_falloff=0.0)),
    ):
        print(f"\n{title}")
        _print_scenes(root, variant)
        _print_flats(root, variant)


if __name__ == "__main__":
    main()
