"""Score disparity maps on DPD-disp, the real scenes of Punnappurath et al., ICCP 2020.

    python -m training.evaluation.dpd_disp FOLDER

FOLDER holds NNN_L.jpg, NNN_R.jpg and NNN_D.TIF, the grey truth. The protocol is the authors': views
and truth at half size (bicubic), cut to the area that their method covers, less 100 px on each
side; AI(1), AI(2) and 1 - |rho| against the truth in [0, 1], averaged over the scenes. The truth is
known up to an affine function only, so there is no figure in pixels. Reruns that stop AI(1) after a
few steps of its reweighting find slightly more; ours ends where it no longer improves.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ldp.blur.estimator import BlurEstimator
from ldp.blur.loading import load_estimator
from ldp.types import FloatArray, Plane, ViewPair
from training.errors import DataError
from training.evaluation.disparity_metrics import affine_mae, affine_rmse, rank_error
from training.pictures import read_grey, read_rgb8

PATCH_PX, STRIDE_PX, BORDER_PX = 111, 33, 100
"""The authors' window and stride at half size, which give the covered area, and the border."""


@dataclass(frozen=True)
class DispScore:
    """The affine-invariant errors and the rank error of one map, 0 best."""

    affine_mae: float
    affine_rmse: float
    rank_error: float


def covered(length: int) -> slice:
    """Return the part of a side, in px at half size, that is scored.

    Raises DataError where nothing of it is left.
    """
    margin = (PATCH_PX - 1) // 2
    centres = range(margin, length - margin, STRIDE_PX)
    reach = (STRIDE_PX - 1) // 2
    if not centres or centres[-1] - centres[0] + 2 * reach + 1 <= 2 * BORDER_PX:
        raise DataError(f"a side of {length} px at half size: too short to be scored")
    return slice(centres[0] - reach + BORDER_PX, centres[-1] + reach + 1 - BORDER_PX)


def score_disparity(disparity_px: Plane, truth: FloatArray) -> DispScore:
    """Score a map, (h, w) of any size, against the truth, (H, W) in [0, 1] at half size."""
    height, width = truth.shape
    sized = np.asarray(cv2.resize(disparity_px, (width, height)), np.float32)
    area = (covered(height), covered(width))
    found, wanted = sized[area], truth[area]
    return DispScore(
        affine_mae(found, wanted), affine_rmse(found, wanted), rank_error(found, wanted)
    )


def evaluate_dpd_disp(folder: Path, estimator: BlurEstimator) -> dict[str, DispScore]:
    """Score every scene of a folder, by name.

    Raises DataError for a folder without scenes, for a missing or unfitting picture, and for an
    estimator without signed disparity.
    """
    scores = {}
    for left in sorted(folder.glob("*_L.jpg")):
        name = left.name.removesuffix("_L.jpg")
        stored = [read_rgb8(left), read_rgb8(folder / f"{name}_R.jpg")]
        depth = read_grey(folder / f"{name}_D.TIF")
        sizes = {picture.shape[:2] for picture in (*stored, depth)}
        if len(sizes) > 1:
            raise DataError(f"{left}: views and truth of different sizes, {sorted(sizes)}")
        halved = [_half(picture).astype(np.uint8) for picture in stored]
        views = ViewPair(halved[0], halved[1])
        truth = _half(depth.astype(np.float32) / np.float32(np.iinfo(depth.dtype).max))
        disparity = estimator.estimate(views).disparity_px
        if disparity is None:
            raise DataError(f"{left}: this blur map has no signed disparity to score")
        scores[name] = score_disparity(disparity, truth)
    if not scores:
        raise DataError(f"{folder}: no scenes; expected NNN_L.jpg, NNN_R.jpg and NNN_D.TIF")
    return scores


def _half(picture: npt.NDArray[np.uint8] | FloatArray) -> FloatArray:
    """Halve a picture by the antialiased bicubic filter that MATLAB's imresize has too."""
    height, width = (-(-side // 2) for side in picture.shape[:2])
    planes = picture[..., None] if picture.ndim == 2 else picture
    halved = [
        np.asarray(
            Image.fromarray(planes[..., channel].astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
        )
        for channel in range(planes.shape[2])
    ]
    if picture.dtype == np.uint8:
        halved = [np.clip(np.rint(plane), 0, 255) for plane in halved]
    whole = np.stack(halved, -1)
    return np.ascontiguousarray(whole[..., 0] if picture.ndim == 2 else whole, np.float32)


def formatted(scores: dict[str, DispScore]) -> str:
    """Format the scenes and their average."""
    rows = {**scores, "mean": DispScore(*np.mean([astuple(s) for s in scores.values()], axis=0))}
    lines = [f"{'scene':<10}{'AI(1)':>8}{'AI(2)':>8}{'1-|rho|':>9}"]
    for name, score in rows.items():
        lines.append(
            f"{name:<10}{score.affine_mae:8.4f}{score.affine_rmse:8.4f}{score.rank_error:9.4f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blur", default="disparity", choices=["disparity", "learned"])
    args = parser.parse_args()
    try:
        print(formatted(evaluate_dpd_disp(args.folder, load_estimator(args.blur))))
    except ValueError as error:
        sys.exit(f"evaluate_dpd_disp: {error}")


if __name__ == "__main__":
    main()
