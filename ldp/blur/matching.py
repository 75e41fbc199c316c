"""Match the two views of a dual-pixel photo along x.

The views of one detail differ by a small shift, but also in gain, in shading and in the shape of
the blur (mirrored kernels), so locally normalised pictures are compared, over windows at several
scales: fine texture where there is some, broad shapes where everything is blurred. Both views are
shifted by half the disparity, so that the result is registered to their mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import Picture, Plane, as_float

_PREFILTER_SIGMA_PX = 0.7
# Weights of the three channels: green is the least noisy.
_LIGHTNESS = np.array([0.3, 0.5, 0.2], np.float32)
_NORMALISE_SIGMA_PX = 6.0
_WINDOW_SIGMA_PX = 2.5
_SCALES = 4
_SMALLEST_SIDE_PX = 4
_EDGE_NORMALISE_SIGMA_PX = 3.0
_EDGE_WINDOW_SIGMA_PX = 1.5
_EDGE_SCALES = 3
# Contrast below this many standard deviations of the noise has little weight. The floor is about
# half a step of an 8-bit picture, whose noise may be too small to be measured.
_NOISE_MARGIN = 3.0
_NOISE_FLOOR = 0.002
_TAPS = 6
# Differences of costs below this are rounding errors.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Match:
    """A matching's result; planes of the size of the views.

    disparity_px: x_left - x_right, in pixels of those views.
    curvature: second derivative of the matching cost at its minimum, per px^2, 0 and more: how
        well the texture determines the disparity.
    cost: at the minimum, 0 and more: how much the views still differ there.
    inconsistency_px: the larger difference from the disparities matched from the left view's pixel
        and from the right one's; large in occlusions and false matches.
    """

    disparity_px: Plane
    curvature: Plane
    cost: Plane
    inconsistency_px: Plane


def lightness(view: Picture) -> Plane:
    """Return the lightness that is matched, (h, w) float32 with white at 1, of an RGB view."""
    return np.asarray(as_float(view) @ _LIGHTNESS, np.float32)


def search(left: Plane, right: Plane, reach_px: float, step_px: float = 0.5) -> Match:
    """Return the disparity of least cost within +-reach_px, refined by a parabola.

    left, right: (h, w) float32 lightness in about [0, 1]; gain, offset and slow shading may differ.
    step_px: between two candidates.
    """
    steps = max(1, int(np.ceil(reach_px / step_px)))
    candidates_px = np.arange(-steps, steps + 1) * step_px
    scales = _normalised_scales(left, right)
    candidates = _LeastCostSearch(left.shape, step_px)
    for candidate_px in candidates_px:
        candidates.add(float(candidate_px), _cost(scales, float(candidate_px), left.shape))
    return candidates.result()


def edge_costs(
    left: Plane, right: Plane, disparities_px: Sequence[float] | npt.NDArray[np.float64]
) -> Iterator[Plane]:
    """Yield for each disparity how much the changes along x of two views differ, (h, w) from 0.

    Changes are compared and not lightness: a strong edge does not tell on its surroundings beyond
    its blur and the windows, which are small, so that the sums over parts of a picture are free to
    follow its outlines.

    left, right: see `search`.
    """
    scales = []
    size, fine_width = left.shape[:2], left.shape[1]
    left, right = blur(left, _PREFILTER_SIGMA_PX), blur(right, _PREFILTER_SIGMA_PX)
    for _ in range(_EDGE_SCALES):
        changes = _normalised_change(left), _normalised_change(right)
        scales.append(_Scale(*changes, left.shape[1] / fine_width))
        half = ((left.shape[1] + 1) // 2, (left.shape[0] + 1) // 2)
        if min(half) < _SMALLEST_SIDE_PX:
            break
        left, right = _shrunk(left, half), _shrunk(right, half)
    for disparity_px in disparities_px:
        yield _cost(scales, float(disparity_px), size, _EDGE_WINDOW_SIGMA_PX)


def differences(
    left: Plane, right: Plane, disparities_px: Sequence[float] | npt.NDArray[np.float64]
) -> Iterator[Plane]:
    """Yield for each disparity the locally normalised left view less the right one, (h, w), where
    both are shifted by half of it.

    left, right: see `search`.
    """
    left, right = (_normalised(blur(view, _PREFILTER_SIGMA_PX)) for view in (left, right))
    for disparity_px in disparities_px:
        half_px = 0.5 * float(disparity_px)
        yield _shifted(left, half_px) - _shifted(right, -half_px)


def warp(view: Plane, shift_px: Plane) -> Plane:
    """Sample a picture at x + shift_px (Lanczos-4); same shape, float32, the border repeated.

    shift_px: (h, w); exact at multiples of 1/32 px only (OpenCV's table).
    """
    height, width = shift_px.shape
    x = np.arange(width, dtype=np.float32) + shift_px
    y = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
    warped = cv2.remap(view, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32).reshape(view.shape)


def noise_sigma(picture: Plane) -> float:
    """Estimate the standard deviation of the noise of an (h, w) picture.

    The Laplacian difference mask of Immerkaer, "Fast Noise Variance Estimation", CVIU 1996, with
    the lower quartile in the place of the mean, so that texture is not taken for noise.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(picture, -1, mask, borderType=cv2.BORDER_REFLECT_101))
    lower_quartile_of_normal = 0.3186
    return float(np.percentile(response, 25)) / (6.0 * lower_quartile_of_normal)


