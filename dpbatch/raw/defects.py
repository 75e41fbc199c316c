"""Find and fill defective photosites, rows and columns before the frames are subtracted.

A defect belongs to one photodiode or to one frame. What the lens draws, however small (a star, a
glint, a thin line), is in both views, at the same place or, out of focus, beside it. So an outlier
against its neighbours of the same colour is filled only where the other view shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Mosaic = npt.NDArray[np.uint16]
Places = npt.NDArray[np.intp]
Values = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Found = TypeVar("Found")

_NOISE_FACTOR = 10.0  # outliers exceed their neighbours by so many standard deviations
_MIN_EXCESS_DN = 24.0
_SCAN_SHIFT = 4  # and by 1/16 of the neighbours
_MAX_SHARE = 0.005  # of the photosites: more outliers than this are texture or noise
_CHUNK_PLACES = 20_000
_SUPPORT = 0.2  # of an outlier in the other view shows that it is real
_CHUNK_ROWS = 128
# The block around a candidate: as far along the row as the other view may have an object that is
# out of focus.
_BLOCK_ROWS, _BLOCK_COLUMNS = 7, 13
_MIDDLE = (3, 6)
_BORDER = 6
_SPREAD_LIGHT = 0.02  # of a point of light reaches each adjacent photosite at least
_MIN_LINE_SHARE = 0.25
_LINE_WINDOW = 33
_LINE_REACH = 16


@dataclass(frozen=True)
class Defects:
    """sites: number of single photosites filled. rows, columns: the picture's lines filled."""

    sites: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was filled, for the user; nothing where nothing was."""
        found = [
            f"{len(lines)} {word}{'s' if len(lines) > 1 else ''}"
            for lines, word in ((self.rows, "row"), (self.columns, "column"))
            if lines
        ]
        if self.sites:
            found.insert(0, f"{self.sites} photosite{'s' if self.sites > 1 else ''}")
        return (f"defects filled: {', '.join(found)}",) if found else ()


def fill_defects(
    composite: Mosaic,
    photodiode: Mosaic,
    *,
    black_dn: float,
    noise_dn: float,
    clip_dn: float,
) -> Defects:
    """Fill the defects of both frames' pictures, in place.

    black_dn: of the composite. noise_dn: standard deviation of the frames in the dark.
    clip_dn: from here on the composite may be clipped, so that the other view is not known.
    """
    if min(composite.shape) < 2 * _BORDER + 8:
        return Defects(0, (), ())
    margin = max(_MIN_EXCESS_DN, _NOISE_FACTOR * noise_dn)
    columns = _fill_lines(composite, photodiode, margin, black_dn)
    rows = _fill_lines(composite.T, photodiode.T, margin, black_dn)
    sites = _fill_sites(composite, photodiode, margin=margin, black_dn=black_dn, clip_dn=clip_dn)
    return Defects(sites, tuple(rows), tuple(columns))


def _of_both(first: Mosaic, second: Mosaic, work: Callable[[Mosaic], Found]) -> list[Found]:
    """Return work(frame) of both frames, side by side: NumPy releases Python's lock."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(work, (first, second)))


def _fill_sites(
    first: Mosaic, second: Mosaic, *, margin: float, black_dn: float, clip_dn: float
) -> int:
    places = np.concatenate(_of_both(first, second, partial(_candidates, margin=int(margin))))
    places.sort(kind="stable")  # fast for two sorted parts; a noisy photo has a million candidates
    places = places[np.diff(places, prepend=-1) > 0]
    height, width = first.shape
    rows, columns = np.divmod(places, width)
    usable = (rows >= _BORDER) & (rows < height - _BORDER)
    usable &= (columns >= _BORDER) & (columns < width - _BORDER)
    rows, columns = rows[usable], columns[usable]
    if rows.size > _MAX_SHARE * first.size:
        return 0
    return sum(
        _fill_lone(
            first,
            second,
            rows[start : start + _CHUNK_PLACES],
            columns[start : start + _CHUNK_PLACES],
            margin=margin,
            black_dn=black_dn,
            clip_dn=clip_dn,
        )
        for start in range(0, rows.size, _CHUNK_PLACES)
    )


