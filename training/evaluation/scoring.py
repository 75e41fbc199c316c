"""Options and output that the evaluating commands share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.evaluation.perceptual import DEFAULT, NAMES
from training.evaluation.protocols import PROTOCOLS, PictureScores, Restore, load_restorer


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of which networks restore, how, and where their figures go."""
    parser.add_argument("--model", action="append", default=[], metavar="NAME|FILE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tile", type=int, default=0, metavar="PX")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def add_protocol_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of how results are compared with the truth."""
    parser.add_argument("--protocol", default="restormer", choices=list(PROTOCOLS))
    parser.add_argument("--lpips", default="alex", choices=["alex", "squeeze", "vgg"])
    parser.add_argument(
        "--measure",
        nargs="*",
        default=list(DEFAULT),
        choices=NAMES,
        help="measures of perceived quality, of those whose package is installed; default: "
        + " ".join(DEFAULT),
    )


def chosen_restorers(args: argparse.Namespace) -> dict[str, Restore]:
    """Load the networks of add_network_options, by name. Raises what load_restorer raises."""
    return {Path(model).stem: load_restorer(model, args.device, args.tile) for model in args.model}


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, if there is a path to write them to."""
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def optional_cells(scores: PictureScores) -> str:
    """Format the measures of perceived quality, eight characters each, "-" for one not measured."""
    values = (getattr(scores, name) for name in NAMES)
    return "".join(f"{'-' if value is None else f'{value:.3f}':>8}" for value in values)


def optional_heads() -> str:
    """Format the heads of optional_cells."""
    return "".join(f"{name.upper():>8}" for name in NAMES)
