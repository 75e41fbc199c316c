"""Find the DN from which on the samples of a frame are clipped.

Cameras do not clip at the largest number of their bits alone: some sensitivities are scaled down
digitally, long-exposure noise reduction spreads the clipped samples over hundreds of DN, and lossy
compression adds noise. The file's own white level is only a hint. What every kind of clipping has
in common: the values pile up at the upper end of the histogram, and the composite no longer grows
with the light that the photodiode's frame still shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Mosaic = npt.NDArray[np.uint16]
Histogram = npt.NDArray[np.float64]
Levels = npt.NDArray[np.float64]

_LOWEST_SHARE_OF_SCALE = 0.6  # of the largest number: no camera clips below
_WINDOWS_DN = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_MIN_PILE_SAMPLES = 16
_MIN_PROMINENCE = 4.0  # density of a pile over the density below it
_MIN_RISE_SAMPLES = 50
_STRAY_SAMPLES = 4  # so many samples may lie above everything else
_LONGEST_TAIL_SHARE = 0.1  # of the largest number, below the mode
_TAIL_LEFT_OUT = 0.0005  # of a pile's samples
_TAIL_MARGIN, _TAIL_RAMP = 0.15, 0.25  # of a pile's width, below its lower edge
_RAMP_SHARE_OF_SCALE = 0.004  # between reliable and clipped: 65 DN at 14 bits
# Light that the photodiode saw over what the composite shows: the median and the 9th decile.
_MIN_EXCESS = (1.03, 1.08)
_HARD_END_DN = 8  # from a pile's mode to its last value; noise reaches farther
_LEVEL_TOLERANCE = 0.03  # of the largest number
_STRIPS = 24
_GRID_SIDE = 500
_SHARE_SIGNAL_DN = 200.0
_MIN_STRIP_SAMPLES = 30


@dataclass(frozen=True)
class ClipLevels:
    """Where one frame clips, per colour index; DN, black included.

    start: (4,) samples below are reliable.
    full: (4,) samples from here on are clipped; between the two a sample is trusted less and less.
    pile: (4,) where the values pile up; NaN for a colour in which no clipped samples were found.
    """

    start: Levels
    full: Levels
    pile: Levels

    @classmethod
    def at(cls, level: float) -> ClipLevels:
        """Return levels without a transition: every sample from `level` on is clipped."""
        return cls(np.full(4, level), np.full(4, level), np.full(4, np.nan))


class _Pile(NamedTuple):
    """A maximum at the upper end of a histogram: where it begins, its mode and its last value."""

    lower: int
    mode: int
    upper: int


class _Plane(NamedTuple):
    """One colour's samples of both frames."""

    color: int
    composite: Mosaic
    photodiode: Mosaic


def measure_clipping(
    composite: Mosaic,
    photodiode: Mosaic,
    *,
    cfa: npt.NDArray[np.int8],
    blacks: tuple[Levels, Levels],
    white_level: int,
) -> tuple[ClipLevels, ClipLevels]:
    """Measure where the composite and the photodiode's frame clip.

    composite, photodiode: the pictures without borders. cfa: of their first 2x2 photosites.
    blacks: the two frames' black per colour index.
    white_level: LibRaw's, DN. It is used for a frame in which nothing piles up, unless samples
    above it show that it is wrong; then nothing below the largest number counts as clipped.
    """
    planes = list(_planes(composite, photodiode, cfa))
    scale = _largest_number(white_level, composite, photodiode)
    found: dict[int, _Pile] = {}
    histograms = {plane.color: _histogram(plane.composite) for plane in planes}
    for plane in planes:
        pile = _find_pile(histograms[plane.color], scale)
        if pile is not None and (
            _ends_at(pile, white_level, scale)
            or _ends_at(pile, scale, scale)
            or _is_exceeded(plane, pile, blacks)
        ):
            found[plane.color] = pile
    if found:  # one electronics: a lower peak of another colour is a bright area
        highest = max(found.values(), key=lambda pile: pile.mode)
        found = {color: pile for color, pile in found.items() if _is_at(pile, highest.mode, scale)}
    first = _levels(found, histograms, white_level, scale, {})

    found_second: dict[int, _Pile] = {}
    histograms = {plane.color: _histogram(plane.photodiode) for plane in planes}
    for color, histogram in histograms.items():
        pile = _find_pile(histogram, scale)
        if pile is not None and _is_clipped_alike(pile, list(found.values()), white_level, scale):
            found_second[color] = pile
    return first, _levels(found_second, histograms, white_level, scale, found)