def _fill_lone(
    first: Mosaic,
    second: Mosaic,
    rows: Places,
    columns: Places,
    *,
    margin: float,
    black_dn: float,
    clip_dn: float,
) -> int:
    """Fill those of the places that are outliers of one view alone; return how many."""
    around = (
        rows[:, None, None] + np.arange(_BLOCK_ROWS)[:, None] - _MIDDLE[0],
        columns[:, None, None] + np.arange(_BLOCK_COLUMNS) - _MIDDLE[1],
    )
    both, one = first[around].astype(np.float32), second[around].astype(np.float32)
    other = both - one
    # Where the composite is clipped, the other view is not known, but light reaches neighbours too.
    judged = (both[:, 3, 6] < clip_dn) | ~_has_neighbours(both, margin)
    bad_one = _is_outlier(one, margin) & ~_is_shown(other, one, margin)
    bad_one &= judged | (one[:, 3, 6] > both[:, 3, 6])
    bad_other = _is_outlier(other, margin) & ~_is_shown(one, other, margin) & judged & ~bad_one
    # The other view is whole where the outlier is in both frames, so it is of the photodiode.
    in_both = bad_one & (np.abs(_deviation(other)) < np.abs(_deviation(both)))
    in_both |= bad_one & (both[:, 3, 6] >= clip_dn)
    # No light at all in either view beside lit photosites: dead in both frames.
    dead = both[:, 3, 6] < black_dn + 0.5 * margin
    dead &= np.median(_neighbours(both), axis=1) > black_dn + 4 * margin
    bad_one, in_both = bad_one | dead, in_both | dead
    _put(second, rows, columns, one, bad_one)
    _put(first, rows, columns, both, bad_other | in_both)
    return int((bad_one | bad_other).sum())


def _candidates(frame: Mosaic, margin: int) -> Places:
    """Return the flat indices of samples beyond both neighbours of the same colour in their row."""
    found = []
    for start in range(0, frame.shape[0], _CHUNK_ROWS):
        chunk = frame[start : start + _CHUNK_ROWS]
        before, here, after = chunk[:, :-4], chunk[:, 2:-2], chunk[:, 4:]
        limit = np.maximum(before, after)
        limit += (limit >> _SCAN_SHIFT) + np.uint16(margin)
        outside = here > limit
        np.minimum(before, after, out=limit)
        limit -= np.minimum((limit >> _SCAN_SHIFT) + np.uint16(margin), limit)
        outside |= here < limit
        flat = np.flatnonzero(outside)
        rows, columns = np.divmod(flat, here.shape[1])
        found.append((rows + start) * frame.shape[1] + columns + 2)
    return np.concatenate(found)


def _neighbours(block: Values, dy: int = 0, dx: int = 0) -> Values:
    """Return (n, 8), the neighbours of the same colour of the site (dy, dx) off the middle."""
    row, column = _MIDDLE[0] + dy, _MIDDLE[1] + dx
    around = block[:, row - 2 : row + 3 : 2, column - 2 : column + 3 : 2].reshape(-1, 9)
    return np.delete(around, 4, axis=1)


def _deviation(block: Values, dy: int = 0, dx: int = 0) -> Values:
    """Return how far a site of each block is from the median of its neighbours."""
    middle = np.median(_neighbours(block, dy, dx), axis=1)
    return np.asarray(block[:, _MIDDLE[0] + dy, _MIDDLE[1] + dx] - middle, np.float32)


def _is_outlier(view: Values, margin: float) -> Mask:
    """Whether the middle site lies clearly outside the range of its neighbours."""
    neighbours = _neighbours(view)
    highest, lowest = neighbours.max(axis=1), neighbours.min(axis=1)
    clear = np.maximum(margin, 0.5 * (highest - lowest))
    middle = view[:, _MIDDLE[0], _MIDDLE[1]]
    return np.asarray((middle > highest + clear) | (middle < lowest - clear), np.bool_)


