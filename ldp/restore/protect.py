"""Keep what is in focus as it is, and hold the network back where noise is strong.

The result is untouched + weight * (restored - untouched): in focus the weight is 0 and the photo
stays as the camera took it, and nothing is computed there. Strong noise makes the network's change
smaller, and the network is given smoothed views, so that its change adds no grain; there the result
is the mean of the views, with its grain, and a share of that change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.restore.noise import SAMPLE_PX, sample_starts
from ldp.restore.photo_views import PhotoViews, mean_of, whole
from ldp.restore.tiling import Span, WeightCells, as_tensor, map_window
from ldp.types import BlurMap, Plane, ViewPair

# All in units of the sRGB-encoded picture, white at 1; measured with the simulated sensor from
# ISO 100 (0.004) to 25,600 (0.04 to 0.055), with independent noise on the photodiodes or on the
# frames.
SMOOTHED_FROM = 0.0375
"""Noise from which the network is given smoothed views; below, it is trained on the noise."""
WEAKER_FROM, NOTHING_AT = 0.0375, 0.0825
"""Noise from which less of the network's change is kept, and from which nothing is."""
RANGE_OF_NOISE = 2.7
_SMOOTHING_PX = 1.5
_SMOOTHING_REACH_PX = 2

IN_FOCUS_PX = 0.05
"""Disparity below which nothing is changed; in noise the map is less exact, so it is larger."""
IN_FOCUS_PX_OF_NOISE = 3.0
UNMEASURED_PX = 1.0
"""Added to it where the disparity is not measured but filled in from elsewhere, as in even areas.
"""
MEASURED_FROM = 0.006
"""Confidence from which on it counts as measured."""
OUT_OF_FOCUS_PX = 0.2
"""So much above it, the network's change is kept whole."""

_SAMPLES = 8


@dataclass(frozen=True)
class Protection:
    """What is done to keep a photo from getting worse.

    views: the photo's own. shown: what the network is given, smoothed where noise is strong.
    noise: standard deviation of a view's noise in the green channel, white at 1.
    """

    views: PhotoViews
    shown: PhotoViews
    noise: float

    @classmethod
    def of(cls, views: PhotoViews, device_type: str = "cpu") -> Protection:
        """Measure the noise of two views, and smooth them if it is strong.

        device_type: of the device that the views are on.
        """
        noise = noise_level(views, in_whole_rows=device_type != "cpu")
        shown = views if noise < SMOOTHED_FROM else SmoothedViews(views, noise)
        return cls(views, shown, noise)

    def kept(self, blur_map: BlurMap, *, everywhere: bool = False) -> Kept:
        """Return what becomes of the network's result.

        everywhere: do not go by the disparity. Scales that follow the radius leave what is in focus
            as it is, and know how far the blur of near objects reaches.
        """
        strength = noise_weight(self.noise)
        if strength == 0:
            return Kept(self.views, np.zeros((1, 1), np.float32))
        plane = np.ones((1, 1), np.float32)
        if blur_map.disparity_px is not None and not everywhere:
            magnitude_px = blur_map.magnitude_px
            if magnitude_px is None:
                magnitude_px = np.abs(blur_map.disparity_px)
            plane = focus_weight(magnitude_px, self.noise, blur_map.confidence)
        if self.shown is self.views:
            return Kept(self.views, plane, noise=self.noise)
        return Kept(self.views, plane, self.shown, strength, self.noise)


@dataclass(frozen=True)
class Kept:
    """Which share of the network's result is kept where.

    views: the photo's own.
    weight: (h, w) in [0, 1], of the network's change; it covers the whole photo, which may have
        more pixels.
    shown: what the network was given; None where it was given the photo's own.
    strength: a factor on its change.
    noise: standard deviation of a view's noise, white at 1; 0 where it is not known.
    """

    views: PhotoViews
    weight: Plane
    shown: PhotoViews | None = None
    strength: float = 1.0
    noise: float = 0.0
    _uploaded: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def wants(self, rows: Span, columns: Span) -> bool:
        """Whether anything of a tile is kept."""
        return self._cells.any(rows.as_slice, columns.as_slice)

    def share(self, rows: Span, columns: Span, restored: Tensor) -> Tensor:
        """Return what a tile adds to the result, (3, h, w).

        restored: the tile as the network gives it.
        """
        area = rows.as_slice, columns.as_slice
        if self.shown is not None:
            restored = (restored - mean_of(self.shown.pair(*area))) * self.strength
        if self._cells.all_1(*area):
            return restored
        return restored * self._window(*area, restored.device)

    def finished(self, rows: slice, columns: slice, total: Tensor | None) -> Tensor:
        """Return a part of the result, (3, h, w), from the sum of what all tiles add to it.

        total: None where no tile adds anything.
        """
        if total is None or not self._cells.any(rows, columns):
            return self.views.untouched(rows, columns)
        is_whole = self._cells.all_1(rows, columns)
        if is_whole and self.shown is None:
            return total
        weight = self._window(rows, columns, total.device)
        if self.shown is not None:
            total = total + weight * mean_of(self.views.pair(rows, columns))
        if is_whole:
            return total
        return total + (1 - weight) * self.views.untouched(rows, columns)

    @cached_property
    def _cells(self) -> WeightCells:
        return WeightCells(self.weight, self.views.size)

    def _window(self, rows: slice, columns: slice, device: torch.device) -> Tensor:
        size = (rows.stop - rows.start, columns.stop - columns.start)
        if device not in self._uploaded:
            self._uploaded[device] = as_tensor(self.weight).to(device)
        weight = self._uploaded[device]
        return map_window(weight, self.views.size, rows.start, columns.start, *size)