def blur(picture: Plane, sigma_px: float) -> Plane:
    """Blur a float32 picture by a Gaussian, reflected at the border."""
    blurred = cv2.GaussianBlur(picture, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


@dataclass(frozen=True)
class _Scale:
    """Both views, locally normalised, at one scale."""

    left: Plane
    right: Plane
    per_fine_px: float
    """Pixels of this scale in one pixel of the finest, along x."""


def _normalised_scales(left: Plane, right: Plane) -> list[_Scale]:
    left, right = blur(left, _PREFILTER_SIGMA_PX), blur(right, _PREFILTER_SIGMA_PX)
    fine_width = left.shape[1]
    scales: list[_Scale] = []
    while True:
        scales.append(_Scale(_normalised(left), _normalised(right), left.shape[1] / fine_width))
        size = ((left.shape[1] + 1) // 2, (left.shape[0] + 1) // 2)
        if len(scales) == _SCALES or min(size) < _SMALLEST_SIDE_PX:
            return scales
        left, right = _shrunk(left, size), _shrunk(right, size)


def _shrunk(picture: Plane, size: tuple[int, int]) -> Plane:
    # Sizes round up and the frame stays the same: shrinking commutes with mirroring.
    shrunk = cv2.resize(blur(picture, 1.0), size, interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32)


def _normalised(picture: Plane) -> Plane:
    """Normalise to local mean 0 and local standard deviation 1, less where there is only noise."""
    centred = picture - blur(picture, _NORMALISE_SIGMA_PX)
    variance = blur(centred * centred, _NORMALISE_SIGMA_PX)
    floor = _NOISE_MARGIN * noise_sigma(picture) + _NOISE_FLOOR
    normalised: Plane = centred / np.sqrt(variance + np.float32(floor * floor))
    return normalised


def _normalised_change(picture: Plane) -> Plane:
    """Normalise the change along x to a local deviation of 1, less where there is only noise."""
    central = np.array([[-0.5, 0, 0.5]], np.float32)
    change = cv2.filter2D(picture, -1, central, borderType=cv2.BORDER_REFLECT)
    variance = blur(np.square(change), _EDGE_NORMALISE_SIGMA_PX)
    # White noise has this share of its deviation left in such a difference.
    floor = 0.7 * (_NOISE_MARGIN * noise_sigma(picture) + _NOISE_FLOOR)
    return np.asarray(change / np.sqrt(variance + np.float32(floor * floor)), np.float32)


def _cost(
    scales: list[_Scale],
    disparity_px: float,
    shape: tuple[int, ...],
    window_sigma_px: float = _WINDOW_SIGMA_PX,
) -> Plane:
    """Return the difference of the views at one disparity, summed over the scales."""
    total = np.zeros(shape, np.float32)
    for scale in scales:
        half = 0.5 * disparity_px * scale.per_fine_px
        difference = _shifted(scale.left, half) - _shifted(scale.right, -half)
        cost = blur(difference * difference, window_sigma_px)
        total += cv2.resize(cost, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return total


def _shifted(picture: Plane, shift_px: float) -> Plane:
    """Sample the picture at x + shift_px (Lanczos-3), the border repeated."""
    whole = int(np.floor(shift_px))
    part = shift_px - whole
    pad = abs(whole) + _TAPS
    padded = cv2.copyMakeBorder(picture, 0, 0, pad, pad, cv2.BORDER_REPLICATE)
    if part > 0:
        distance = np.arange(-2, 4) - part
        taps = np.sinc(distance) * np.sinc(distance / 3)
        kernel = (taps / taps.sum()).astype(np.float32)[None]
        padded = cv2.filter2D(padded, -1, kernel, anchor=(2, 0))
    return np.asarray(padded, np.float32)[:, pad + whole : pad + whole + picture.shape[1]]


class _LeastCostSearch:
    """Track the least cost and its two neighbours over candidates in rising order.

    The memory does not depend on the number of candidates.
    """

    def __init__(self, shape: tuple[int, ...], step_px: float) -> None:
        self._step_px = step_px
        self._best_px = np.zeros(shape, np.float32)
        self._cost = np.full(shape, np.inf, np.float32)
        self._before = np.full(shape, np.inf, np.float32)
        self._after = np.full(shape, np.inf, np.float32)
        self._previous = self._before
        self._new = np.zeros(shape, bool)
        # The same search from the pixels of each view.
        self._from_left = _LeastCost(shape)
        self._from_right = _LeastCost(shape)

    def add(self, candidate_px: float, cost: Plane) -> None:
        np.copyto(self._after, cost, where=self._new)
        self._new = cost < self._cost
        np.copyto(self._best_px, np.float32(candidate_px), where=self._new)
        np.copyto(self._cost, cost, where=self._new)
        np.copyto(self._before, self._previous, where=self._new)
        np.copyto(self._after, np.float32(np.inf), where=self._new)
        self._previous = cost
        half = round(0.5 * candidate_px)
        self._from_left.add(candidate_px, _moved(cost, -half))
        self._from_right.add(candidate_px, _moved(cost, half))

    def result(self) -> Match:
        inner = np.isfinite(self._before) & np.isfinite(self._after)
        before = np.where(inner, self._before, self._cost)
        after = np.where(inner, self._after, self._cost)
        curvature = before + after - 2 * self._cost
        slope = before - after
        offset = np.divide(
            slope, 2 * curvature, out=np.zeros_like(slope), where=curvature > _ROUNDING
        ).clip(-0.5, 0.5)
        half = np.rint(0.5 * self._best_px).astype(np.intp)
        inconsistency = np.maximum(
            np.abs(_read(self._from_left.best_px, half) - self._best_px),
            np.abs(_read(self._from_right.best_px, -half) - self._best_px),
        )
        curvature[curvature < _ROUNDING] = 0.0
        return Match(
            disparity_px=self._best_px + np.float32(self._step_px) * offset,
            curvature=curvature / np.float32(self._step_px**2),
            cost=self._cost,
            inconsistency_px=inconsistency,
        )


class _LeastCost:
    """The candidate of least cost so far."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.best_px = np.zeros(shape, np.float32)
        self._cost = np.full(shape, np.inf, np.float32)

    def add(self, candidate_px: float, cost: Plane) -> None:
        better = cost < self._cost
        np.copyto(self.best_px, np.float32(candidate_px), where=better)
        np.copyto(self._cost, cost, where=better)


def _moved(plane: Plane, shift_px: int) -> Plane:
    """Sample the plane at x + shift_px, whole pixels, the border repeated."""
    if shift_px == 0:
        return plane
    columns = np.clip(np.arange(plane.shape[1]) + shift_px, 0, plane.shape[1] - 1)
    return plane[:, columns]


def _read(plane: Plane, shift_px: npt.NDArray[np.intp]) -> Plane:
    """Sample the plane at x + shift_px, (h, w) whole pixels, the border repeated."""
    columns = np.clip(np.arange(plane.shape[1]) + shift_px, 0, plane.shape[1] - 1)
    return np.take_along_axis(plane, columns, axis=1)
