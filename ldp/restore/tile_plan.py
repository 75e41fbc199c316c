"""Choose the tiles of a photo: they cover what is wanted of it, and little else.

Rows of which something is wanted are divided into bands, and every band into tiles of about the
same size, each as narrow and as low as what is wanted of it. So a photo that is half in focus costs
half of one that is not, and no small tile is left over at the far side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ldp.restore.tiling import Span, rounded_up


class Wanting(Protocol):
    """Says where a restored picture is wanted."""

    def wants(self, rows: Span, columns: Span) -> bool:
        """Whether anything of a part of the picture is wanted."""


@dataclass(frozen=True)
class Tile:
    """A part of the picture that is restored in one pass."""

    rows: Span
    columns: Span


@dataclass(frozen=True)
class Band:
    """Rows of the picture, and the tiles in them; none where nothing is wanted.

    The rows of a tile are those of its band, or fewer of them where the band's other rows need
    nothing of its columns.
    """

    rows: Span
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class TileSizes:
    """What tiles are made by, in pixels.

    largest: side of a tile. overlap: shared by neighbours. align: tiles begin at its multiples.
    gap: what is wanted is divided where so much between it is not; for less, the halos of two tiles
        would cost more.
    """

    largest: int
    overlap: int
    align: int
    gap: int


def plan_tiles(picture: Wanting, size: tuple[int, int], sizes: TileSizes) -> list[Band]:
    """Return the bands that cover a picture of (H, W), from the top, with their tiles."""
    height, width = size
    everywhere = Span(0, width, 0, 0)
    bands: list[Band] = []
    done = 0
    for run in _runs(lambda rows: picture.wants(rows, everywhere), Span(0, height, 0, 0), sizes):
        if run.start > done:
            bands.append(Band(Span(done, run.start, 0, 0), ()))
        bands += [Band(rows, _tiles(picture, rows, width, sizes)) for rows in _divided(run, sizes)]
        done = run.stop
    if done < height:
        bands.append(Band(Span(done, height, 0, 0), ()))
    return bands


def _tiles(picture: Wanting, rows: Span, width: int, sizes: TileSizes) -> tuple[Tile, ...]:
    """Return the tiles of a band."""
    tiles = []
    for run in _runs(lambda columns: picture.wants(rows, columns), Span(0, width, 0, 0), sizes):
        for columns in _divided(run, sizes):
            own_rows = _lowered(picture, rows, columns, sizes)
            if own_rows is not None:
                tiles.append(Tile(own_rows, columns))
    return tuple(tiles)


def _lowered(picture: Wanting, rows: Span, columns: Span, sizes: TileSizes) -> Span | None:
    """Return the rows of a tile without those at its top and bottom that need nothing of it.

    None where none does. The rows that it shares with a neighbour stay together: all of them are
    left out, or none.
    """
    runs = _runs(lambda part: picture.wants(part, columns), rows, sizes)
    if not runs:
        return None
    own_rows = rows.length - rows.after
    start = min(runs[0].start, rows.start + own_rows // sizes.align * sizes.align)
    stop = max(runs[-1].stop, rows.start + rows.before)
    lowered = rows
    if start >= rows.start + rows.before:
        lowered = replace(lowered, start=start, before=0)
    if stop <= rows.stop - rows.after:
        lowered = replace(lowered, stop=stop, after=0)
    return lowered


def _runs(is_wanted: Callable[[Span], bool], along: Span, sizes: TileSizes) -> list[Span]:
    """Return the parts of a span that are wanted, on the grid, in order."""
    found: list[Span] = []
    for start in range(along.start, along.stop, sizes.align):
        part = Span(start, min(start + sizes.align, along.stop), 0, 0)
        if not is_wanted(part):
            continue
        if found and start - found[-1].stop <= sizes.gap:
            part = replace(part, start=found.pop().start)
        found.append(part)
    return found


def _divided(run: Span, sizes: TileSizes) -> list[Span]:
    """Return the fewest spans that cover a run, of about the same length.

    No pixel is in three of them.
    """
    length, align = run.length - sizes.overlap, sizes.align
    most, least = (sizes.largest - sizes.overlap) // align * align, rounded_up(sizes.overlap, align)
    count = max(1, -(-length // most))
    if length < count * (least + align):  # too short for different lengths
        starts = list(range(0, max(1, length), most))
    else:
        starts = [rounded_up(-(-length * number // count), align) for number in range(count)]
    return [
        Span(
            start=run.start + start,
            stop=run.stop if start == starts[-1] else run.start + after + sizes.overlap,
            before=sizes.overlap if start else 0,
            after=0 if start == starts[-1] else sizes.overlap,
        )
        for start, after in zip(starts, [*starts[1:], 0], strict=True)
    ]
