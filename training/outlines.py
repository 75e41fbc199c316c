"""Train the outline network, which places the depths of a map at the outlines of what is there.

    python -m training.outlines PHOTOS --out outlines.safetensors --scenes FOLDER --minutes 60

Scenes are rendered from PHOTOS, restored by `tiny`, and kept in FOLDER (7 MB each, about two
seconds of a core) until there are so many; several processes with different seeds may fill one
folder, with --minutes 0. Then the network is trained on crops of them, and goes on from --out where
that exists. Every thirtieth scene by name, twelve at most, is held out, to judge by: in a folder
that scenes were added to, these may be scenes that an earlier training has seen.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ldp
from ldp.blur.outline_net import LEVELS, OutlineNet, mixed
from ldp.blur.outline_planes import CONFIDENCE_PLANE, MEASURED_PLANE, OWN_PLANE, TENT_PLANES, tents
from ldp.blur.outline_weights import load_outline_network, save_outline_network
from ldp.types import FloatArray
from training.errors import DataError, RecipeError
from training.outline_scenes import OutlineScene, make_scene, read_planes
from training.simulator.layouts import smooth_field
from training.simulator.scenes import read_photos

CROP_PX = 192
BATCH = 6
_VIEW_DIFFERENCES = slice(6, None)
"""Of the fine planes, those that change their sign where the views are exchanged."""
_MISSHAPEN_SHARE = 0.5
_LARGEST_GROWTH_PX = 12
_NO_STEP = 0.01
"""Errors below this share of all depths count little."""
_LIKELIHOOD_WEIGHT = 0.1
_WRONG = 0.15
_HELD_OUT = 30
_LARGEST_HELD_OUT = 12
_LEAST_SCENES = 2
"""One to train on and one held out."""


@dataclass(frozen=True)
class Crops:
    """fine, coarse: see ldp.blur.outline_net. own, depth: (B, 1, S, S), 0 for the first level and 1
    for the last."""

    fine: Tensor
    coarse: Tensor
    own: Tensor
    depth: Tensor


class CropMaker:
    """Draws crops of stored scenes, mirrored or not, their colours exchanged."""

    def __init__(self, files: list[Path], seed: int) -> None:
        self._files = files
        self._rng = np.random.default_rng(seed)
        self._scene = cache(OutlineScene.load)

    def draw(self, count: int) -> Crops:
        """A batch."""
        drawn = [self._one() for _ in range(count)]
        tensors = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True)]
        return Crops(*(each.contiguous(memory_format=torch.channels_last) for each in tensors))

    def _one(self) -> list[np.ndarray]:
        rng = self._rng
        scene = self._scene(self._files[int(rng.integers(len(self._files)))])
        top, left = (2 * int(rng.integers((side - CROP_PX) // 2 + 1)) for side in scene.own.shape)
        arrays = []
        for planes, step in ((scene.fine, 1), (scene.coarse, 2)):
            rows = slice(top // step, (top + CROP_PX) // step)
            columns = slice(left // step, (left + CROP_PX) // step)
            arrays.append(read_planes(planes[:, rows, columns]))
        for plane in (scene.own, scene.depth):
            part = plane[top : top + CROP_PX, left : left + CROP_PX]
            arrays.append(part[None].astype(np.float32))
        if rng.random() < 0.5:
            arrays = [each[:, ::-1] for each in arrays]
        if rng.random() < 0.5:
            # A mirrored photo has its views exchanged.
            arrays = [each[..., ::-1].copy() for each in arrays]
            arrays[0][_VIEW_DIFFERENCES] *= -1
        fine, coarse, own, depth = (each.copy() for each in arrays)
        if rng.random() < _MISSHAPEN_SHARE:
            _misshape(rng, fine, coarse, own)
        fine[:3] = fine[rng.permutation(3)]
        return [np.ascontiguousarray(each) for each in (fine, coarse, own, depth)]


def _misshape(
    rng: np.random.Generator, fine: FloatArray, coarse: FloatArray, own: FloatArray
) -> None:
    """Let the map's near or far parts grow in places, so that the network looks at the views too.

    Changes the planes that follow from the map.
    """
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    share = (0.5 + smooth_field(rng, CROP_PX, float(rng.uniform(20, 120))) * 4).clip(0, 1)
    radius_px = int(rng.integers(1, _LARGEST_GROWTH_PX + 1))
    for plane, scale in ((own[0], 1), (coarse[MEASURED_PLANE], 2)):
        side = 2 * max(1, radius_px // scale) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        weight = cv2.resize(share, plane.shape[::-1])
        plane += weight * (change(np.ascontiguousarray(plane), kernel) - plane)
    if rng.random() < 0.5:
        coarse[CONFIDENCE_PLANE] = rng.uniform(0.2, 1)
    fine[OWN_PLANE] = 2 * own[0] - 1
    coarse[TENT_PLANES] = tents(own[0])


def loss_of(found: Tensor, own: Tensor, depth: Tensor) -> Tensor:
    """Return the mean error of the depth, and the likelihood of the true one among the levels.

    found: of the network. own, depth: (B, 1, H, W), of the map and the truth.
    """
    error = mixed(found, own) - depth.clamp(-0.2, 1.2)
    distance = (error.square() + _NO_STEP**2).sqrt().mean()
    likely = found[:, :LEVELS] + found[:, LEVELS:] * _near_levels(own)
    surprise = -(_near_levels(depth) * (likely + 1e-4).log()).sum(1).mean()
    return distance + _LIKELIHOOD_WEIGHT * surprise


def _near_levels(depth: Tensor) -> Tensor:
    """Return the shares of the two levels next to a depth, (B, LEVELS, H, W)."""
    places = torch.arange(LEVELS)[:, None, None] / (LEVELS - 1)
    return (1 - (depth.clamp(0, 1) - places).abs() * (LEVELS - 1)).clamp(0, 1)


def errors(network: OutlineNet, files: list[Path]) -> tuple[float, ...]:
    """Return the mean error of the network and of the maps, and the shares of pixels that both have
    wrong by more than 0.15 of all depths."""
    rows = []
    with torch.inference_mode():
        for path in files:
            scene = OutlineScene.load(path)
            planes = (torch.from_numpy(read_planes(x))[None] for x in (scene.fine, scene.coarse))
            own, depth = (torch.from_numpy(x.astype(np.float32)) for x in (scene.own, scene.depth))
            found = mixed(network(*planes), own[None, None])[0, 0]
            off = [(each - depth).abs() for each in (found, own)]
            means = [each.mean().item() for each in off]
            rows.append([*means, *((each > _WRONG).float().mean().item() for each in off)])
    return tuple(np.mean(rows, 0).tolist())


def train(
    network: OutlineNet, files: list[Path], out: Path, seconds: float, rate: float, seed: int
) -> None:
    """Train for a time, the learning rate falling over it, and save a moving average."""
    held_out = files[::_HELD_OUT][:_LARGEST_HELD_OUT]
    maker = CropMaker([path for path in files if path not in held_out], seed)
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    average = AveragedModel(
        network,
        multi_avg_fn=get_ema_multi_avg_fn(0.995),  # type: ignore[no-untyped-call]
    )
    averaged = cast(OutlineNet, average.module)
    started, step, recent = time.monotonic(), 0, []
    while (elapsed := time.monotonic() - started) < seconds:
        warm = min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.5 * (1 + np.cos(np.pi * elapsed / seconds)) + 0.01)
        crops = maker.draw(BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(crops.fine, crops.coarse)
        loss = loss_of(found.float(), crops.own, crops.depth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        recent.append(loss.item())
        step += 1
        if step % 250 == 0:
            off, of_map, wrong, wrong_of_map = errors(averaged, held_out)
            print(
                f"{step:6d} {elapsed:6.0f} s  loss {np.mean(recent):.3f}  held out: off by "
                f"{off:.4f} (map {of_map:.4f}), wrong {wrong:.2%} (map {wrong_of_map:.2%})",
                flush=True,
            )
            recent = []
            save_outline_network(averaged, out, {"steps": str(step)})
    save_outline_network(averaged, out, {"steps": str(step)})


def fill(folder: Path, photos: Path, count: int, seed: int) -> None:
    """Render scenes into a folder until it has so many. Raises DataError for photos that cannot be
    read, OSError for a folder that cannot be made."""
    pictures = read_photos(photos)
    folder.mkdir(parents=True, exist_ok=True)
    model = ldp.load("tiny")
    number = 0
    while len(list(folder.glob("*.npz"))) < count:
        path = folder / f"{seed}-{number:05}.npz"
        number += 1
        if path.exists():
            continue
        scene = make_scene(np.random.default_rng([seed, number]), pictures, model)
        if scene is not None:
            scene.save(path)


def checked_scenes(folder: Path) -> list[Path]:
    """Return the files of a folder's scenes. Raises DataError for a file that is none, and where
    there are too few to train on."""
    files = sorted(folder.glob("*.npz"))
    if len(files) < _LEAST_SCENES:
        raise DataError(
            f"{folder}: {len(files)} scenes; expected at least {_LEAST_SCENES}, one of which is "
            f"held out: --count {_LEAST_SCENES} or more renders them"
        )
    for path in files:
        OutlineScene.load(path)
    return files


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail only after all scenes are rendered. Raises RecipeError."""
    for name, value in (("count", args.count), ("minutes", args.minutes), ("seed", args.seed)):
        if not (math.isfinite(value) and value >= 0):
            raise RecipeError(f"--{name} {value}: expected 0 or more")
    if not (math.isfinite(args.rate) and args.rate > 0):
        raise RecipeError(f"--rate {args.rate}: expected more than 0")
    if not args.out.parent.is_dir():
        raise RecipeError(f"--out {args.out}: there is no folder {args.out.parent}; make it first")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of sharp photographs")
    parser.add_argument("--out", type=Path, required=True, help="weights to write, or go on from")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of rendered scenes")
    parser.add_argument("--count", type=int, default=1000, help="scenes to have there")
    parser.add_argument("--minutes", type=float, default=60, help="of training; 0 for none")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    try:
        _check(args)
        network = load_outline_network(args.out) if args.out.exists() else OutlineNet()
        fill(args.scenes, args.photos, args.count, args.seed)
        if args.minutes > 0:
            files = checked_scenes(args.scenes)
            train(network, files, args.out, args.minutes * 60, args.rate, args.seed)
    except (ValueError, OSError, ldp.LdpError) as error:
        sys.exit(f"training.outlines: {error}")


if __name__ == "__main__":
    main()
