"""Find the pairs of data sets that have one blurred picture a scene, and no dual-pixel views."""

from __future__ import annotations

from pathlib import Path

from training.data.dpdd import Scene
from training.errors import DataError
from training.pictures import PICTURE_SUFFIXES


def find_single_scenes(folder: Path) -> list[Scene]:
    """Return the scenes of RealDOF or LFDOF; both views are the blurred picture.

    folder: holds source and target with equal names (RealDOF, Lee et al., CVPR 2021), or
        test_data/input and test_data/ground_truth, or these two themselves (LFDOF, Ruan et al.,
        IEEE TIP 2021), in which the inputs of a ground truth NAME are NAME.* or the files of a
        folder NAME.

    Raises DataError where there is neither, and for a picture without its ground truth.
    """
    for source, target in (
        ("source", "target"),
        ("test_data/input", "test_data/ground_truth"),
        ("input", "ground_truth"),
    ):
        if (folder / source).is_dir():
            return _paired(folder / source, folder / target)
    raise DataError(
        f"{folder}: expected source and target (RealDOF), or input and ground_truth, in a folder "
        "test_data or not (LFDOF)"
    )


def _paired(blurred: Path, sharp: Path) -> list[Scene]:
    truths = {path.stem: path for path in _pictures(sharp)}
    scenes = []
    for path in _pictures(blurred):
        truth = truths.get(path.stem) or truths.get(path.parent.name)
        if truth is None:
            raise DataError(f"{path}: no {path.stem} and no {path.parent.name} in {sharp}")
        scenes.append(Scene(path, path, truth))
    if not scenes:
        raise DataError(f"{blurred}: no pictures")
    return scenes


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
