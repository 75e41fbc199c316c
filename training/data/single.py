"""Sets of single pictures: their pairs, found in the folders' layouts, and crops to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldp.types import as_float
from training.data.dpdd import Scene, find_combined_scenes
from training.errors import DataError
from training.pictures import picture_files, read_rgb

_LAYOUTS = (
    ("source", "target"),
    ("test_data/input", "test_data/ground_truth"),
    ("input", "ground_truth"),
    ("input", "gt"),
)
"""Folders of blurred pictures and of their ground truths."""


def find_single_scenes(folder: Path, split: str = "test") -> list[Scene]:
    """Return the scenes of a set of single pictures; both views are the blurred picture.

    folder: one of
        DPDD in its own layout, of which the combined photos are taken, or in its common repack;
        source and target with equal names (RealDOF, Lee et al., CVPR 2021);
        input and ground_truth, in a folder test_data or not (LFDOF, Ruan et al., IEEE TIP 2021), in
            which the inputs of a ground truth NAME are NAME.* or the files of a folder NAME;
        input and gt with equal names;
        NAME_input.png and NAME_gt.png beside each other;
        NAME_L.png, NAME_R.png and NAME_gt.png beside each other: the picture is made of the views.
    split: of DPDD: train, val or test.

    Raises DataError where there is none of these, and for a picture without its ground truth.
    """
    combined = find_combined_scenes(folder, split)
    if combined is not None:
        return combined
    for blurred, sharp in _LAYOUTS:
        if (folder / blurred).is_dir() and (folder / sharp).is_dir():
            return _paired(folder / blurred, folder / sharp)
    for part in ("input", "L"):
        found = sorted(folder.glob(f"*_{part}.png"))
        if found:
            return [_scene_beside(path, part) for path in found]
    raise DataError(
        f"{folder}: expected {split}_c/source and {split}_c/target (DPDD), source and target "
        "(RealDOF), input and ground_truth, in a folder test_data or not (LFDOF), input and gt, "
        "NAME_input.png and NAME_gt.png, or NAME_L.png, NAME_R.png and NAME_gt.png"
    )


def _scene_beside(path: Path, part: str) -> Scene:
    """Return the scene of NAME_PART.png; of the part L, the other view is beside it."""
    name = path.name.removesuffix(f"_{part}.png")
    right = path.with_name(f"{name}_R.png") if part == "L" else path
    return Scene(path, right, path.with_name(f"{name}_gt.png"))


def _paired(blurred: Path, sharp: Path) -> list[Scene]:
    truths = {path.stem: path for path in picture_files(sharp)}
    scenes = []
    for path in picture_files(blurred):
        truth = truths.get(path.stem) or truths.get(path.parent.name)
        if truth is None:
            raise DataError(f"{path}: no {path.stem} and no {path.parent.name} in {sharp}")
        scenes.append(Scene(path, path, truth))
    if not scenes:
        raise DataError(f"{blurred}: no pictures")
    return scenes


class CombinedCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random crops of single pictures: the picture twice, (6, S, S), no map, sharp (3, S, S).

    Position n is a crop of the n-th picture of an endless sequence of shuffled rounds through all
    of them, flipped from left to right at every second chance. What is sampled at a position
    follows from the seed and the position alone.
    """

    def __init__(self, scenes: Sequence[Scene], crop_px: int, seed: Sequence[int]) -> None:
        self.scenes, self.crop_px, self.seed = scenes, crop_px, tuple(seed)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        turn, at = divmod(position, len(self.scenes))
        order = np.random.default_rng([*self.seed, 0, turn]).permutation(len(self.scenes))
        scene = self.scenes[int(order[at])]
        blurred, sharp = (as_float(read_rgb(path)) for path in (scene.left, scene.sharp))
        side = self.crop_px
        if blurred.shape != sharp.shape or min(blurred.shape[:2]) < side:
            raise DataError(
                f"{scene.left}: {blurred.shape[1]} x {blurred.shape[0]}, its truth "
                f"{sharp.shape[1]} x {sharp.shape[0]}: expected one size, of {side} px at least"
            )
        rng = np.random.default_rng([*self.seed, 1, position])
        top, left = (int(rng.integers(length - side + 1)) for length in blurred.shape[:2])
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        crops = (x[top : top + side, left : left + side][:, flip] for x in (blurred, sharp))
        pictures = [torch.from_numpy(x.transpose(2, 0, 1).copy()) for x in crops]
        return torch.cat([pictures[0], pictures[0]]), torch.zeros(1, 1, 1), pictures[1]
