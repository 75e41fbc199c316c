"""Score networks on sets of single pictures, RealDOF and LFDOF, which have no dual-pixel views.

    python -m training.evaluation.single REALDOF --model tiny

Both views are the blurred picture: what a network can do without disparity. The layouts are those
of training.data.single; the scores are those of training.evaluation.dpdd.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ldp.errors import LdpError
from training.data.single import find_single_scenes
from training.evaluation.dpdd import SceneResult, Summary, formatted, score_scene, summarised
from training.evaluation.perceptual import Perceptual, load_perceptual
from training.evaluation.protocols import NOT_MEASURED, PROTOCOLS, Protocol, Restore
from training.evaluation.scoring import (
    add_network_options,
    add_protocol_options,
    chosen_restorers,
    write_figures,
)


def evaluate_single(
    folder: Path,
    restorers: dict[str, Restore],
    protocol: Protocol = PROTOCOLS["restormer"],
    perceptual: Perceptual = NOT_MEASURED,
    report: Callable[[SceneResult], None] = lambda _: None,
) -> tuple[list[SceneResult], list[Summary]]:
    """Score every picture of a set; report is called after each.

    Raises DataError for a folder or a picture that cannot be used.
    """
    results = []
    for scene in find_single_scenes(folder):
        results.append(score_scene(scene, restorers, protocol, perceptual))
        report(results[-1])
    return results, summarised(results, {"all": list(range(len(results)))})


def _report(result: SceneResult) -> None:
    cells = "  ".join(f"{name} {s.psnr_db:.2f} {s.ssim:.3f}" for name, s in result.scores.items())
    print(f"{result.name}: {cells}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    add_network_options(parser)
    add_protocol_options(parser)
    args = parser.parse_args()
    try:
        restorers = chosen_restorers(args)
        perceptual = load_perceptual(args.measure, args.lpips)
        results, summaries = evaluate_single(
            args.folder, restorers, PROTOCOLS[args.protocol], perceptual, _report
        )
        figures = {
            "protocol": args.protocol,
            "lpips_network": args.lpips if perceptual.lpips else None,
            "scenes": [asdict(result) for result in results],
            "averages": [asdict(summary) for summary in summaries],
        }
        write_figures(args.json, figures)
    except (ValueError, OSError, LdpError) as error:
        sys.exit(f"evaluate_single: {error}")
    print(formatted(summaries))


if __name__ == "__main__":
    main()
