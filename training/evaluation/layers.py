"""Judge maps as masks: how well their steps lie at the outlines of what is in the picture.

    python -m training.evaluation.layers --photos PHOTOS --count 4
    python -m training.evaluation.layers --root ROOT

PHOTOS: sharp photographs; each becomes a slanted background with things cut out of two others
before it, blurred by at most 3, 6 and 12 px in radius, restored by a network and its map aligned
to the result. At every outline with a step of at least 1 px of disparity, off: the distance in px
between the place where the map passes the middle of its step and the outline, where it has at least
a quarter of the step (found); bleed: how far the map's values reach over the outline, as the width
in px of a strip that would be wholly wrong, an outline that is not found counting as 12.
ROOT: as for training.evaluation.disparity; Spearman's rho with inverse depth over the whole frame.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

import ldp
from ldp.blur.depth import depth_map
from ldp.blur.learned import load_radius_estimator
from ldp.blur.outlines import align, enlarged
from ldp.types import BlurMap, FloatArray, Plane, ViewPair
from training.errors import DataError
from training.evaluation.disparity import read_inverse_depth, read_views, scene_folders
from training.evaluation.disparity_metrics import spearman
from training.evaluation.native_scenes import blob_mask
from training.evaluation.scoring import photo_count
from training.evaluation.synthetic import LEVELS, landscape_photos, simulate_view
from training.simulator.optics import KernelShape
from training.simulator.render import RenderedPair, Surface, render
from training.simulator.scenes import ESTIMATOR

SEED = 7_140
LEAST_STEP_PX = 1.0
REACH_PX = 24
"""Profiles are read so far on both sides of an outline."""
_PLATEAU_PX = (8.0, 16.0)
_STEP_PX = 0.5
_FOUND_SHARE = 0.25
_NORMAL_SIGMA_PX = 3.0


@dataclass(frozen=True)
class OutlineScore:
    """off_px, median_off_px: of the outlines that were found, a share of all. bleed_px: of all."""

    off_px: float
    median_off_px: float
    found: float
    bleed_px: float


def make_scene(photos: Sequence[FloatArray], index: int, radius_px: float) -> RenderedPair:
    """Render a scene of the photo `index` (linear light) with two others before it."""
    rng = np.random.default_rng([SEED, index])
    height, width = photos[index].shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * x + np.sin(angle) * y
    slope = 0.5 * (slope - slope.min()) / np.ptp(slope) - 1
    whole = np.ones((height, width), np.float32)
    surfaces = [Surface(photos[index], whole, np.asarray(slope * radius_px, np.float32))]
    depths = rng.uniform([-0.2, 0.4], [0.1, 1.0])
    for number, depth in enumerate(depths, start=1):
        alpha = blob_mask((height, width), rng, (4, 5), 0.8)
        other = photos[(index + number * max(1, len(photos) // 3)) % len(photos)]
        colour = np.asarray(cv2.resize(other, (width, height)), np.float32)
        coc_px = np.full((height, width), depth * radius_px, np.float32)
        surfaces.append(Surface(colour, alpha, coc_px))
    shape = KernelShape(ramp=float(rng.uniform(0.4, 1.6)), rim=float(rng.uniform(0.0, 1.5)))
    return render(surfaces, shape)


def score_outlines(found_px: Plane, true_px: Plane) -> OutlineScore | None:
    """Score a map of disparities, (H, W) px, by the true one; None where that has no outlines."""
    points, normals = outlines(true_px)
    places = np.arange(-REACH_PX, REACH_PX + _STEP_PX / 2, _STEP_PX, dtype=np.float32)
    truth = _profiles(true_px, points, normals, places)
    alone = _has_one_step(truth, places)
    if not alone.any():
        return None
    profiles, truth = _profiles(found_px, points, normals, places)[alone], truth[alone]
    near = (places >= _PLATEAU_PX[0]) & (places <= _PLATEAU_PX[1])
    high, low = (np.median(profiles[:, side], axis=1) for side in (near, near[::-1]))
    steps = np.ptp(truth, axis=1)
    is_found = high - low > _FOUND_SHARE * steps
    is_above = profiles >= ((high + low) / 2)[:, None]
    middles = np.abs(places[:-1] + _STEP_PX / 2)
    off = np.where(is_above[:, 1:] != is_above[:, :-1], middles, REACH_PX).min(axis=1)
    share = (profiles - low[:, None]) / np.maximum(high - low, 1e-3)[:, None]
    bleed = np.abs(share.clip(0, 1) - (places > 0)).sum(axis=1) * _STEP_PX
    bleed[~is_found] = REACH_PX / 2
    off = off[is_found] if is_found.any() else np.array([np.nan])
    return OutlineScore(
        float(off.mean()), float(np.median(off)), float(is_found.mean()), float(bleed.mean())
    )


def outlines(true_px: Plane) -> tuple[FloatArray, FloatArray]:
    """Return points between pixels where the disparity steps, (n, 2) as y, x, and the unit normals
    towards the nearer side; none within REACH_PX of the border."""
    smooth = cv2.GaussianBlur(true_px, (0, 0), _NORMAL_SIGMA_PX)
    gradient = np.dstack([cv2.Sobel(smooth, cv2.CV_32F, 0, 1), cv2.Sobel(smooth, cv2.CV_32F, 1, 0)])
    points, normals = [], []
    for axis, between in ((0, (0.5, 0.0)), (1, (0.0, 0.5))):
        steps = np.abs(np.diff(true_px, axis=axis)) >= LEAST_STEP_PX
        at = np.argwhere(steps)
        points.append((at + np.array(between)).astype(np.float32))
        normals.append(gradient[at[:, 0], at[:, 1]])
    all_points, all_normals = np.concatenate(points), np.concatenate(normals)
    lengths = np.hypot(all_normals[:, 0], all_normals[:, 1])
    limits = np.array(true_px.shape) - REACH_PX - 1
    inside = ((all_points > REACH_PX) & (all_points < limits)).all(axis=1) & (lengths > 1e-6)
    normals_found = np.asarray(all_normals[inside] / lengths[inside, None], np.float32)
    return all_points[inside], normals_found


def _profiles(
    plane: Plane, points: FloatArray, normals: FloatArray, places: FloatArray
) -> FloatArray:
    """Return the plane along each normal, (n, places)."""
    y = points[:, :1] + places * normals[:, :1]
    x = points[:, 1:] + places * normals[:, 1:]
    rows = [
        cv2.remap(
            plane,
            np.asarray(x[start : start + 30_000], np.float32),
            np.asarray(y[start : start + 30_000], np.float32),
            cv2.INTER_LINEAR,
        )
        for start in range(0, len(points), 30_000)  # OpenCV's largest side is 32,767
    ]
    return np.concatenate(rows) if rows else np.zeros((0, len(places)), np.float32)


def _has_one_step(
    truth: FloatArray, places: FloatArray
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for which profiles the outline is the only step."""
    changes = np.abs(np.diff(truth, axis=1))
    elsewhere = np.abs(places[:-1] + _STEP_PX / 2) > 2
    others = changes[:, elsewhere].max(axis=1, initial=0)
    return np.asarray(others < 0.5 * np.ptp(truth, axis=1))


