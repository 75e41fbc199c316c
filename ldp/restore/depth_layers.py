"""Draw a sharp picture anew in layers of depth, each blurred by a disc of its own and moved.

A picture is divided into layers that overlap by halves, so that what recedes changes softly from
one to the next. They are drawn from the nearest to the farthest, each into what the nearer ones
leave uncovered: what is blurred and near lies over what is behind it, and what is blurred and far
ends at the outlines of what is before it. Behind something much nearer a layer goes on, with the
colours that it has beside it, as far as blur and movement may show it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ldp.restore.hidden import filled_in, widened
from ldp.restore.layer_plan import Layers
from ldp.types import FloatArray, Plane

Pixels = npt.NDArray[np.uint16]
"""(H, W, k)."""
Area = tuple[slice, slice]
"""Rows and columns."""

_REDUCED_FROM_PX = 16.0
"""A disc of this radius and more is drawn in a picture of half the size, and so on."""
_LARGEST_REDUCTION = 8
_MARGIN_PX = 8
"""So much around a tile is drawn and thrown away, since its border is not enlarged rightly."""
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
"""Contours of steps are smoothed by this share of a slope's width."""
_SOFT_EDGE_PX = 0.6
"""Edges of sharp layers are softened by this, so that they have no stairs."""
_ENOUGH_COVER = 0.01
"""Where all layers together cover less, the picture stays as it is."""
_LEAST_COVER = 1e-3
_SUBSAMPLES = 8
"""Samples a pixel and side, by which the rim of a disc is drawn."""


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

    position: (H, W), see `Layers.position`. outline_px: half the width of the slopes that outlines
        have there. tile_px: a multiple of 64; so much is drawn at once.
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
            border_px = pad_px - _MARGIN_PX
            inner = _inside(len(rows), border_px), _inside(len(columns), border_px)
            position_here = stepped(np.asarray(position[area], np.float32), outline_px)
            first, last = int(np.floor(position_here.min())), int(np.ceil(position_here.max()))
            if first == last and layers.is_still(first):
                place[:] = picture[top : top + tile_px, left : left + tile_px]
                continue
            tile = _Tile(coding.decode(picture[area]), position_here, layers, outline_px, inner)
            light = _drawn_tile(tile, first, last)[_MARGIN_PX:, _MARGIN_PX:]
            place[:] = coding.encode(light[: place.shape[0], : place.shape[1]])
    return result


def _inside(length: int, border_px: int) -> slice:
    return slice(border_px, length - border_px)


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


def _drawn_tile(tile: _Tile, first: int, last: int) -> FloatArray:
    """Return the light of a tile's inner part, drawn from the layers `first` to `last`.

    Strong blur is drawn in smaller pictures.
    """
    reduced = {1: tile}
    light = np.zeros_like(tile.light[tile.inner])
    uncovered = np.ones(light.shape[:2], np.float32)
    for number in range(last, first - 1, -1):
        factor = _reduction(float(tile.layers.radii_px[number]))
        if factor not in reduced:
            reduced[factor] = tile.reduced(factor)
        small = reduced[factor]
        found = small.places(number, last)
        if found is None:
            continue
        area, place = found
        large = _scaled(_within(place, small.inner), factor)
        if float(uncovered[large].max()) < _LEAST_COVER:
            continue
        layer = small.layer(number, last, area)[_within(place, area)]
        if factor > 1:
            size = layer.shape[1] * factor, layer.shape[0] * factor
            layer = np.asarray(cv2.resize(layer, size), np.float32)
        cover = np.clip(layer[..., -1], 0, 1)
        weight = np.minimum(cover, uncovered[large])
        light[large] += layer[..., :-1] * (weight / np.maximum(cover, _LEAST_COVER))[..., None]
        uncovered[large] -= weight
        if float(uncovered.max()) < _LEAST_COVER:
            break
    covered = (1 - uncovered)[..., None]
    drawn_light = light / np.maximum(covered, _ENOUGH_COVER)
    return np.where(covered > _ENOUGH_COVER, drawn_light, tile.light[tile.inner])


