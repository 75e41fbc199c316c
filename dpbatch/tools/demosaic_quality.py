"""Judge the demosaic against LibRaw's AHD on pictures whose colours are known.

    python -m dpbatch.tools.demosaic_quality PHOTOS

Every picture is brought to linear light, written as a Dual Pixel RAW file of the simulated sensor
without noise, read again and demosaiced in both ways. White balance, colour matrix and clipping are
the same for both; scores are taken of the sRGB-encoded results.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dpbatch.errors import DpbatchError
from dpbatch.raw.camera_space import CHANNELS
from dpbatch.raw.demosaic import demosaic
from dpbatch.raw.frames import RawPair
from dpbatch.raw.reader import composite_in_libraw, read_dual
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray
from training.errors import TrainingError
from training.evaluation.metrics import psnr_db
from training.pictures import PICTURE_SUFFIXES, as_float64, read_rgb
from training.simulator.sensor import Sensor, camera_from_srgb, write_dual_pixel_raw

BORDER_PX = 8
"""Pixels at the border that are not scored: each method continues the mosaic in its own way."""
_FULL_SIZE = (4480, 6720)
_SENSOR = Sensor(shading=0.0)
_BLOCK_PIXELS = 1 << 16
"""Pixels whose colours are converted at once, in place: a second picture would cost more time."""


@dataclass(frozen=True)
class Scores:
    """How near a demosaiced picture is to the true one, both sRGB-encoded.

    psnr_db: of red, green and blue. cpsnr_db: of all three together.
    fringe: the error of CIELAB's a and b that 5 % of the pixels exceed. Fringes and mazes are wrong
        hues at few pixels, so a mean over all would mostly tell of even areas; errors of lightness
        are left to the PSNR.
    """

    psnr_db: tuple[float, float, float]
    cpsnr_db: float
    fringe: float


@dataclass(frozen=True)
class Comparison:
    """The scores of one picture: of LibRaw's AHD and of dpbatch's own demosaic."""

    name: str
    ahd: Scores
    own: Scores


Method = Callable[[], FloatArray]
"""Develops a file's composite to (H, W, 3), linear sRGB."""


def compare(name: str, picture: FloatArray) -> Comparison:
    """Score both methods on a picture.

    picture: (H, W, 3) float32, sRGB-encoded, at least 64x64 px. What exceeds even rows and a
        multiple of four columns is cut off, and an upright picture is laid on its side.
    """
    if picture.shape[0] > picture.shape[1]:
        picture = picture.transpose(1, 0, 2)
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 4 * 4
    truth = np.ascontiguousarray(picture[:height, :width])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.cr2"
        light = decode_srgb(truth.copy())
        write_dual_pixel_raw(path, light, light, _SENSOR, seed=0, noise=False)
        with both_methods(path) as methods:
            ahd, own = (score(method(), truth) for method in methods)
    return Comparison(name, ahd, own)


def score(developed: FloatArray, truth: FloatArray) -> Scores:
    """Score a picture in linear light against the true, sRGB-encoded one, without its border."""
    inner = slice(BORDER_PX, -BORDER_PX)
    got = encode_srgb(np.ascontiguousarray(developed[inner, inner].clip(0, 1)))
    true = truth[inner, inner]
    red, green, blue = (
        psnr_db(got[..., c].astype(np.float64), true[..., c].astype(np.float64)) for c in range(3)
    )
    error = cv2.cvtColor(got, cv2.COLOR_RGB2LAB) - cv2.cvtColor(true, cv2.COLOR_RGB2LAB)
    return Scores(
        psnr_db=(red, green, blue),
        cpsnr_db=psnr_db(got.astype(np.float64), true.astype(np.float64)),
        fringe=float(np.percentile(np.hypot(error[..., 1], error[..., 2]), 95)),
    )


@contextmanager
def both_methods(path: Path) -> Iterator[tuple[Method, Method]]:
    """Yield functions that develop a file with LibRaw's AHD and with dpbatch's own demosaic."""
    pair = read_dual(path)
    signal = _signal(pair)
    with composite_in_libraw(path) as by_libraw:
        yield by_libraw, lambda: by_dpbatch(pair, signal)


