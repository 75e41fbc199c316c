"""Score networks on the DPDD data set, under the protocols that its papers publish with.

    python -m training.evaluation.dpdd DPDD --model tiny --model small

DPDD is the set in its own layout (test_l/source, test_r/source, test_c/target) or in the common
repack (inputL, inputR, target); training.data.dpdd finds the scenes. Each is restored as `dpbatch
run` does, with the network's own blur map and in tiles, and compared as 16-bit pictures. Where the
1-based lists indoor_labels.npy and outdoor_labels.npy lie beside the pictures, both kinds are also
averaged by themselves. RMSE is what papers call MSE_rel. A scene takes
about 10 s with `tiny` on one core, the 76 of the test split so 12 minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ldp.errors import LdpError
from ldp.types import ViewPair
from training.data.dpdd import Scene, find_scenes, read_scene
from training.errors import DataError
from training.evaluation.perceptual import Perceptual, load_perceptual
from training.evaluation.protocols import (
    NOT_MEASURED,
    PROTOCOLS,
    PictureScores,
    Protocol,
    Restore,
    mean_scores,
    picture_scores,
)
from training.evaluation.scoring import (
    add_network_options,
    add_protocol_options,
    chosen_restorers,
    optional_cells,
    optional_heads,
    write_figures,
)

MEAN_VIEW = "mean of views"


@dataclass(frozen=True)
class SceneResult:
    """One scene's scores by method; the mean of the two views is always one of them."""

    name: str
    scores: dict[str, PictureScores]


@dataclass(frozen=True)
class Summary:
    """A method's averages over the scenes of one kind."""

    method: str
    scenes: str
    count: int
    average: PictureScores


def score_scene(
    scene: Scene,
    restorers: dict[str, Restore],
    protocol: Protocol,
    perceptual: Perceptual = NOT_MEASURED,
) -> SceneResult:
    """Restore and score one scene. Raises DataError if it cannot be read."""
    pixels = read_scene(scene)
    left, right, sharp = (np.ascontiguousarray(pixels[..., c : c + 3]) for c in (0, 3, 6))
    truth = sharp / 65535
    mean_view = (left / 65535 + right / 65535) / 2
    pictures = {MEAN_VIEW: mean_view}
    for name, restore in restorers.items():
        pictures[name] = restore(ViewPair(left, right)) / 65535
    scores = {
        name: picture_scores(picture, truth, mean_view, protocol, perceptual)
        for name, picture in pictures.items()
    }
    return SceneResult(scene.left.stem.removesuffix("_L"), scores)


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


def summarised(results: Sequence[SceneResult], kinds: dict[str, list[int]]) -> list[Summary]:
    """Return every method's averages over every kind of scenes."""
    return [
        Summary(method, kind, len(places), mean_scores([results[i].scores[method] for i in places]))
        for kind, places in kinds.items()
        for method in results[0].scores
    ]


def formatted(summaries: Sequence[Summary]) -> str:
    """Format the averages."""
    head = f"{'scenes':<14}{'method':<16}{'PSNR':>7}{'SSIM':>7}{'MAE':>7}{'RMSE':>8}"
    lines = [head + optional_heads()]
    for summary in summaries:
        scores = summary.average
        lines.append(
            f"{f'{summary.scenes} ({summary.count})':<14}{summary.method:<16}"
            f"{scores.psnr_db:7.2f}{scores.ssim:7.3f}{scores.mae:7.3f}"
            f"{scores.rmse:8.4f}{optional_cells(scores)}"
        )
    return "\n".join(lines)


def evaluate_dpdd(
    folder: Path,
    restorers: dict[str, Restore],
    split: str = "test",
    protocol: Protocol = PROTOCOLS["restormer"],
    perceptual: Perceptual = NOT_MEASURED,
    report: Callable[[SceneResult], None] = lambda _: None,
) -> tuple[list[SceneResult], list[Summary]]:
    """Score every scene of a split; report is called after each.

    Raises DataError for a folder, a scene or a list of labels that cannot be used.
    """
    scenes = find_scenes(folder, split)
    kinds = find_labels(folder, split, len(scenes))
    results = []
    for scene in scenes:
        results.append(score_scene(scene, restorers, protocol, perceptual))
        report(results[-1])
    return results, summarised(results, kinds)


def _report(result: SceneResult) -> None:
    cells = "  ".join(f"{name} {s.psnr_db:.2f} {s.ssim:.3f}" for name, s in result.scores.items())
    print(f"{result.name}: {cells}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DPDD")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    add_network_options(parser)
    add_protocol_options(parser)
    args = parser.parse_args()
    try:
        restorers = chosen_restorers(args)
        protocol = PROTOCOLS[args.protocol]
        perceptual = load_perceptual(args.measure, args.lpips)
        results, summaries = evaluate_dpdd(
            args.folder, restorers, args.split, protocol, perceptual, _report
        )
        figures = {
            "protocol": args.protocol,
            "lpips_network": args.lpips if perceptual.lpips else None,
            "scenes": [asdict(result) for result in results],
            "averages": [asdict(summary) for summary in summaries],
        }
        write_figures(args.json, figures)
    except (ValueError, OSError, LdpError) as error:
        sys.exit(f"evaluate_dpdd: {error}")
    print(formatted(summaries))


if __name__ == "__main__":
    main()