def _reduction(radius_px: float) -> int:
    """Return the factor by which a picture is scaled down before so strong a blur."""
    factor = 1
    while radius_px / factor >= _REDUCED_FROM_PX and factor < _LARGEST_REDUCTION:
        factor *= 2
    return factor


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

    def reduced(self, factor: int) -> _Tile:
        """Return the tile scaled down by a factor, of which its sides are multiples."""
        height, width = self.position.shape
        size = width // factor, height // factor
        light = cv2.resize(self.light, size, interpolation=cv2.INTER_AREA)
        position = cv2.resize(self.position, size, interpolation=cv2.INTER_NEAREST)
        rows, columns = self.inner
        return _Tile(
            np.asarray(light.reshape(size[1], size[0], -1), np.float32),
            np.asarray(position, np.float32),
            replace(
                self.layers,
                radii_px=self.layers.radii_px / np.float32(factor),
                shifts_px=self.layers.shifts_px / np.float32(factor),
            ),
            self.outline_px / factor,
            (
                slice(rows.start // factor, rows.stop // factor),
                slice(columns.start // factor, columns.stop // factor),
            ),
        )

    def places(self, number: int, last: int) -> tuple[Area, Area] | None:
        """Return the area that a layer takes, and what of the inner part may show it; or None.

        last: the nearest layer of the tile.
        """
        reach_px = self._behind_px(number, last) + float(self.layers.radii_px[number])
        shift_px = float(np.abs(self.layers.shifts_px[number]).max())
        area = _around(self._own(number), int(np.ceil(reach_px + shift_px)) + 2)
        place = None if area is None else _common(area, self.inner)
        return None if area is None or place is None else (area, place)

    def _own(self, number: int) -> Plane:
        """Return the share that each pixel has in a layer."""
        return np.asarray(np.clip(1 - np.abs(self.position - np.float32(number)), 0, 1), np.float32)

    def layer(self, number: int, last: int, area: Area) -> FloatArray:
        """Return a layer in an area, (h, w, k + 1): its light times its cover, and its cover."""
        radius_px, shift = float(self.layers.radii_px[number]), self.layers.shifts_px[number]
        own = self._own(number)[area]
        above = self.position[area] - np.float32(number)
        goes_on = widened(self._solid(above) & (own > 0), self._behind_px(number, last))
        # Not as far as its own blur would bring it out again beside what is farther.
        goes_on &= (above >= _GAP) & ~widened(above <= -_GAP, radius_px + 1)
        cover = np.maximum(own, goes_on)
        light = self._continued(self.light[area], own, above, radius_px)
        if radius_px < 1:
            cover = cv2.GaussianBlur(cover, (3, 3), _SOFT_EDGE_PX)
            if shift.any():
                # Apart: cubic interpolation of a product overshoots at the edges of the cover.
                light = _moved(light, shift, cv2.INTER_CUBIC)
                cover = _moved(np.asarray(cover, np.float32), shift)
        stack = np.dstack([light * cover[..., None], cover])
        if radius_px:
            stack = cv2.filter2D(stack, -1, disc(radius_px), borderType=cv2.BORDER_REPLICATE)
        return _moved(stack, shift) if shift.any() and radius_px >= 1 else stack

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
        """Return the light of a layer, continued where something else is seen or may be seen.

        Beside what is farther a sharp layer keeps its own.
        """
        others = np.abs(above) >= _GAP
        if not others.any():
            return light
        beside = widened(others, self.outline_px)
        replaced = beside
        if radius_px < 1:
            replaced = others | widened(above >= _GAP, self.outline_px)
        weight = np.maximum((~beside).astype(np.float32), np.float32(_LEAST_COVER) * own)
        filled = filled_in(light * weight[..., None], weight)
        np.copyto(filled, light, where=~replaced[..., None])
        return filled


def disc(radius_px: float) -> Plane:
    """Return an even disc, (n, n), n odd, sum 1; its rim covers pixels in part."""
    reach = int(np.ceil(radius_px + 0.5))
    fine = (np.arange(_SUBSAMPLES * (2 * reach + 1), dtype=np.float32) + 0.5) / _SUBSAMPLES
    fine -= reach + 0.5
    inside = np.hypot(fine[:, None], fine[None]) <= radius_px
    side = 2 * reach + 1
    kernel = inside.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).mean((1, 3))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _scaled(area: Area, factor: int) -> Area:
    rows, columns = (slice(span.start * factor, span.stop * factor) for span in area)
    return rows, columns


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


def _moved(planes: FloatArray, shift: FloatArray, between: int = cv2.INTER_LINEAR) -> FloatArray:
    """Return planes (h, w) or (h, w, k) moved to the right and down. between: pixels, OpenCV's."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    size = (planes.shape[1], planes.shape[0])
    moved = cv2.warpAffine(planes, matrix, size, flags=between, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved.reshape(planes.shape), np.float32)