def _maps(model: ldp.Model, views: ViewPair) -> dict[str, BlurMap]:
    """Return the map as it was measured, and corrected by and aligned to the restored picture."""
    measured = model.estimator.estimate(views)
    sharp = model.restore_uint16(views, blur_map=measured).sharp
    aligned = align(depth_map(measured, views, model.estimator, sharp), sharp)
    assert aligned.disparity_px is not None
    large = enlarged(aligned.disparity_px, sharp)
    return {"measured": measured, "aligned": BlurMap(aligned.amount, large)}


def _rendered_lines(model: ldp.Model, photos: list[FloatArray], count: int) -> Iterator[str]:
    yield f"{'rendered':24}{'off px':>8}{'median':>8}{'found':>8}{'bleed px':>9}"
    for level in LEVELS:
        scores: dict[str, list[OutlineScore]] = {}
        for index in range(min(count or len(photos), len(photos))):
            pair = make_scene(photos, index, level.radius_px)
            rng = np.random.default_rng([SEED, index, int(level.radius_px)])
            left, right = (simulate_view(view, "none", rng) for view in (pair.left, pair.right))
            views = ViewPair(left, right)
            for name, found in _maps(model, views).items():
                assert found.disparity_px is not None
                score = score_outlines(found.disparity_px, pair.disparity_px)
                if score is not None:
                    scores.setdefault(name, []).append(score)
        for name, of_name in scores.items():
            means = np.nanmean([astuple(score) for score in of_name], axis=0)
            cells = "".join(f"{value:8.2f}" for value in means)
            yield f"{f'{level.radius_px:g} px, {name}':24}{cells}"


def _real_lines(model: ldp.Model, root: Path) -> Iterator[str]:
    folders = scene_folders(root)
    if not folders:
        raise DataError(f"{root}: no scenes; expected box/NNN or casual/iphone/NNN")
    yield f"{'scene':24}{'measured':>10}{'aligned':>10}"
    found = []
    for folder in folders:
        row = []
        for blur_map in _maps(model, read_views(folder)).values():
            assert blur_map.disparity_px is not None
            height, width = blur_map.disparity_px.shape
            inverse_depth = read_inverse_depth(folder / "d.png", (width, height))
            row.append(spearman(blur_map.disparity_px, inverse_depth))
        found.append(row)
        yield f"{folder.relative_to(root)!s:24}{row[0]:10.3f}{row[1]:10.3f}"
    means = np.mean(found, axis=0)
    yield f"{'mean':24}{means[0]:10.3f}{means[1]:10.3f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of sharp photographs")
    parser.add_argument(
        "--count", type=photo_count, default=0, metavar="N", help="only the first N scenes"
    )
    parser.add_argument("--root", type=Path, help="folder of real scenes with depth")
    parser.add_argument("--model", default="tiny", metavar="NAME|FILE")
    args = parser.parse_args()
    if args.photos is None and args.root is None:
        parser.error("give --photos, --root or both")
    try:
        if args.photos is not None:
            photos = landscape_photos(args.photos)
            radius = load_radius_estimator(torch.device("cpu"))
            model = ldp.load(args.model, blur=replace(ESTIMATOR, radius=radius))
            for line in _rendered_lines(model, photos, args.count):
                print(line, flush=True)
        if args.root is not None:
            for line in _real_lines(ldp.load(args.model), args.root):
                print(line, flush=True)
    except (ValueError, ldp.LdpError) as error:
        sys.exit(f"training.evaluation.layers: {error}")


if __name__ == "__main__":
    main()
