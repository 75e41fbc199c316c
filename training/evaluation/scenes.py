"""Score networks, or pictures that are already restored, on real scenes with a true photo.

    python -m training.evaluation.scenes SCENES --model tiny --skip-rows 40
    dpbatch run SCENES --out RESTORED
    python -m training.evaluation.scenes SCENES RESTORED --beside dpdnet --skip-rows 40 --json F

SCENES holds NN_L.png, NN_R.png (the views), NN_gt.png (the true photo) and, where another method is
to stand beside, NN_NAME.png of it (--beside NAME). RESTORED holds NN.tif or NN.png, 8 or 16 bit;
--model restores the views as `dpbatch run --scale 1` does. The DPDD data set has
training.evaluation.dpdd.

Scores PSNR, PSNR after each channel's exposure is fitted, and after the picture is registered too
(sub-pixel shift and scale), SSIM, mean absolute error, RMSE (what papers call MSE_rel), and the
measures of --measure whose packages are installed. A scene of half a megapixel takes about 3 s with
`tiny` on one core.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ldp.errors import LdpError
from ldp.types import ViewPair
from training.errors import DataError
from training.evaluation.metrics import psnr_db
from training.evaluation.perceptual import Perceptual
from training.evaluation.protocols import (
    NOT_MEASURED,
    PROTOCOLS,
    PictureScores,
    Protocol,
    Restore,
    mean_scores,
    picture_scores,
)
from training.evaluation.registration import registered
from training.evaluation.scoring import (
    add_network_options,
    add_protocol_options,
    chosen_measures,
    chosen_restorers,
    chosen_settings,
    optional_cells,
    optional_heads,
    write_figures,
)
from training.pictures import Float64Picture, as_float64, read_float64, read_rgb

MEAN_VIEW = "mean"


@dataclass(frozen=True, kw_only=True)
class Scores(PictureScores):
    """PictureScores, and the PSNR of a picture that is registered to the true one.

    registered_psnr_db: registered by a sub-pixel shift and a scale before its exposure is fitted,
    without the border.
    """

    registered_psnr_db: float


Table = dict[str, dict[str, Scores]]
"""Scores by scene and column; the first column is the mean of the views."""


def real_scenes(folder: Path) -> list[tuple[str, Path, Path, Path]]:
    """Return name, left, right and true photo of every scene of a folder, sorted."""
    names = sorted(path.name.removesuffix("_L.png") for path in folder.glob("*_L.png"))
    return [
        (name, *(folder / f"{name}_{part}.png" for part in ("L", "R", "gt")))  # type: ignore[misc]
        for name in names
    ]


def scores(
    picture: Float64Picture,
    truth: Float64Picture,
    mean_view: Float64Picture,
    skip_rows: int = 0,
    protocol: Protocol = PROTOCOLS["restormer"],
    perceptual: Perceptual = NOT_MEASURED,
) -> Scores:
    """Score all rows but the first skip_rows."""
    picture, truth, mean_view = (part[skip_rows:] for part in (picture, truth, mean_view))
    found = picture_scores(picture, truth, mean_view, protocol, perceptual)
    seen, wanted = protocol.prepared(picture), protocol.prepared(truth)
    registered_psnr_db = psnr_db(*registered(seen, wanted))
    return Scores(**asdict(found), registered_psnr_db=registered_psnr_db)


def evaluate(
    scenes: Path,
    restored: Path | None = None,
    *,
    beside: tuple[str, ...] = (),
    skip_rows: int = 0,
    restorers: dict[str, Restore] | None = None,
    protocol: Protocol = PROTOCOLS["restormer"],
    perceptual: Perceptual = NOT_MEASURED,
) -> Table:
    """Score every scene of a folder.

    restored: a folder of restored pictures. beside: names of other methods' pictures in `scenes`.
    restorers: networks by name, each of which gets a column.

    Raises DataError for a missing picture or one of another size.
    """
    table: Table = {}
    for stem, left, right, true in real_scenes(scenes):
        stored = read_rgb(left), read_rgb(right)
        views = ViewPair(*stored)
        mean_view: Float64Picture = (as_float64(stored[0]) + as_float64(stored[1])) / 2
        pictures = {MEAN_VIEW: mean_view}
        if restored:
            pictures["restored"] = read_float64(_restored_file(restored, stem))
        for name, restore in (restorers or {}).items():
            pictures[name] = restore(views) / 65535
        for name in beside:
            pictures[name] = read_float64(scenes / f"{stem}_{name}.png")
        truth = read_float64(true)
        for name, picture in pictures.items():
            if picture.shape != truth.shape:
                raise DataError(
                    f"{stem}, {name}: {picture.shape}, expected {truth.shape} as {true.name}"
                )
        table[stem] = {
            name: scores(picture, truth, mean_view, skip_rows, protocol, perceptual)
            for name, picture in pictures.items()
        }
    if not table:
        raise DataError(f"{scenes}: no scenes; expected NN_L.png, NN_R.png and NN_gt.png")
    return table


def averages(table: Table) -> dict[str, Scores]:
    """Return the mean of every column over the scenes."""
    rows = list(table.values())
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def formatted(table: Table) -> str:
    """Format the scenes and their averages, and each column's smallest gain over the mean view."""
    average = averages(table)
    head = f"{'PSNR':>6} {'fitted':>6} {'SSIM':>6}"
    lines = [" " * 8 + "   ".join(f"{name:^{len(head)}}" for name in average)]
    lines.append(f"{'scene':<8}" + "   ".join(head for _ in average))
    for stem, row in [*table.items(), ("average", average)]:
        cells = (f"{s.psnr_db:6.2f} {s.fitted_psnr_db:6.2f} {s.ssim:6.3f}" for s in row.values())
        lines.append(f"{stem:<8}" + "   ".join(cells))
    columns = f"{'average':<16}{'MAE':>8}{'RMSE':>8}{'registered':>12}{optional_heads()}"
    lines += ["", f"{columns}  smallest gain  fitted"]
    for name, mean in average.items():
        smallest = [_smallest_gain(table, name, field) for field in ("psnr_db", "fitted_psnr_db")]
        gains = "" if name == MEAN_VIEW else f"  {smallest[0]:>13}  {smallest[1]}"
        figures = f"{mean.mae:8.4f}{mean.rmse:8.4f}{mean.registered_psnr_db:12.2f}"
        lines.append(f"{name:<16}{figures}{optional_cells(mean)}{gains}")
    return "\n".join(lines)