def _is_shown(other: Values, view: Values, margin: float) -> Mask:
    """Whether the other view shows an outlier of `view` too: there, next to it or along the row."""
    size = _deviation(view)
    sign = np.sign(size)
    nearest = [_deviation(other, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    same_color = other[:, 1::2, 0::2].reshape(len(other), -1)
    same_color = same_color - np.median(_neighbours(other), axis=1)[:, None]
    shown = np.concatenate([np.stack(nearest, axis=1), same_color], axis=1) * sign[:, None]
    return np.asarray(
        shown.max(axis=1) >= np.maximum(_SUPPORT * np.abs(size), 0.3 * margin), np.bool_
    )


def _has_neighbours(both: Values, margin: float) -> Mask:
    """Whether the directly adjacent sites, of other colours, are lit as well."""
    limit = np.maximum(0.3 * margin, _SPREAD_LIGHT * np.abs(_deviation(both)))
    lit = [_deviation(both, *step) > limit for step in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    return np.asarray(np.sum(lit, axis=0) >= 2, np.bool_)


def _put(frame: Mosaic, rows: Places, columns: Places, block: Values, bad: Mask) -> None:
    frame[rows[bad], columns[bad]] = np.rint(np.median(_neighbours(block[bad]), axis=1))


def _fill_lines(first: Mosaic, second: Mosaic, margin: float, black_dn: float) -> list[int]:
    """Fill the defective columns of the frames (or rows, of transposed ones); return them."""
    profiles = _of_both(first, second, _profiles)
    step_both, step_one = (profile - _across(profile) for profile in profiles)
    level = _across(profiles[0])
    suspicious = np.maximum(np.abs(step_one), np.abs(step_both)) > np.maximum(
        0.1 * margin, 0.05 * np.abs(level)
    )
    # A line that the lens draws has its like in the other view, at most a little aside; but no line
    # is black over the whole frame in both views beside lit ones, unless it is dead.
    step_other = step_both - step_one
    dead = (profiles[0] < black_dn + 0.5 * margin) & (level > black_dn + 4 * margin)
    filled = []
    for column in np.flatnonzero(suspicious.any(axis=0)):
        near = slice(max(column - _LINE_REACH, 0), column + _LINE_REACH + 1)
        parity = int(np.argmax(suspicious[:, column]))
        one, other = step_one[parity], step_other[parity]
        strong, weak = (one, other) if abs(one[column]) > abs(other[column]) else (other, one)
        like = (weak[near] * np.sign(strong[column])).max()
        lone = like < 0.3 * abs(strong[column]) or dead[:, column].all()
        if lone and _fill_line(first, second, int(column), margin):
            filled.append(int(column))
    return filled


def _profiles(frame: Mosaic) -> npt.NDArray[np.float64]:
    """Return the means of each column over the even and over the odd rows, (2, columns)."""
    return np.stack([frame[parity::2].mean(axis=0, dtype=np.float64) for parity in (0, 1)])


def _across(profile: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median of the four nearest columns of the same colour."""
    padded = np.pad(profile, ((0, 0), (4, 4)), mode="reflect")
    count = profile.shape[1]
    near = [padded[:, 4 + by : 4 + by + count] for by in (-4, -2, 2, 4)]
    return np.asarray(np.median(near, axis=0), np.float64)


def _fill_line(first: Mosaic, second: Mosaic, column: int, margin: float) -> bool:
    """Fill the runs of bad samples of one column; False where there are too few."""
    width = first.shape[1]
    near = [column + by for by in (-4, -2, 2, 4) if 0 <= column + by < width]
    changed = False
    for frame in (second, first):
        line = frame[:, column].astype(np.float32)
        beside = frame[:, near].astype(np.float32)
        expected = np.median(beside, axis=1)
        bad = np.abs(line - expected) > np.maximum(0.3 * margin, 0.05 * expected)
        padded = np.pad(bad.astype(np.float32), _LINE_WINDOW // 2, mode="reflect")
        share = np.convolve(padded, np.full(_LINE_WINDOW, 1 / _LINE_WINDOW), "valid")
        dense = (share > 0.6) | (bad & (share > 0.3))
        if dense.mean() >= _MIN_LINE_SHARE:
            frame[dense, column] = np.rint(expected[dense])
            changed = True
    return changed