class SmoothedViews:
    """Views with less noise: a bilateral filter.

    C. Tomasi and R. Manduchi, "Bilateral Filtering for Gray and Color Images", ICCV 1998; colours
    are compared by the sum of the absolute differences of their channels.
    """

    def __init__(self, source: PhotoViews, noise: float) -> None:
        self._source = source
        self._range = RANGE_OF_NOISE * noise

    @property
    def size(self) -> tuple[int, int]:
        """See PhotoViews."""
        return self._source.size

    def pair(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        wider, offset = [], []
        for part, side in zip((rows, columns), self.size, strict=True):
            start = max(0, part.start - _SMOOTHING_REACH_PX)
            wider.append(slice(start, min(side, part.stop + _SMOOTHING_REACH_PX)))
            offset.append(slice(part.start - start, part.stop - start))
        both = self._source.pair(*wider)
        smooth = torch.cat([_bilateral(view, self._range) for view in (both[:3], both[3:])])
        return smooth[:, offset[0], offset[1]]

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""
        return self._source.untouched(rows, columns)

    def reduced(self, pixels: int) -> ViewPair:
        """See PhotoViews; averaging areas smooths enough where it is done."""
        height, width = self.size
        if pixels < height * width:
            return self._source.reduced(pixels)
        return whole(self)


def noise_level(views: PhotoViews, *, in_whole_rows: bool = False) -> float:
    """Return the standard deviation of a view's noise in the green channel, white at 1.

    Measured on the difference of the views, of which the scene is no part but for its shift, by the
    median of a second derivative along both axes (Immerkaer 1996). Sampled on a grid of windows.

    in_whole_rows: read the rows of windows whole. On a GPU a few large parts take less time than
        many small ones.
    """
    tops, lefts = (sample_starts(side, _SAMPLES) for side in views.size)
    height, width = views.size
    found = []
    for top in tops:
        rows = slice(top, min(top + SAMPLE_PX, height))
        line = views.pair(rows, slice(0, width)) if in_whole_rows else None
        for left in lefts:
            columns = slice(left, min(left + SAMPLE_PX, width))
            both = views.pair(rows, columns) if line is None else line[:, :, columns]
            found.append(_high_pass(both[1] - both[4]))
    deviation = float(torch.cat(found).median()) / 0.6745 / 6
    return deviation / float(np.sqrt(2))


def noise_weight(noise: float) -> float:
    """Return the share of the network's change that is kept in noise of a standard deviation."""
    excess = (noise - WEAKER_FROM) / (NOTHING_AT - WEAKER_FROM)
    return (1 - min(1.0, max(0.0, excess))) ** 2


def focus_weight(magnitude_px: Plane, noise: float, confidence: Plane | None = None) -> Plane:
    """Return the share of the network's change that is kept: 0 in focus, else 1.

    magnitude_px: of the disparity, at least 0.
    """
    above_px = magnitude_px - np.float32(IN_FOCUS_PX + IN_FOCUS_PX_OF_NOISE * noise)
    if confidence is not None:
        above_px -= UNMEASURED_PX * (1 - eased(confidence / MEASURED_FROM))
    return eased(above_px / OUT_OF_FOCUS_PX)


def eased(share: Plane) -> Plane:
    """Return a smooth step from 0 at 0 to 1 at 1."""
    inside = np.clip(share, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)


def _bilateral(view: Tensor, range_sigma: float) -> Tensor:
    """Smooth (3, h, w) over a disk of _SMOOTHING_REACH_PX."""
    reach = _SMOOTHING_REACH_PX
    height, width = view.shape[1:]
    padded = F.pad(view[None], (reach,) * 4, mode="replicate")[0]
    total, weights = view.clone(), torch.ones_like(view[0])
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            if not 0 < y * y + x * x <= reach * reach:
                continue
            other = padded[:, reach + y : reach + y + height, reach + x : reach + x + width]
            distance = (other - view).abs().sum(0) / range_sigma
            near = (y * y + x * x) / _SMOOTHING_PX**2
            weight = torch.exp(-0.5 * (distance * distance + near))
            total += weight * other
            weights += weight
    return total / weights


def _high_pass(plane: Tensor) -> Tensor:
    """Return absolute values of a second derivative along x and y, (n,)."""
    if min(plane.shape) < 3:
        return torch.zeros(1, device=plane.device)
    along_x = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
    return (along_x[:-2] - 2 * along_x[1:-1] + along_x[2:]).abs().flatten()
