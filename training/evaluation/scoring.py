"""Options, scores and output that the evaluating commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from ldp.blur.estimator import ESTIMATORS, OPENAI
from ldp.blur.loading import AUTO
from ldp.errors import LdpError
from ldp.restore.windows import PUBLISHED_STRIDE_PX, Blending, WindowSettings
from ldp.types import Picture, ViewPair
from training.evaluation.perceptual import (
    DEFAULT,
    NAMES,
    Perceptual,
    load_perceptual,
    note_of_missing,
)
from training.evaluation.protocols import (
    NOT_MEASURED,
    PROTOCOLS,
    PictureScores,
    Protocol,
    Restore,
    load_restorer,
    mean_scores,
    picture_scores,
)
from training.pictures import Float64Picture, StoredPicture, as_float64


@dataclass(frozen=True)
class SceneResult:
    """One scene's scores by method; the picture before any restoring is always one of them."""

    name: str
    scores: dict[str, PictureScores]


@dataclass(frozen=True)
class Summary:
    """A method's averages over the scenes of one kind."""

    method: str
    scenes: str
    count: int
    average: PictureScores


@dataclass(frozen=True)
class Methods:
    """What a data set is evaluated with.

    restorers: networks by name. protocol, perceptual: how results are compared with the truth.
    report: called after each scene. skip_rows: rows at the top that are not compared.
    """

    restorers: Mapping[str, Restore]
    protocol: Protocol = PROTOCOLS["restormer"]
    perceptual: Perceptual = NOT_MEASURED
    report: Callable[[SceneResult], None] = lambda _: None
    skip_rows: int = 0

    def scored(self, name: str, before: str, views: ViewPair, truth: Picture) -> SceneResult:
        """Restore two views, or one picture given twice, and score the results.

        before: the name that the scores of the views' mean are given.
        """
        left, right, sharp = (_as_float64(picture) for picture in (views.left, views.right, truth))
        mean_view: Float64Picture = (left + right) / 2
        pictures = {before: mean_view}
        for method, restore in self.restorers.items():
            pictures[method] = restore(views) / 65535
        kept = slice(self.skip_rows, None)
        scores = {
            method: picture_scores(
                picture[kept], sharp[kept], mean_view[kept], self.protocol, self.perceptual
            )
            for method, picture in pictures.items()
        }
        result = SceneResult(name, scores)
        self.report(result)
        return result


def _as_float64(picture: Picture) -> Float64Picture:
    """Return a picture of any type with white at 1."""
    if picture.dtype == np.float32:
        return picture.astype(np.float64)
    return as_float64(cast(StoredPicture, picture))


def summarised(results: Sequence[SceneResult], kinds: Mapping[str, list[int]]) -> list[Summary]:
    """Return every method's averages over every kind of scenes, given by their places."""
    return [
        Summary(method, kind, len(places), mean_scores([results[i].scores[method] for i in places]))
        for kind, places in kinds.items()
        for method in results[0].scores
    ]


def formatted(summaries: Sequence[Summary]) -> str:
    """Format the averages."""
    head = f"{'scenes':<14}{'method':<16}{'PSNR':>7}{'fitted':>8}{'SSIM':>7}{'MAE':>7}{'RMSE':>8}"
    lines = [head + optional_heads()]
    for summary in summaries:
        scores = summary.average
        lines.append(
            f"{f'{summary.scenes} ({summary.count})':<14}{summary.method:<16}"
            f"{scores.psnr_db:7.2f}{scores.fitted_psnr_db:8.2f}{scores.ssim:7.3f}"
            f"{scores.mae:7.3f}{scores.rmse:8.4f}{optional_cells(scores)}"
        )
    return "\n".join(lines)


