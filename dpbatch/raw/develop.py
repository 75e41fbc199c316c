"""Develop a dual-pixel raw: two views and the composite, part by part, on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dpbatch.raw.camera_space import CHANNELS
from dpbatch.raw.cells import block_sums, by_position, to_mosaic
from dpbatch.raw.demosaic import demosaic
from dpbatch.raw.frames import RawPair
from dpbatch.raw.recovered import Recovered
from dpbatch.raw.shading import matched, measure_shading
from dpbatch.raw.splitter import Splitter
from dpbatch.settings import RawSettings
from ldp.restore.photo_views import whole
from ldp.srgb import encode_signed_srgb_tensor
from ldp.threads import side_by_side, thread_count
from ldp.types import ViewPair

VIEW_GAIN = 2.0
"""A view has half of the composite's light; this makes it as bright as an ordinary photo."""
_HALO_PX = 12
"""Samples around a part that its demosaicing reads."""
_ENCODED_PX = {"cpu": 1 << 15}
"""Encoded at a time: on a CPU they stay in its cache."""
_REDUCED_ROWS = {"cpu": 16, "cuda": 512}
"""Rows of cells read at a time: on a GPU enough to keep it busy."""
PIECE_PX = {"cpu": (256, 1536)}
"""The least and the most columns that are developed at a time. On a CPU they stay in its cache, and
several threads have a piece each."""
_USUAL_PIXELS = 2_000_000
"""Asked for by the blur map; what needs fewer takes them from there."""
_ENOUGH_CELLS = 0.7
"""Cells for each pixel wanted, from which on they do without demosaicing."""


