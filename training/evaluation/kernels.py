"""Measure a real camera's left and right blur kernels, and fit the simulator's kernels to them.

    python -m training.evaluation.kernels SHARP LEFT RIGHT --window 180,300,120 --window 200,500,100

SHARP is the same view in focus everywhere (a small aperture; --sharp-right averages its two views),
LEFT and RIGHT the views with blur; WINDOW is top,left,size of squares in px in which the blur is
uniform, by default the middle of the picture. In linear light and with low frequencies taken away,
the kernels are the least-squares solution, with a ridge term, of blurred = kernel * sharp. The
family of training.simulator.optics is fitted to them; then the sharp windows are blurred by the
fitted kernels, given as much noise as the fit had left over, and put through the same estimate:
where the two lines agree, the simulator can make what this camera does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ldp.srgb import decode_srgb
from ldp.types import FloatArray
from training.pictures import read_float64
from training.simulator.optics import KernelShape, view_kernels

Kernel = npt.NDArray[np.float64]
Window = tuple[int, int, int]
"""Top, left and size of a square in px."""

SIDE_PX = 21
RIDGE = 1e-3
HIGH_PASS_PX = 15.0


@dataclass(frozen=True)
class KernelEstimate:
    """The measured kernels of both views.

    left, right: (side, side), not normalised; what a point becomes, not turned around.

    r_squared: share of the blurred windows' high-passed variance that the kernels explain.
    residual: its standard deviation that is left over, linear light with white at 1.
    """

    left: Kernel
    right: Kernel
    r_squared_left: float
    r_squared_right: float
    residual: float


@dataclass(frozen=True)
class FittedKernel:
    """The nearest member of the simulator's family.

    radius_px: signed, near of focus positive. distance_px: x_left - x_right of the estimated
    kernels' centroids, which does not depend on the family.
    """

    radius_px: float
    shape: KernelShape
    distance_px: float

    @property
    def distance_share(self) -> float:
        """Centroid distance over radius."""
        return self.distance_px / self.radius_px


def estimate_kernels(
    sharp: FloatArray,
    left: FloatArray,
    right: FloatArray,
    windows: Sequence[Window],
    *,
    side_px: int = SIDE_PX,
    ridge: float = RIDGE,
) -> KernelEstimate:
    """Estimate both views' kernels from pictures (H, W, 3) in linear light.

    side_px: odd. ridge: times the mean of the normal equations' diagonal. Raises ValueError for a
    window that does not lie inside the picture with half a kernel around it.
    """
    count = side_px * side_px
    normal, energy, samples = np.zeros((count, count)), np.zeros(2), 0
    moments = np.zeros((count, 2))
    for window in windows:
        outer = _with_margin(window, sharp.shape, side_px // 2)
        planes = [_high_passed(picture[outer]) for picture in (sharp, left, right)]
        inner = slice(side_px // 2, -(side_px // 2))
        for channel in range(3):
            seen = np.lib.stride_tricks.sliding_window_view(
                planes[0][..., channel], (side_px, side_px)
            )
            design = seen.reshape(-1, count)
            wanted = np.stack([p[inner, inner, channel].ravel() for p in planes[1:]], 1)
            normal += design.T @ design
            moments += design.T @ wanted
            energy += (wanted**2).sum(0)
            samples += len(wanted)
    # Correlation solves for the kernel turned around.
    solved = np.linalg.solve(normal + np.eye(count) * ridge * normal.trace() / count, moments)
    left_over = energy - 2 * (solved * moments).sum(0) + (solved * (normal @ solved)).sum(0)
    left_kernel, right_kernel = (solved[::-1, view].reshape(side_px, side_px) for view in (0, 1))
    explained = 1 - left_over / energy
    residual = float(np.sqrt(left_over.mean() / samples))
    return KernelEstimate(
        left_kernel, right_kernel, float(explained[0]), float(explained[1]), residual
    )


def fit_family(estimate: KernelEstimate) -> FittedKernel:
    """Fit radius, ramp, rim, softness and a shift common to both views by least squares.

    The sharp picture need not lie exactly where the blurred one does, hence the shift.
    """
    from scipy.optimize import minimize

    wanted = estimate.left / estimate.left.sum(), estimate.right / estimate.right.sum()
    side = wanted[0].shape[0]
    x, y = (np.arange(side) - side // 2 for _ in range(2))
    mean = wanted[0] + wanted[1]
    mean = np.where(mean > 0.1 * mean.max(), mean, 0)
    mean = mean / mean.sum()
    centre_x, centre_y = float(mean.sum(0) @ x), float(mean.sum(1) @ y)
    spread = mean.sum(0) @ (x - centre_x) ** 2 + mean.sum(1) @ (y - centre_y) ** 2
    radius = float(np.sqrt(2 * spread))  # of a uniform disk with these second moments
    near = _distance_px(*wanted, (centre_y, centre_x), radius + 2) >= 0

    def misfit(given: npt.NDArray[np.float64]) -> float:
        radius, ramp, rim, softness, down, right = given
        if not (0.3 <= radius <= side / 2 and 0 <= ramp <= 6 and 0.2 <= softness <= 3):
            return 1.0
        if not -0.95 <= rim <= 8:
            return 1.0
        shape = KernelShape(ramp=ramp, rim=rim, softness_px=softness)
        kernels = view_kernels(radius if near else -radius, shape)
        placed = (_placed(kernel, side, down, right) for kernel in kernels)
        return float(sum(((a - b) ** 2).sum() for a, b in zip(placed, wanted, strict=True)))

    best = None
    for rim in (0.0, 1.5):
        start = np.array([radius / (1 + 0.1 * rim), 0.8, rim, 0.6, centre_y, centre_x])
        steps = np.vstack([start, start + np.diag([0.8, 0.6, 0.8, 0.3, 0.4, 0.4])])
        options = {"initial_simplex": steps, "xatol": 0.01, "fatol": 1e-7, "maxfev": 900}
        found = minimize(misfit, start, method="Nelder-Mead", options=options)
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    radius, ramp, rim, softness, down, right = (float(value) for value in best.x)
    shape = KernelShape(ramp=ramp, rim=rim, softness_px=softness)
    distance = _distance_px(*wanted, (down, right), radius + 2)
    return FittedKernel(radius if near else -radius, shape, distance)


def simulated_estimate(
    sharp: FloatArray,
    windows: Sequence[Window],
    fitted: FittedKernel,
    noise: float,
    side_px: int = SIDE_PX,
    ridge: float = RIDGE,
) -> KernelEstimate:
    """Repeat the estimate where the blur is known: `sharp` blurred by the fitted kernels.

    noise: standard deviation, linear light with white at 1.
    """
    rng = np.random.default_rng(0)
    views = [
        cv2.filter2D(sharp, cv2.CV_32F, np.ascontiguousarray(kernel[::-1, ::-1]))
        + np.float32(noise) * rng.standard_normal(sharp.shape, np.float32)
        for kernel in view_kernels(fitted.radius_px, fitted.shape)
    ]
    return estimate_kernels(sharp, views[0], views[1], windows, side_px=side_px, ridge=ridge)


def _with_margin(window: Window, shape: tuple[int, ...], margin: int) -> tuple[slice, slice]:
    top, left, size = window
    spans = [(top - margin, top + size + margin), (left - margin, left + size + margin)]
    if any(start < 0 or stop > limit for (start, stop), limit in zip(spans, shape, strict=False)):
        raise ValueError(
            f"window {top},{left},{size}: must lie in the {shape[1]}x{shape[0]} picture with "
            f"{margin} px around it"
        )
    return slice(*spans[0]), slice(*spans[1])


def _high_passed(picture: FloatArray) -> npt.NDArray[np.float64]:
    values = picture.astype(np.float64)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), HIGH_PASS_PX), np.float64)


def _placed(kernel: FloatArray, side: int, down: float, right: float) -> Kernel:
    """Place a kernel in a square of `side`, moved by a fraction of a pixel."""
    grown = np.zeros((side, side))
    reach = min(kernel.shape[0], side) // 2
    centre, own = side // 2, kernel.shape[0] // 2
    grown[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1] = kernel[
        own - reach : own + reach + 1, own - reach : own + reach + 1
    ]
    move = np.array([[1, 0, right], [0, 1, down]], np.float64)
    return np.asarray(cv2.warpAffine(grown, move, (side, side), flags=cv2.INTER_CUBIC))


def _distance_px(
    left: Kernel, right: Kernel, centre: tuple[float, float], reach_px: float
) -> float:
    """Return x_left - x_right of the centroids, over the pixels where light can fall."""
    y, x = np.indices(left.shape) - left.shape[0] // 2
    inside = np.hypot(y - centre[0], x - centre[1]) <= reach_px
    places = [float((k * x)[inside].sum() / k[inside].sum()) for k in (left, right)]
    return places[0] - places[1]


def formatted(lines: dict[str, tuple[KernelEstimate, FittedKernel]]) -> str:
    """Format a table with a line for each estimate."""
    text = [
        f"{'':<10}{'R2 left':>8}{'right':>7}{'radius':>8}{'ramp':>6}{'rim':>6}{'soft':>6}"
        f"{'distance':>10}{'/radius':>9}"
    ]
    for name, (estimate, fitted) in lines.items():
        shape = fitted.shape
        text.append(
            f"{name:<10}{estimate.r_squared_left:8.3f}{estimate.r_squared_right:7.3f}"
            f"{fitted.radius_px:+8.2f}{shape.ramp:6.2f}{shape.rim:6.2f}{shape.softness_px:6.2f}"
            f"{fitted.distance_px:+10.2f}{fitted.distance_share:9.2f}"
        )
    return "\n".join(text)


def kernel_sheet(estimates: Sequence[KernelEstimate], zoom: int = 12) -> npt.NDArray[np.uint8]:
    """Draw the kernels as a grey picture: left and right side by side, a row for each estimate."""
    rows = [np.hstack([e.left / e.left.max(), e.right / e.right.max()]) for e in estimates]
    levels = np.uint8(np.clip(np.vstack(rows), 0, 1) * 255)
    return np.asarray(np.kron(levels, np.ones((zoom, zoom), np.uint8)), np.uint8)


def _window(text: str) -> Window:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or int(parts[2]) < 32:
        raise argparse.ArgumentTypeError(f"{text!r}: expected top,left,size, size at least 32 px")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _linear(path: Path) -> FloatArray:
    return decode_srgb(np.ascontiguousarray(read_float64(path), np.float32))


def _middle(shape: tuple[int, ...]) -> Window:
    size = min(shape[:2]) // 2
    return (shape[0] - size) // 2, (shape[1] - size) // 2, size


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("sharp", "left", "right"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--sharp-right", type=Path, help="SHARP is a left view, this its right one")
    parser.add_argument("--window", type=_window, action="append", metavar="TOP,LEFT,SIZE")
    parser.add_argument("--side", type=int, default=SIDE_PX, help="of the kernels, odd, in px")
    parser.add_argument("--ridge", type=float, default=RIDGE)
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the kernels there")
    args = parser.parse_args()
    if args.side < 5 or args.side % 2 == 0:
        parser.error(f"--side {args.side}: expected an odd number, at least 5")
    try:
        sharp, left, right = (_linear(path) for path in (args.sharp, args.left, args.right))
        if args.sharp_right:
            sharp = (sharp + _linear(args.sharp_right)) / np.float32(2)
        if not sharp.shape == left.shape == right.shape:
            raise ValueError(f"{sharp.shape}, {left.shape}, {right.shape}: three different sizes")
        windows = args.window or [_middle(sharp.shape)]
        measured = estimate_kernels(
            sharp, left, right, windows, side_px=args.side, ridge=args.ridge
        )
        fitted = fit_family(measured)
        again = simulated_estimate(sharp, windows, fitted, measured.residual, args.side, args.ridge)
    except ValueError as error:
        sys.exit(f"estimate_kernels: {error}")
    print(formatted({"measured": (measured, fitted), "simulated": (again, fit_family(again))}))
    if args.picture and not cv2.imwrite(str(args.picture), kernel_sheet([measured, again])):
        sys.exit(f"estimate_kernels: {args.picture}: could not be written")


if __name__ == "__main__":
    main()