def _smallest_gain(table: Table, name: str, field: str) -> str:
    """Return the smallest gain over the mean view, with its scene."""
    gains = (
        (getattr(row[name], field) - getattr(row[MEAN_VIEW], field), stem)
        for stem, row in table.items()
    )
    gain, stem = min(gains)
    return f"{gain:+.2f} dB ({stem})"


def _restored_file(folder: Path, stem: str) -> Path:
    for suffix in (".tif", ".png"):
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise DataError(f"{folder}: neither {stem}.tif nor {stem}.png; run dpbatch first")


def _mean(found: list[Scores]) -> Scores:
    return Scores(
        **asdict(mean_scores(found)),
        registered_psnr_db=float(np.mean([s.registered_psnr_db for s in found])),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", type=Path)
    parser.add_argument("restored", type=Path, nargs="?")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME")
    parser.add_argument("--skip-rows", type=int, default=0, help="rows at the top left out")
    add_network_options(parser)
    add_protocol_options(parser)
    args = parser.parse_args()
    try:
        restorers = chosen_restorers(args)
        perceptual = chosen_measures(args)
        beside, protocol = tuple(args.beside), PROTOCOLS[args.protocol]
        table = evaluate(
            args.scenes,
            args.restored,
            beside=beside,
            skip_rows=args.skip_rows,
            restorers=restorers,
            protocol=protocol,
            perceptual=perceptual,
        )
        figures = {
            **chosen_settings(args),
            "scenes": {
                stem: {name: asdict(found) for name, found in row.items()}
                for stem, row in table.items()
            },
            "averages": {name: asdict(mean) for name, mean in averages(table).items()},
        }
        write_figures(args.json, figures)
    except (ValueError, OSError, LdpError) as error:
        sys.exit(f"evaluate: {error}")
    print(formatted(table))


if __name__ == "__main__":
    main()
