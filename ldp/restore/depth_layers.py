"""Draw a sharp picture anew in layers of depth, each blurred by a disc of its own and moved.

A picture is divided into layers that overlap by halves, so that what recedes changes softly from
one to the next. They are drawn from the nearest to the farthest, each into what the nearer ones
leave uncovered: what is blurred and near lies over what is behind it, and what is blurred and far
ends at the outlines of what is before it. Behind something much nearer a layer goes on, with the
colours that it has beside it, as far as blur and movement may show it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ldp.restore.layer_plan import Layers
from ldp.types import FloatArray, Plane

Pixels = npt.NDArray[np.uint16]
"""(H, W, k)."""
Area = tuple[slice, slice]
"""Rows and columns."""

_GAP = 2.0
"""Things so many layers apart are not parts of one surface."""
_STEEP = 3.0
"""So many layers within a few px are a step, and not a slope."""
_LEVEL = 1.0
"""Beside a step, values so close to one of its sides belong to it."""
_TILE_PX = 1024
_ALIGNED_PX = 64
"""Tiles begin at multiples of this, so that colours are filled in alike in all of them."""
_SMOOTH = 0.5
_TEXTURED_PX = 3.0
_LEAST_WEIGHT = np.float32(1e-9)
_LEAST_COVER = 1e-3
_SUBSAMPLES = 8


@dataclass(frozen=True)
class Coding:
    """Between the numbers of a picture and its light, (h, w, k), both ways."""

    decode: Callable[[Pixels], FloatArray]
    encode: Callable[[FloatArray], Pixels]


def drawn(
    picture: Pixels,
    position: npt.NDArray[np.floating],
    layers: Layers,
    coding: Coding,
    *,
    outline_px: float = 1.0,
    tile_px: int = _TILE_PX,
) -> Pixels:
    """Return the picture drawn anew, (H, W, k) uint16.

    position: (H, W), see `Layers.position`. outline_px: the width of the slopes that outlines have
    there. tile_px: a multiple of 64; so much is drawn at once.
    """
    result = np.empty_like(picture)
    height, width = position.shape
    around_px = layers.reach_px + 4 * int(np.ceil(outline_px))
    pad_px = -(-around_px // _ALIGNED_PX) * _ALIGNED_PX
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            rows, columns = (
                _reflected(at, tile_px, pad_px, n) for at, n in ((top, height), (left, width))
            )
            area = np.ix_(rows, columns)
            place = result[top : top + tile_px, left : left + tile_px]
            inner = (slice(pad_px, pad_px + place.shape[0]), slice(pad_px, pad_px + place.shape[1]))
            position_here = stepped(np.asarray(position[area], np.float32), outline_px)
            first, last = int(np.floor(position_here.min())), int(np.ceil(position_here.max()))
            if first == last and layers.is_still(first):
                place[:] = picture[top : top + tile_px, left : left + tile_px]
                continue
            tile = _Tile(coding.decode(picture[area]), position_here, layers, outline_px, inner)
            place[:] = coding.encode(tile.drawn(first, last))
    return result


def _reflected(start: int, length: int, pad_px: int, size: int) -> npt.NDArray[np.intp]:
    """Return the places of a tile and of what lies around it, the frame continued by reflection."""
    stop = min(start + length, -(-size // _ALIGNED_PX) * _ALIGNED_PX)
    places = np.arange(start - pad_px, stop + pad_px) % (2 * size)
    return np.asarray(np.minimum(places, 2 * size - 1 - places), np.intp)


def stepped(position: Plane, outline_px: float) -> Plane:
    """Return positions whose steep slopes are steps, with a smooth contour at their middle."""
    side = 2 * int(np.ceil(outline_px)) + 1
    window = np.ones((side, side), np.uint8)
    for _ in range(2):
        high, low = cv2.dilate(position, window), cv2.erode(position, window)
        if not (high - low > _STEEP).any():
            return position
        smooth = cv2.GaussianBlur(position, (0, 0), outline_px * _SMOOTH)
        between = (high - low > _STEEP) & (high - smooth > _LEVEL) & (smooth - low > _LEVEL)
        nearest = np.where(high - smooth < smooth - low, high, low)
        position = np.asarray(np.where(between, nearest, position), np.float32)
    return position


@dataclass(frozen=True)
class _Tile:
    """A part of a picture with what lies around it.

    light: (h, w, k). position: (h, w). inner: what is drawn.
    """

    light: FloatArray
    position: Plane
    layers: Layers
    outline_px: float
    inner: Area

    def drawn(self, first: int, last: int) -> FloatArray:
        """Return the light of the inner part, drawn from the layers `first` to `last`."""
        light = np.zeros_like(self.light[self.inner])
        uncovered = np.ones(light.shape[:2], np.float32)
        for number in range(last, first - 1, -1):
            layer = self._layer(number, last)
            if layer is None:
                continue
            place, layer_light, cover = layer
            weight = np.minimum(cover, uncovered[place])
            light[place] += layer_light * (weight / np.maximum(cover, _LEAST_COVER))[..., None]
            uncovered[place] -= weight
            if float(uncovered.max()) < _LEAST_COVER:
                break
        covered = (1 - uncovered)[..., None]
        return np.where(
            covered > 0.01, light / np.maximum(covered, 0.01), self.light[self.inner]
        ).astype(np.float32)

    def _layer(self, number: int, last: int) -> tuple[Area, FloatArray, Plane] | None:
        """Return where a layer lies in the inner part, its light there times its cover, and that.

        last: the nearest layer of the tile.
        """
        own = np.clip(1 - np.abs(self.position - np.float32(number)), 0, 1)
        radius_px = float(self.layers.radii_px[number])
        shift = self.layers.shifts_px[number]
        behind_px = self._behind_px(number, last)
        area = _around(own, int(np.ceil(behind_px + radius_px + np.abs(shift).max())) + 2)
        place = None if area is None else _common(area, self.inner)
        if area is None or place is None:
            return None
        own, position = own[area], self.position[area]
        above = position - np.float32(number)
        goes_on = (above >= _GAP) & _widened(self._solid(above) & (own > 0), behind_px)
        goes_on &= ~_widened(above <= -_GAP, radius_px + 1)
        mask = np.maximum(own, goes_on)
        light = self._continued(self.light[area], own, above, radius_px)
        if radius_px < 1:
            mask = cv2.GaussianBlur(mask, (3, 3), 0.6)
        stack = np.dstack([light * mask[..., None], mask])
        if radius_px:
            stack = cv2.filter2D(stack, -1, disc(radius_px), borderType=cv2.BORDER_REPLICATE)
        if shift.any():
            stack = _moved(stack, shift)
        stack = np.asarray(stack[_within(place, area)], np.float32)
        return _within(place, self.inner), stack[..., :-1], np.clip(stack[..., -1], 0, 1)

    def _solid(self, above: Plane) -> npt.NDArray[np.bool_]:
        """Return where a layer is wider than the slopes of outlines, which may pass through it."""
        side = 2 * int(np.ceil(self.outline_px)) + 1
        surface = (np.abs(above) < _GAP).astype(np.uint8)
        return cv2.morphologyEx(surface, cv2.MORPH_OPEN, np.ones((side, side), np.uint8)) > 0

    def _behind_px(self, number: int, last: int) -> float:
        """Return how far a layer has to go on behind what is nearer."""
        first = number + int(_GAP)
        if first > last:
            return 0.0
        nearer = slice(first, last + 1)
        radius_px = float(self.layers.radii_px[nearer].max())
        moved = self.layers.shifts_px[nearer] - self.layers.shifts_px[number]
        return radius_px + float(self.layers.radii_px[number]) + float(np.abs(moved).max()) + 2

    def _continued(
        self, light: FloatArray, own: Plane, above: Plane, radius_px: float
    ) -> FloatArray:
        """Return the light of a layer, continued where something else is seen.

        In what is blurred, also where the edge of something else may be seen.
        """
        others = np.abs(above) >= _GAP
        if not others.any():
            return light
        beside = _widened(others, self.outline_px)
        replaced = others
        if radius_px >= 1:
            replaced = beside
        elif self.layers.radii_px.any():
            replaced = others | _widened(above >= _GAP, self.outline_px)
        weight = np.maximum((~beside).astype(np.float32), np.float32(_LEAST_COVER) * own)
        filled = _filled(light * weight[..., None], weight)
        if radius_px < _TEXTURED_PX:
            filled = _mirrored(light, beside, filled)
        return np.asarray(np.where(replaced[..., None], filled, light), np.float32)


def _mirrored(light: FloatArray, hidden: npt.NDArray[np.bool_], other: FloatArray) -> FloatArray:
    """Return light (h, w, k) with what is hidden mirrored at its outlines; `other` elsewhere."""
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    height, width = hidden.shape
    rows, columns = np.nonzero(hidden)
    nearest = np.zeros(int(labels.max()) + 1, np.intp)
    seen = np.flatnonzero(~hidden)
    nearest[labels.ravel()[seen]] = seen
    at = nearest[labels[rows, columns]]
    row, column = 2 * (at // width) - rows, 2 * (at % width) - columns
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    rows, columns, row, column = (each[inside] for each in (rows, columns, row, column))
    inside = ~hidden[row, column]
    rows, columns, row, column = (each[inside] for each in (rows, columns, row, column))
    result = other.copy()
    result[rows, columns] = light[row, column]
    return result


def disc(radius_px: float) -> Plane:
    """Return an even disc, (n, n), n odd, sum 1; its rim covers pixels in part."""
    reach = int(np.ceil(radius_px + 0.5))
    fine = (np.arange(_SUBSAMPLES * (2 * reach + 1), dtype=np.float32) + 0.5) / _SUBSAMPLES
    fine -= reach + 0.5
    inside = np.hypot(fine[:, None], fine[None]) <= radius_px
    side = 2 * reach + 1
    kernel = inside.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).mean((1, 3))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _filled(light: FloatArray, weight: Plane) -> FloatArray:
    """Return light (h, w, k), times its weight in [0, 1], filled in from around where that is low.

    By averages over more and more pixels (Gortler et al., "The Lumigraph", 1996).
    """
    if min(weight.shape) < 2:
        return np.asarray(light / np.maximum(weight, _LEAST_WEIGHT)[..., None], np.float32)
    height, width = weight.shape
    half = (max(1, width // 2), max(1, height // 2))
    small_weight = np.asarray(cv2.resize(weight, half, interpolation=cv2.INTER_AREA), np.float32)
    small = cv2.resize(light, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], -1)
    # Four times: where a quarter is known it is enough, or what is far away would show.
    denser = np.minimum(1, 4 * small_weight)
    factor = denser / np.maximum(small_weight, _LEAST_WEIGHT)
    known = np.asarray(small * factor[..., None], np.float32)
    around = cv2.resize(_filled(known, denser), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(light + (1 - weight)[..., None] * around.reshape(light.shape), np.float32)


def _widened(mask: npt.NDArray[np.bool_], by_px: float) -> npt.NDArray[np.bool_]:
    """Return a mask (h, w) that takes in what lies within so many px of it."""
    side = 2 * int(np.ceil(by_px)) + 1
    if side == 1:
        return mask
    share = cv2.boxFilter(
        mask.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_REPLICATE
    )
    return share > 0.5 / side**2


def _around(own: Plane, margin_px: int) -> Area | None:
    """Return the area where a layer is and may be seen, aligned; None where it is nowhere."""
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(own.any(axis))
        if not len(places):
            return None
        start = (int(places[0]) - margin_px) // _ALIGNED_PX * _ALIGNED_PX
        stop = -(-(int(places[-1]) + 1 + margin_px) // _ALIGNED_PX) * _ALIGNED_PX
        spans.append(slice(max(0, start), min(stop, own.shape[1 - axis])))
    return spans[0], spans[1]


def _within(place: Area, area: Area) -> Area:
    """Return a place of the tile in the coordinates of an area."""
    rows, columns = (
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(place, area, strict=True)
    )
    return rows, columns


def _common(a: Area, b: Area) -> Area | None:
    spans = [slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a, b, strict=True)]
    if any(span.start >= span.stop for span in spans):
        return None
    return spans[0], spans[1]


def _moved(stack: FloatArray, shift: FloatArray) -> FloatArray:
    """Return planes moved to the right and down, between pixels by cubic interpolation."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    size = (stack.shape[1], stack.shape[0])
    moved = cv2.warpAffine(
        stack, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.float32)