def _planes(composite: Mosaic, photodiode: Mosaic, cfa: npt.NDArray[np.int8]) -> Iterator[_Plane]:
    for row, column in np.ndindex(2, 2):
        cell = (slice(row, None, 2), slice(column, None, 2))
        yield _Plane(int(cfa[row, column]), composite[cell], photodiode[cell])


def _largest_number(white_level: int, composite: Mosaic, photodiode: Mosaic) -> int:
    """Return the largest number of the samples' bits: 4095, 16383, ..., at least as white is."""
    highest = max(white_level, int(composite.max()), int(photodiode.max()))
    return (1 << highest.bit_length()) - 1


def _histogram(plane: Mosaic) -> Histogram:
    rows = plane[::2] if plane.size > 4_000_000 else plane  # half the rows of a large photo suffice
    counts = cv2.calcHist([np.ascontiguousarray(rows)], [0], None, [65536], [0, 65536])
    return np.asarray(counts, np.float64).ravel()


def _find_pile(histogram: Histogram, scale: int) -> _Pile | None:
    """Find a maximum at the upper end of the histogram with nothing above it.

    Windows of several widths are tried below the highest value: a hard limit fills one DN,
    long-exposure noise reduction hundreds.
    """
    lowest = int(_LOWEST_SHARE_OF_SCALE * scale)
    above = np.cumsum(histogram[::-1])[::-1]
    if above[lowest] < _MIN_PILE_SAMPLES:
        return None
    top = int(np.nonzero(above >= _STRAY_SAMPLES)[0][-1])
    sums = np.concatenate([[0.0], np.cumsum(histogram)])
    for width in _WINDOWS_DN:
        start = top + 1 - width
        if start < lowest:
            return None
        inside = sums[top + 1] - sums[start]
        below = sums[start] - sums[max(start - 3 * width, 0)]
        if inside >= _MIN_PILE_SAMPLES and inside > _MIN_PROMINENCE * below / 3:
            mode = start + _highest_peak(histogram[start : top + 1], max(1, width // 8))
            return _Pile(_lower_edge(sums, mode, top, scale), mode, top)
    return None


def _highest_peak(counts: Histogram, box_dn: int) -> int:
    """Return the place of the uppermost peak; an even area just below may have a taller one."""
    smooth = np.convolve(counts, np.ones(box_dn), "same")
    slope_end = int(np.flatnonzero(smooth >= 0.3 * smooth.max())[-1])
    first = max(0, slope_end - 2 * box_dn)
    return first + int(np.argmax(smooth[first : slope_end + 1]))


def _lower_edge(sums: Histogram, mode: int, top: int, scale: int) -> int:
    """Walk down from the mode to where the histogram no longer falls off."""
    edges = [mode + 1]
    width = max(2.0, (top - mode) / 3)
    while edges[-1] - width > 0 and mode - edges[-1] < _LONGEST_TAIL_SHARE * scale:
        edges.append(int(edges[-1] - width))
        width *= 1.25
    place = np.array(edges)
    counts, widths = sums[place[:-1]] - sums[place[1:]], place[:-1] - place[1:]
    density = counts / widths
    # Where it rises again, another structure begins.
    lowest = np.minimum.accumulate(density)
    rises = np.flatnonzero((density > 3 * lowest) & (counts - lowest * widths > _MIN_RISE_SAMPLES))
    if rises.size:
        density = density[: max(2, int(np.argmin(density[: rises[0]])) + 1)]
    farther = np.minimum.accumulate(density[::-1])[::-1]
    ends = (density <= 0.1 * np.maximum.accumulate(density)) & (density <= 2 * farther)
    index = int(np.argmax(ends)) if ends.any() else len(density) - 1
    edge = edges[index]
    # A few last samples of the tail may lie far below the rest.
    tail = np.cumsum(np.diff(sums[edge : mode + 2]) - density[index])
    pile = sums[top + 1] - sums[edge]
    few = np.nonzero(tail <= _TAIL_LEFT_OUT * pile)[0]
    return edge + int(few[-1]) if few.size else edge


def _is_at(pile: _Pile, level: int, scale: int) -> bool:
    """Whether a pile lies at a level that is already known to be one of clipping."""
    tolerance = _LEVEL_TOLERANCE * scale
    return abs(pile.mode - level) <= tolerance


def _ends_at(pile: _Pile, level: int, scale: int) -> bool:
    """Whether a pile lies at a level of clipping as only clipped samples do.

    That of a bright and even area ends softly, and mostly farther below the level.
    """
    ends_hard = pile.upper - pile.mode <= _HARD_END_DN
    is_near = pile.mode >= level - _RAMP_SHARE_OF_SCALE * scale
    return _is_at(pile, level, scale) and (ends_hard or is_near)


def _is_clipped_alike(pile: _Pile, seen: list[_Pile], white_level: int, scale: int) -> bool:
    """Whether a pile of the photodiode's frame lies at a level of clipping.

    seen: the composite's piles. Where there are some at a level, the photodiode's lies there as
    exactly as they are narrow: an area that is bright and even may lie just below.
    """
    for level in (white_level, scale):
        if _is_at(pile, level, scale) and not any(_is_at(other, level, scale) for other in seen):
            return True
    margin = _RAMP_SHARE_OF_SCALE * scale
    return any(
        abs(pile.mode - other.mode) <= max(margin, other.upper - other.lower) for other in seen
    )


def _is_exceeded(plane: _Plane, pile: _Pile, blacks: tuple[Levels, Levels]) -> bool:
    """Whether the photodiode saw more light in a pile than the composite shows.

    It does where the composite is clipped, not in an area that is only bright and even.
    """
    black, second_black = blacks[0][plane.color], blacks[1][plane.color]
    height, width = plane.composite.shape
    step = (max(1, height // _GRID_SIDE), max(1, width // _GRID_SIDE))
    c = plane.composite[:: step[0], :: step[1]] - black
    a = plane.photodiode[:: step[0], :: step[1]] - second_black
    usable = (c > _SHARE_SIGNAL_DN) & (c < 0.75 * (pile.lower - black))
    share = _usual_share(c, a, usable)
    rows, columns = np.nonzero(plane.composite >= pile.lower)
    keep = slice(None, None, max(1, rows.size // 100_000))
    rows, columns = rows[keep], columns[keep]
    light = (plane.photodiode[rows, columns] - second_black) / share(columns / width)
    excess = np.quantile(light, (0.5, 0.9)) / max(pile.mode - black, 1.0)
    return bool((excess > _MIN_EXCESS).any())


def _usual_share(c: Levels, a: Levels, usable: npt.NDArray[np.bool_]) -> Callable[[Levels], Levels]:
    """Fit the photodiode's share of the composite, which changes smoothly along the rows.

    Returns a function of the place in the row, 0 to 1. Medians of vertical strips leave out the
    edges of defocused objects.
    """
    strip = np.broadcast_to(np.arange(c.shape[1]) * _STRIPS // c.shape[1], c.shape)[usable]
    ratio = a[usable] / c[usable]
    found = [ratio[strip == number] for number in range(_STRIPS)]
    enough = [number for number, ratios in enumerate(found) if ratios.size >= _MIN_STRIP_SAMPLES]
    if not enough:
        return lambda place: np.full(np.shape(place), 0.5)
    medians = [float(np.median(found[number])) for number in enough]
    fit = np.polynomial.Polynomial.fit(enough, medians, min(2, len(enough) - 1))
    lowest, highest = min(medians), max(medians)
    return lambda place: np.clip(fit(place * _STRIPS - 0.5), lowest, highest).clip(0.1, 1)


def _levels(
    piles: dict[int, _Pile],
    histograms: dict[int, Histogram],
    white_level: int,
    scale: int,
    shared: dict[int, _Pile],
) -> ClipLevels:
    """Turn the piles of one frame into levels.

    All colours, and both frames, are clipped by the same electronics. So a pile's lower edge is the
    lowest of all that lie at the same level, since a pile of few samples shows only a part of its
    width; and a colour without a pile takes the level of the others. shared: the other frame's.
    """
    start, full, mode = (np.full(4, float(white_level)) for _ in range(3))
    mode[:] = np.nan
    known = [*piles.values(), *shared.values()]
    for color, histogram in histograms.items():
        pile = piles.get(color)
        if pile is not None:
            mode[color] = pile.mode
        elif known:
            pile = max(known, key=lambda other: other.upper)
            if histogram[pile.upper + 1 :].sum() >= _MIN_PILE_SAMPLES:
                pile = None
        if pile is not None:
            near = [other for other in known if _is_at(other, pile.mode, scale)]
            tail = max(other.upper - other.lower for other in near)
            full[color] = min(other.lower for other in near) - _TAIL_MARGIN * tail
            start[color] = full[color] - max(_RAMP_SHARE_OF_SCALE * scale, _TAIL_RAMP * tail)
        elif histogram[white_level + 1 :].sum() >= _MIN_PILE_SAMPLES:
            start[color] = full[color] = scale  # the stated white level is wrong
    return ClipLevels(start, full, mode)
