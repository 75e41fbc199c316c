"""Score networks on the DPDD data set, under the protocols that its papers publish with.

    python -m training.evaluation.dpdd DPDD --model tiny --model small

DPDD is the set in its own layout (test_l/source, test_r/source, test_c/target) or in the common
repack (inputL, inputR, target); training.data.dpdd finds the scenes. Each is restored as `dpbatch
run --scale 1` does, with the network's own blur map and in tiles unless --whole is given, and
compared as 16-bit pictures. Where the 1-based lists indoor_labels.npy and outdoor_labels.npy lie
beside the pictures, both kinds are also averaged by themselves. RMSE is what papers call MSE_rel. A
scene takes about 10 s with `tiny` on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ldp.types import ViewPair
from training.data.dpdd import find_scenes, read_scene
from training.errors import DataError
from training.evaluation.scoring import Methods, SceneResult, Summary, run_evaluation, summarised

MEAN_VIEW = "mean of views"


def find_labels(folder: Path, split: str, count: int) -> dict[str, list[int]]:
    """Return the 0-based scenes of each kind: always all, and indoor and outdoor where listed.

    Raises DataError for a list that names scenes which are not there.
    """
    kinds = {"all": list(range(count))}
    for kind in ("indoor", "outdoor"):
        name = f"{kind}_labels.npy"
        for path in (folder / split / name, folder / name):
            if path.is_file():
                labels = np.load(path, allow_pickle=False).ravel()
                if not labels.size or labels.min() < 1 or labels.max() > count:
                    raise DataError(f"{path}: expected numbers from 1 to {count}, the scenes")
                kinds[kind] = [int(label) - 1 for label in labels]
                break
    return kinds


def evaluate_dpdd(
    folder: Path, methods: Methods, split: str = "test"
) -> tuple[list[SceneResult], list[Summary]]:
    """Score every scene of a split.

    Raises DataError for a folder, a scene or a list of labels that cannot be used.
    """
    scenes = find_scenes(folder, split)
    kinds = find_labels(folder, split, len(scenes))
    results = []
    for scene in scenes:
        pixels = read_scene(scene)
        left, right, sharp = (np.ascontiguousarray(pixels[..., c : c + 3]) for c in (0, 3, 6))
        name = scene.left.stem.removesuffix("_L")
        results.append(methods.scored(name, MEAN_VIEW, ViewPair(left, right), sharp))
    return results, summarised(results, kinds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DPDD")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    run_evaluation(
        parser,
        "evaluate_dpdd",
        lambda args, methods: evaluate_dpdd(args.folder, methods, args.split),
    )


if __name__ == "__main__":
    main()
