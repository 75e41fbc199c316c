"""Scores restored real scenes against their all-in-focus photos.

    dpbatch run SCENES --out RESTORED
    python -m training.evaluate SCENES RESTORED

SCENES holds NN_L.png, NN_R.png (the views), NN_gt.png (the true photo) and, where another method is
to stand beside, NN_NAME.png of it (--beside NAME). RESTORED holds NN.tif or NN.png, 8 or 16 bit.
Prints PSNR, exposure-fitted PSNR and SSIM of the views' mean, of the restored picture and of the
others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from training.metrics import Picture, exposure_fitted, psnr_db, ssim


class Scores(NamedTuple):
    """How close a picture is to the true one; fitted: after fitting each channel's exposure."""

    psnr_db: float
    fitted_psnr_db: float
    ssim: float


Table = dict[str, dict[str, Scores]]
"""Scores by scene and column; the columns are mean, restored, and other methods' names."""


def read_picture(path: Path) -> Picture:
    """(H, W, 3) float64 RGB in [0, 1] of an 8 or 16 bit file. Raises ValueError if it is none."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if picture is None or picture.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: missing, or not a readable picture of 8 or 16 bit")
    white = 255 if picture.dtype == np.uint8 else 65535
    return np.asarray(picture[..., ::-1] / white, np.float64)


def scores(picture: Picture, truth: Picture, skip_rows: int) -> Scores:
    """The scores of all rows but the first skip_rows, the picture clipped to [0, 1]."""
    found, wanted = np.clip(picture, 0, 1)[skip_rows:], truth[skip_rows:]
    fitted = exposure_fitted(found, wanted)
    return Scores(psnr_db(found, wanted), psnr_db(fitted, wanted), ssim(found, wanted))


def evaluate(
    scenes: Path, restored: Path, beside: tuple[str, ...] = (), skip_rows: int = 0
) -> Table:
    """Scores every scene of a folder. Raises ValueError for a missing or unfitting picture."""
    table: Table = {}
    for left in sorted(scenes.glob("*_L.png")):
        stem = left.name.removesuffix("_L.png")
        truth = read_picture(scenes / f"{stem}_gt.png")
        found = [p for s in (".tif", ".png") if (p := restored / f"{stem}{s}").is_file()]
        if not found:
            raise ValueError(f"{restored}: neither {stem}.tif nor {stem}.png; run dpbatch first")
        pictures = {
            "mean": (read_picture(left) + read_picture(scenes / f"{stem}_R.png")) / 2,
            "restored": read_picture(found[0]),
            **{name: read_picture(scenes / f"{stem}_{name}.png") for name in beside},
        }
        for name, picture in pictures.items():
            if picture.shape != truth.shape:
                raise ValueError(
                    f"{stem}, {name}: {picture.shape}, expected {truth.shape} as {stem}_gt.png"
                )
        table[stem] = {name: scores(p, truth, skip_rows) for name, p in pictures.items()}
    if not table:
        raise ValueError(f"{scenes}: no scenes; expected NN_L.png, NN_R.png and NN_gt.png")
    return table


def formatted(table: Table) -> str:
    """The table as text, with the averages and the smallest gain over the views' mean."""
    columns = list(next(iter(table.values())))
    head = f"{'PSNR':>6} {'fitted':>6} {'SSIM':>6}"
    lines = [" " * 8 + "   ".join(f"{name:^{len(head)}}" for name in columns)]
    lines.append(f"{'scene':<8}" + "   ".join(head for _ in columns))
    average = {c: Scores(*np.mean([row[c] for row in table.values()], 0)) for c in columns}
    for stem, row in [*table.items(), ("average", average)]:
        cells = (f"{s.psnr_db:6.2f} {s.fitted_psnr_db:6.2f} {s.ssim:6.3f}" for s in row.values())
        lines.append(f"{stem:<8}" + "   ".join(cells))
    gain, stem = min(
        (row["restored"].psnr_db - row["mean"].psnr_db, stem) for stem, row in table.items()
    )
    lines.append(f"smallest gain over the mean of the views: {gain:+.2f} dB ({stem})")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", type=Path)
    parser.add_argument("restored", type=Path)
    parser.add_argument("--beside", action="append", default=[], metavar="NAME")
    parser.add_argument("--skip-rows", type=int, default=0, help="rows at the top left out")
    args = parser.parse_args()
    try:
        table = evaluate(args.scenes, args.restored, tuple(args.beside), args.skip_rows)
    except ValueError as error:
        sys.exit(f"evaluate: {error}")
    print(formatted(table))


if __name__ == "__main__":
    main()
