"""Score networks on pairs rendered from photos, beside a filter that knows the true blur.

    python -m training.evaluation.synthetic PHOTOS --model tiny --model small

Every photo becomes a scene with a slanted background and something in front of it, seen by a
dual-pixel camera at three levels of blur (circle of confusion up to 3, 6 and 12 px in radius),
without noise and with that of ISO 3200. The seeds are fixed: the same photos give the same pairs.
Columns: the mean of the views, a Wiener filter (scikit-image) of that mean with the true kernel of
every place, and each network, its blur map estimated from the views as `dpbatch run` does.
At the end the law that what is in focus is left alone, on pairs whose views are the photo itself.
24 photos of 768x512 take about seven minutes with `tiny` on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from ldp.errors import LdpError
from ldp.srgb import decode_srgb
from ldp.types import FloatArray, ViewPair
from training.evaluation.metrics import psnr_db, ssim
from training.evaluation.protocols import Restore
from training.evaluation.scoring import (
    add_network_options,
    chosen_restorers,
    photo_count,
    write_figures,
)
from training.pictures import Float64Picture, encode_clipped
from training.simulator.optics import KernelShape, view_kernels
from training.simulator.render import RenderedPair, Surface, render
from training.simulator.scenes import read_photos

NOISES = ("none", "ISO 3200")
SEED = 20_240_617

ELECTRONS_AT_WHITE = 1_000
"""Of one photodiode at ISO 3200: a full-frame sensor holds about 70,000 electrons a pixel at ISO
100, a photodiode half of that, and every doubling of the ISO halves it."""
READ_NOISE_ELECTRONS = 2.5


@dataclass(frozen=True)
class Level:
    """One level of blur.

    radius_px: the largest circle of confusion. step_px, balances: for the Wiener filter, the step
    between its kernels' radii and its regularisation for each noise, both chosen for the highest
    PSNR on pairs of this very kind, which favours it.
    """

    radius_px: float
    step_px: float
    balances: tuple[float, float]


LEVELS = (
    Level(3.0, 0.25, (0.003, 0.01)),
    Level(6.0, 0.5, (0.05, 0.1)),
    Level(12.0, 1.0, (1.5, 1.5)),
)


@dataclass(frozen=True)
class KnownPair:
    """views: sRGB-encoded float32 in [0, 1], noise included. truth: (H, W, 3) sRGB-encoded."""

    views: ViewPair
    truth: Float64Picture
    coc_px: FloatArray
    shape: KernelShape

    @property
    def mean_view(self) -> Float64Picture:
        """The mean of the views: what an ordinary camera would have given."""
        return np.asarray((self.views.left.astype(np.float64) + self.views.right) / 2)


@dataclass(frozen=True)
class Row:
    """The averages of one method at one level of blur and noise."""

    method: str
    radius_px: float
    noise: str
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class InFocus:
    """Mean |output - mean view| of one network on photos that are in focus all over."""

    method: str
    noise: str
    mean_change: float


def sample_scene(
    photo: FloatArray, radius_px: float, rng: np.random.Generator
) -> tuple[RenderedPair, KernelShape]:
    """Render a photo as a slanted background, before it a blob of the same photo turned around.

    photo: (H, W, 3) linear light. radius_px: the largest radius of a circle of confusion.
    """
    height, width = photo.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope = np.cos(angle) * x + np.sin(angle) * y
    slope = (slope - slope.min()) / np.ptp(slope)
    near = rng.uniform(-0.2, 0.5) * radius_px
    background = np.asarray(-radius_px + slope * (near + radius_px), np.float32)
    bumps = cv2.resize(
        rng.normal(size=(4, 5)), (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC
    )
    mask = (bumps > np.quantile(bumps, 0.75)).astype(np.float32)
    alpha = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    front = np.full_like(alpha, rng.uniform(max(near, 0.3 * radius_px), radius_px))
    shape = KernelShape(ramp=float(rng.uniform(0.4, 1.6)), rim=float(rng.uniform(0.0, 1.5)))
    turned = np.ascontiguousarray(photo[::-1, ::-1])
    surfaces = [
        Surface(photo, np.ones_like(alpha), background),
        Surface(turned, alpha, front),
    ]
    return render(surfaces, shape), shape


def make_pair(photo: FloatArray, index: int, radius_px: float, noise: str) -> KnownPair:
    """Render the pair of a photo (linear light); index: its place in the folder, seeds the scene.

    The scene does not depend on the noise.
    """
    pair, shape = sample_scene(photo, radius_px, np.random.default_rng([SEED, index]))
    rng = np.random.default_rng([SEED, index, int(radius_px * 10)])
    left, right = (simulate_view(view, noise, rng) for view in (pair.left, pair.right))
    return KnownPair(ViewPair(left, right), _encoded(pair.sharp), pair.coc_px, shape)


def simulate_view(linear: FloatArray, noise: str, rng: np.random.Generator) -> FloatArray:
    """Return a view as a camera gives it: noise of its own photodiodes, clipped, sRGB-encoded."""
    if noise != "none":
        electrons = linear * ELECTRONS_AT_WHITE
        deviation = np.sqrt(np.maximum(electrons, 0) + READ_NOISE_ELECTRONS**2)
        noisy = electrons + deviation * rng.standard_normal(linear.shape, np.float32)
        linear = np.asarray(noisy / ELECTRONS_AT_WHITE, np.float32)
    return encode_clipped(linear)


def wiener(pair: KnownPair, balance: float, step_px: float) -> Float64Picture:
    """Filter the mean view by scikit-image's Wiener filter with the true kernel of every pixel.

    The filter takes one kernel for a whole picture: it is applied, in linear light, once for each
    of a row of radii, and the results are blended by the true circle of confusion.
    """
    from scipy.fft import next_fast_len
    from skimage.restoration import wiener as wiener_filter

    light = decode_srgb(np.ascontiguousarray(pair.mean_view, np.float32))
    radius = np.abs(pair.coc_px)
    margin = int(np.ceil(radius.max())) * 2 + 2
    # Sides without large prime factors, which the Fourier transforms inside are slow with.
    down, right = (next_fast_len(side + 2 * margin) - side - margin for side in light.shape[:2])
    padded = cv2.copyMakeBorder(light, margin, down, margin, right, cv2.BORDER_REFLECT_101)
    inside = (slice(margin, margin + light.shape[0]), slice(margin, margin + light.shape[1]))
    radii = np.arange(0, radius.max() + step_px, step_px)
    restored = np.zeros_like(light)
    for slice_radius in radii:
        share = np.maximum(1 - np.abs(radius - slice_radius) / step_px, 0)
        if not share.any():
            continue
        kernel = np.mean(view_kernels(float(slice_radius), pair.shape), 0)
        for channel in range(3):
            filtered = wiener_filter(  # type: ignore[no-untyped-call]
                padded[..., channel], kernel, balance, clip=False
            )
            restored[..., channel] += share * filtered[inside]
    # The truth is the scene as the lens shows it in focus, which is not without blur.
    in_focus_kernel = np.mean(view_kernels(0.0, pair.shape), 0)
    return _encoded(np.asarray(cv2.filter2D(restored, cv2.CV_32F, in_focus_kernel), np.float32))


def evaluate_synthetic(
    photos: Sequence[FloatArray], restorers: dict[str, Restore], levels: Sequence[Level]
) -> list[Row]:
    """Return the averages over photos (linear light) of every method, level of blur and noise."""
    rows = []
    for level in levels:
        for noise, balance in zip(NOISES, level.balances, strict=True):
            found: dict[str, list[tuple[float, float]]] = {}
            for index, photo in enumerate(photos):
                pair = make_pair(photo, index, level.radius_px, noise)
                known = wiener(pair, balance, level.step_px)
                pictures = {"input": pair.mean_view, "wiener": known}
                for name, restore in restorers.items():
                    pictures[name] = restore(pair.views) / 65535
                for name, picture in pictures.items():
                    score = psnr_db(picture, pair.truth), ssim(picture, pair.truth)
                    found.setdefault(name, []).append(score)
            for name, scores in found.items():
                mean_psnr, mean_ssim = np.mean(scores, 0)
                rows.append(Row(name, level.radius_px, noise, float(mean_psnr), float(mean_ssim)))
    return rows


def in_focus(photos: Sequence[FloatArray], restorers: dict[str, Restore]) -> list[InFocus]:
    """Return how much each network changes photos (linear light) that have no blur."""
    rows = []
    for name, restore in restorers.items():
        for noise in NOISES:
            changes = []
            for index, photo in enumerate(photos):
                rng = np.random.default_rng([SEED, index])
                left, right = (simulate_view(photo, noise, rng) for _ in range(2))
                mean_view = (left.astype(np.float64) + right) / 2
                changes.append(np.abs(restore(ViewPair(left, right)) / 65535 - mean_view).mean())
            rows.append(InFocus(name, noise, float(np.mean(changes))))
    return rows


def formatted(rows: Sequence[Row], changes: Sequence[InFocus]) -> str:
    """Format the table."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = [
        "PSNR in dB, SSIM",
        f"{'radius':>7} {'noise':<9}" + "".join(f"{m:>16}" for m in methods),
    ]
    for radius_px, noise in dict.fromkeys((row.radius_px, row.noise) for row in rows):
        level = [r for r in rows if (r.radius_px, r.noise) == (radius_px, noise)]
        cells = "".join(f"{row.psnr_db:9.2f} {row.ssim:6.3f}" for row in level)
        lines.append(f"{radius_px:5.0f}px {noise:<9}{cells}")
    if changes:
        lines.append("in focus all over: mean |output - mean of the views| in 1/255")
    for row in changes:
        levels = row.mean_change * 255
        verdict = "" if row.noise != "none" else ", under 1" if levels < 1 else ", NOT under 1"
        lines.append(f"  {row.method}, noise {row.noise}: {levels:.2f}{verdict}")
    return "\n".join(lines)