class RawViews:
    """The two views of a raw photo and its composite, developed alike; see PhotoViews.

    Each sample is clipped at white after white balance and gain and before the colour matrix, so
    that clipped highlights are neutral; what the matrix takes beyond white is clipped as well.
    Negative values (noise below black, colours outside sRGB) are kept. Pixels stay in the sensor's
    orientation.
    """

    def __init__(self, pair: RawPair, settings: RawSettings, device: torch.device) -> None:
        """Upload the photo, measure its highlights and its shading."""
        self._photo = pair
        self._splitter = Splitter(pair, settings.swap, device)
        self._shading = measure_shading(self._splitter) if settings.shading else None
        self._gains = by_position(pair.relative_gains / pair.white_dn, pair.cfa).to(device)
        self._matrix = torch.from_numpy(pair.camera_to_srgb.astype(np.float32)).to(device)
        (a, b), (c, d) = CHANNELS[pair.cfa].tolist()
        self._pattern = (a, b), (c, d)
        self._size = pair.composite.shape[0], pair.composite.shape[1]
        self._small: dict[int, ViewPair] = {}
        self._last: tuple[slice, slice, Tensor] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """See PhotoViews."""
        return self._size

    def pair(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews."""

        def develop(piece: slice) -> tuple[Tensor, ...]:
            cells, inner = self._around(rows, piece)
            return tuple(self._developed(view)[:, *inner] for view in self._views(*cells))

        return self._in_pieces(develop, rows, columns, channels=6)

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        """See PhotoViews: the composite's own development. The last part is kept."""

        def develop(piece: slice) -> tuple[Tensor, ...]:
            cells, inner = self._around(rows, piece)
            return (self._developed(self._composite(*cells).clamp_(max=1))[:, *inner],)

        if self._last is None or self._last[:2] != (rows, columns):
            self._last = rows, columns, self._in_pieces(develop, rows, columns, channels=3)
        return self._last[2]

    def light(self, rows: slice, columns: slice, largest: float) -> Tensor:
        """Return a part of the composite's linear light, (3, h, w), sRGB primaries, white at 1.

        largest: light at which samples are clipped; above 1 for recovered highlights.
        """
        cells, inner = self._around(rows, columns)
        camera = demosaic(to_mosaic(self._composite(*cells).clamp_(max=largest)), self._pattern)
        return (self._matrix @ camera.flatten(1)).view(camera.shape)[:, *inner]

    def recovered(self, wanted: bool) -> Recovered:
        """Return the composite's mosaic with the light above its clipping, if that is wanted."""
        return Recovered.of(self._photo, self._splitter, wanted)

    def reduced(self, pixels: int) -> ViewPair:
        """See PhotoViews: of few pixels, each is the mean of whole cells, without demosaicing."""
        height, width = self._size
        if height * width < 4 * pixels * _ENOUGH_CELLS:
            return whole(self).reduced(pixels)
        side, usual = (
            max(1, int((height * width / (4 * wanted)) ** 0.5))
            for wanted in (max(pixels, _USUAL_PIXELS), _USUAL_PIXELS)
        )
        if side in self._small:
            return self._small[side].reduced(pixels)
        small = self._reduced(side)
        if side == usual:  # others are asked for once, and take 24 bytes a pixel
            self._small[side] = small
        return small.reduced(pixels)

    def _reduced(self, side: int) -> ViewPair:
        """Return both views, each pixel the mean of side x side cells."""
        height, width = self._splitter.size_cells
        rows_at_once = side * max(1, _REDUCED_ROWS[self._splitter.device.type] // side)
        left, right = (np.empty((height // side, width // side, 3), np.float32) for _ in range(2))

        def reduce(top: int) -> None:
            views = self._views(slice(top, min(top + rows_at_once, height)), slice(0, width))
            both = torch.cat([self._binned(view, side) for view in views]).permute(1, 2, 0)
            lines = slice(top // side, top // side + len(both))
            left[lines], right[lines] = both[..., :3].cpu().numpy(), both[..., 3:].cpu().numpy()

        side_by_side(reduce, range(0, height, rows_at_once), self._splitter.device)
        return ViewPair(left, right)

    def _in_pieces(
        self,
        develop: Callable[[slice], tuple[Tensor, ...]],
        rows: slice,
        columns: slice,
        channels: int,
    ) -> Tensor:
        """Return a part, (channels, h, w), from pieces of its columns.

        develop: returns the pictures of a piece, (3, h, w) each.
        """
        device = self._splitter.device
        width = columns.stop - columns.start
        part = torch.empty((channels, rows.stop - rows.start, width), device=device)
        least, most = PIECE_PX.get(device.type, (width, width))
        count = max(-(-width // most), min(thread_count(device), width // least))
        edges = [width * number // count for number in range(count + 1)]

        def fill(piece: slice) -> None:
            found = develop(slice(columns.start + piece.start, columns.start + piece.stop))
            torch.cat(found, out=part[:, :, piece])

        side_by_side(fill, [slice(*ends) for ends in pairwise(edges)], device)
        return part

    def _around(
        self, rows: slice, columns: slice
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the cells that a part is developed from, and where the part lies in them."""
        cells, inner = [], []
        for part, side in zip((rows, columns), self._splitter.size_cells, strict=True):
            first = max(0, (part.start - _HALO_PX) // 2)
            cells.append(slice(first, min(side, -(-(part.stop + _HALO_PX) // 2))))
            inner.append(slice(part.start - 2 * first, part.stop - 2 * first))
        return (cells[0], cells[1]), (inner[0], inner[1])

    def _composite(self, rows: slice, columns: slice) -> Tensor:
        """Return the samples of the composite, highlights recovered, white at 1, not clipped."""
        split = self._splitter.split(rows, columns)
        return (split.left + split.right) * self._gains

    def _views(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return the samples of both views, white at 1, (4, h, w) each; rows, columns of cells."""
        split = self._splitter.split(rows, columns)
        left, right = split.left, split.right
        if self._shading is not None:
            left, right = matched(left, right, self._shading, rows, columns)
        return self._white_balanced(VIEW_GAIN * left), self._white_balanced(VIEW_GAIN * right)

    def _white_balanced(self, cells: Tensor) -> Tensor:
        return (cells * self._gains).clamp_(max=1)

    def _developed(self, cells: Tensor) -> Tensor:
        """Return samples as a picture, (4, h, w) -> (3, 2h, 2w)."""
        return self._encoded(demosaic(to_mosaic(cells), self._pattern))

    def _binned(self, cells: Tensor, side: int) -> Tensor:
        """Return means of side x side cells as a picture."""
        means = block_sums(cells, side) / side**2
        planes: list[list[Tensor]] = [[], [], []]
        for position, channel in enumerate(channel for row in self._pattern for channel in row):
            planes[channel].append(means[position])
        return self._encoded(torch.stack([torch.stack(plane).mean(0) for plane in planes]))

    def _encoded(self, rgb: Tensor) -> Tensor:
        """Return camera colours in linear light as sRGB, (3, h, w)."""
        pixels = rgb.flatten(1)
        encoded = torch.empty_like(pixels)
        at_once = _ENCODED_PX.get(rgb.device.type, pixels.shape[1])
        for start in range(0, pixels.shape[1], at_once):
            some = slice(start, start + at_once)
            light = (self._matrix @ pixels[:, some]).clamp_(max=1)
            encoded[:, some] = encode_signed_srgb_tensor(light)
        return encoded.view(rgb.shape)


def develop(pair: RawPair, settings: RawSettings) -> ViewPair:
    """Return both views whole, (H, W, 3) float32 each, with the photo's orientation."""
    views = whole(RawViews(pair, settings, torch.device("cpu")))
    return replace(views, orientation=pair.orientation)