def photo_count(text: str) -> int:
    """Read --count, the number of photos that are taken, 0 for all. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected 0 or more, found {text!r}")
    return int(text)


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of which networks restore, how, and where their figures go."""
    parser.add_argument("--model", action="append", default=[], metavar="NAME|FILE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tile", type=int, default=0, metavar="PX")
    parser.add_argument(
        "--window-stride",
        type=int,
        default=PUBLISHED_STRIDE_PX,
        metavar="PX",
        help=f"of ViTDeblur's windows; {PUBLISHED_STRIDE_PX} as published, at most 310",
    )
    parser.add_argument(
        "--blending", default="uniform", choices=get_args(Blending), help="of these windows"
    )
    parser.add_argument(
        "--blur",
        default=AUTO,
        choices=(AUTO, *ESTIMATORS),
        help="blur map; auto: what a network was trained with",
    )
    parser.add_argument("--clip-weights", default=OPENAI, metavar="TAG|FILE", help="of its CLIP")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="one pass over each picture, as the networks' authors do, and no tiles",
    )
    parser.add_argument(
        "--no-protect",
        dest="protect",
        action="store_false",
        help="keep every change of a network, in focus and in strong noise too",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")


def add_protocol_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of how results are compared with the truth."""
    parser.add_argument("--protocol", default="restormer", choices=list(PROTOCOLS))
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
    windows = WindowSettings(args.window_stride, args.blending)
    return {
        Path(model).stem: load_restorer(
            model,
            args.device,
            args.tile,
            windows,
            blur=args.blur,
            clip_weights=args.clip_weights,
            whole=args.whole,
            protect=args.protect,
        )
        for model in args.model
    }


def chosen_measures(args: argparse.Namespace) -> Perceptual:
    """Load the measures of add_protocol_options; say on standard error which ones are left out."""
    measures = load_perceptual(args.measure)
    if note := note_of_missing(args.measure, measures):
        print(note, file=sys.stderr)
    return measures


def chosen_settings(args: argparse.Namespace) -> dict[str, str | int]:
    """Return the options that change figures, for their file."""
    of_networks = ("tile", "blur", "clip_weights", "whole", "protect", "window_stride", "blending")
    names = ("protocol", *of_networks, "split", "padding", "skip_rows")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def run_evaluation(
    parser: argparse.ArgumentParser,
    label: str,
    evaluate: Callable[[argparse.Namespace, Methods], tuple[list[SceneResult], list[Summary]]],
) -> None:
    """Run a command whose figures are averages over scenes: evaluate, print, write.

    parser: has the command's own options; those of networks and protocols are added.
    label: begins an error's message.
    """
    add_network_options(parser)
    add_protocol_options(parser)
    args = parser.parse_args()
    try:
        perceptual = chosen_measures(args)
        methods = Methods(
            chosen_restorers(args),
            PROTOCOLS[args.protocol],
            perceptual,
            _report,
            getattr(args, "skip_rows", 0),
        )
        results, summaries = evaluate(args, methods)
        figures = {
            **chosen_settings(args),
            "scenes": [asdict(result) for result in results],
            "averages": [asdict(summary) for summary in summaries],
        }
        write_figures(args.json, figures)
    except (ValueError, OSError, LdpError) as error:
        sys.exit(f"{label}: {error}")
    print(formatted(summaries))


def _report(result: SceneResult) -> None:
    cells = "  ".join(f"{name} {s.psnr_db:.2f} {s.ssim:.3f}" for name, s in result.scores.items())
    print(f"{result.name}: {cells}", flush=True)


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, if there is a path to write them to."""
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def optional_cells(scores: PictureScores) -> str:
    """Format the measures of perceived quality, "-" for one that was not measured."""
    values = ((getattr(scores, name), _cell_width(name)) for name in NAMES)
    return "".join(f"{'-' if x is None else f'{x:.3f}':>{width}}" for x, width in values)


def optional_heads() -> str:
    """Format the heads of optional_cells."""
    return "".join(f"{name.upper().replace('_', ' '):>{_cell_width(name)}}" for name in NAMES)


def _cell_width(name: str) -> int:
    return max(8, len(name) + 2)