def linear_photos(folder: Path, count: int = 0) -> list[FloatArray]:
    """Read a folder's photos in linear light, the first `count` of them unless that is 0.

    Raises DataError for an unreadable one, and where there are none.
    """
    photos = read_photos(folder)
    return [
        decode_srgb(photo.astype(np.float32) / np.float32(255)) for photo in photos[: count or None]
    ]


def landscape_photos(folder: Path) -> list[FloatArray]:
    """Read a folder's photos as linear_photos does, and turn those in portrait format."""
    return [
        photo if photo.shape[0] <= photo.shape[1] else np.ascontiguousarray(np.rot90(photo))
        for photo in linear_photos(folder)
    ]


def _encoded(linear: FloatArray) -> Float64Picture:
    return encode_clipped(linear).astype(np.float64)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of sharp photos")
    parser.add_argument(
        "--count", type=photo_count, default=0, metavar="N", help="only the first N photos"
    )
    add_network_options(parser)
    args = parser.parse_args()
    started = time.monotonic()
    try:
        photos = linear_photos(args.photos, args.count)
        restorers = chosen_restorers(args)
        rows = evaluate_synthetic(photos, restorers, LEVELS)
        changes = in_focus(photos, restorers)
        figures = {"rows": [asdict(r) for r in rows], "in_focus": [asdict(c) for c in changes]}
        write_figures(args.json, figures)
    except (ValueError, OSError, LdpError) as error:
        sys.exit(f"evaluate_synthetic: {error}")
    print(formatted(rows, changes))
    print(f"{len(photos)} photos, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
