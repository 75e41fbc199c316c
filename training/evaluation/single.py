"""Score networks on single pictures: RealDOF, LFDOF, DPDD's combined photos, composites.

    python -m training.evaluation.single REALDOF --model single --model vitdeblur.safetensors
    python -m training.evaluation.single DPDD --split test --model single --measure lpips_squeeze

The layouts are those of training.data.single. Every network is given the one picture, a network of
two views twice: what it can do without disparity. ViTDeblur's published figures are of pictures
that are padded, together with the truth, and scored whole: --padding published.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ldp.restore.windows import padded_as_published
from ldp.types import Picture, ViewPair
from training.data.dpdd import read_scene
from training.data.single import find_single_scenes
from training.evaluation.protocols import composite
from training.evaluation.scoring import Methods, SceneResult, Summary, run_evaluation, summarised

INPUT = "input"
PADDINGS = ("none", "published")


def evaluate_single(
    folder: Path, methods: Methods, split: str = "test", *, as_published: bool = False
) -> tuple[list[SceneResult], list[Summary]]:
    """Score every picture of a set.

    split: of DPDD. as_published: pad pictures and truth as the published code of ViTDeblur does,
    and score them whole.

    Raises DataError for a folder or a picture that cannot be used.
    """
    results = []
    for scene in find_single_scenes(folder, split):
        pixels = read_scene(scene)
        left, right, sharp = (np.ascontiguousarray(pixels[..., c : c + 3]) for c in (0, 3, 6))
        one = scene.left == scene.right
        picture: Picture = left if one else composite(ViewPair(left, right))
        truth: Picture = sharp
        if as_published:
            picture, truth = padded_as_published(picture), padded_as_published(truth)
        name = scene.left.stem.removesuffix("_L").removesuffix("_input")
        results.append(methods.scored(name, INPUT, ViewPair(picture, picture), truth))
    return results, summarised(results, {"all": list(range(len(results)))})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="test", choices=["train", "val", "test"], help="of DPDD")
    parser.add_argument("--padding", default="none", choices=PADDINGS)
    parser.add_argument("--skip-rows", type=int, default=0, help="rows at the top left out")
    run_evaluation(
        parser,
        "evaluate_single",
        lambda args, methods: evaluate_single(
            args.folder, methods, args.split, as_published=args.padding == "published"
        ),
    )


if __name__ == "__main__":
    main()