def by_dpbatch(pair: RawPair, signal: FloatArray) -> FloatArray:
    """Develop the composite's signal with dpbatch's own demosaic and the simulated sensor's matrix.

    signal: above black, (H, W).
    """
    gains = pair.relative_gains / pair.white_dn
    mosaic = torch.from_numpy(signal).clone()
    for row, column in np.ndindex(2, 2):
        mosaic[row::2, column::2] *= float(gains[pair.cfa[row, column]])
    mosaic.clamp_(max=1.0)
    (a, b), (c, d) = CHANNELS[pair.cfa].tolist()
    colours = demosaic(mosaic, ((a, b), (c, d)))
    srgb_from_camera = torch.from_numpy(np.linalg.inv(camera_from_srgb()))
    pixels = colours.flatten(1)
    for start in range(0, pixels.shape[1], _BLOCK_PIXELS):
        block = pixels[:, start : start + _BLOCK_PIXELS]
        block.copy_(srgb_from_camera @ block)
    picture: FloatArray = colours.permute(1, 2, 0).numpy()
    return picture


def time_ratio(picture: FloatArray, rounds: int) -> tuple[float, float]:
    """Return the processor seconds of AHD and of the own demosaic for 30 MP on one thread.

    picture: enlarged to that size. Both are timed in turns, with white balance and colour matrix;
    the least of all rounds counts, which other work on the machine changes least.
    """
    big = cv2.resize(picture, _FULL_SIZE[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "full.cr2"
            light = decode_srgb(big)
            write_dual_pixel_raw(path, light, light, _SENSOR, seed=0)
            del light, big
            with both_methods(path) as (by_libraw, own):
                seconds = [(_seconds(by_libraw), _seconds(own)) for _ in range(rounds)]
    finally:
        torch.set_num_threads(threads)
    return min(ahd for ahd, _ in seconds), min(of_own for _, of_own in seconds)


def _signal(pair: RawPair) -> FloatArray:
    """Return the composite above black, (H, W) float32."""
    signal = pair.composite.astype(np.float32)
    for row, column in np.ndindex(2, 2):
        signal[row::2, column::2] -= np.float32(pair.composite_black[pair.cfa[row, column]])
    return signal


def _seconds(method: Method) -> float:
    start = time.process_time()
    method()
    return time.process_time() - start


def formatted(comparisons: Sequence[Comparison]) -> str:
    """Return a table with a line for each picture and the means of all."""
    head = f"{'':16}{'AHD: R':>8}{'G':>7}{'B':>7}{'all':>7}{'fringe':>8}"
    lines = [head + f"{'own: R':>9}{'G':>7}{'B':>7}{'all':>7}{'fringe':>8}"]
    for comparison in comparisons:
        lines.append(_line(comparison.name, _figures(comparison)))
    figures = np.array([_figures(comparison) for comparison in comparisons])
    lines.append(_line("mean", figures.mean(axis=0)))
    return "\n".join(lines)


def _figures(comparison: Comparison) -> npt.NDArray[np.float64]:
    ahd, own = comparison.ahd, comparison.own
    return np.array(
        [*ahd.psnr_db, ahd.cpsnr_db, ahd.fringe, *own.psnr_db, own.cpsnr_db, own.fringe]
    )


def _line(name: str, figures: npt.NDArray[np.float64]) -> str:
    widths = (8, 7, 7, 7, 8, 9, 7, 7, 7, 8)
    cells = (f"{value:{width}.2f}" for value, width in zip(figures, widths, strict=True))
    return f"{name[:15]:16}" + "".join(cells)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of sharp pictures")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of timing at 30 MP; 0 leaves it out (default 3)"
    )
    args = parser.parse_args()
    try:
        paths = sorted(p for p in args.photos.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not paths:
            sys.exit(f"demosaic_quality: {args.photos}: no pictures")
        pictures = {path: as_float64(read_rgb(path)).astype(np.float32) for path in paths}
        comparisons = [compare(path.name, picture) for path, picture in pictures.items()]
        sys.stdout.write(f"{formatted(comparisons)}\n")
        if args.rounds:
            ahd, own = time_ratio(pictures[paths[0]], args.rounds)
            ratio = f"AHD {ahd:.2f} s, own {own:.2f} s, ratio {own / ahd:.2f}"
            sys.stdout.write(f"30 MP, one thread, processor time: {ratio}\n")
    except (ValueError, OSError, DpbatchError, TrainingError) as error:
        sys.exit(f"demosaic_quality: {error}")


if __name__ == "__main__":
    main()
