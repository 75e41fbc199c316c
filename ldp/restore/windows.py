"""Restore a single picture of any size with ViTDeblur: overlapping windows, averaged features.

Every window gives features of its inner pixels, which are averaged where windows overlap; to them
the features of a convolution of the whole picture are added, and a last convolution makes the
picture of the sum. Only the features of one row of windows are in memory, on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldp.devices import choose_precision
from ldp.errors import DeviceMemoryError, LdpError
from ldp.models.vitdeblur import FEATURES, MARGIN_PX, OUTPUT_KERNEL, OUTPUT_PAD_PX, ViTDeblur
from ldp.restore.tiling import Progress, ReceiveRows
from ldp.types import FloatArray, Picture, as_float

Blending = Literal["uniform", "smooth"]
Padding = Literal["published", "reflect"]
Indices = npt.NDArray[np.int64]

PUBLISHED_STRIDE_PX = 94
PADDED_MULTIPLE_PX = 16
AUTO_BATCH = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class WindowSettings:
    """How a picture is cut into windows and their features are joined.

    stride_px: from one window to the next. 94 as published, at most the network's covered_px (310),
        where windows meet without overlap and a picture needs about a tenth of the work.
    blending: of features where windows overlap: "uniform", the mean, as published, or "smooth",
        weighted by a squared sine that falls towards a window's border.
    padding: "published" enlarges sides shorter than a window to a window, by bicubic interpolation,
        and reflects the picture at the bottom and on the right up to multiples of 16 px; "reflect"
        only reflects sides shorter than a window. What was added is removed from the result.
    batch: windows at once; 0 to choose by the device. Halved where a GPU's memory is too small.
    full_precision: float32 also where the hardware multiplies bfloat16 faster.

    Raises ValueError for values that are none of these.
    """

    stride_px: int = PUBLISHED_STRIDE_PX
    blending: Blending = "uniform"
    padding: Padding = "published"
    batch: int = 0
    full_precision: bool = False

    def __post_init__(self) -> None:
        if self.stride_px < 1 or self.batch < 0:
            raise ValueError(
                f"stride_px {self.stride_px}, batch {self.batch}: expected at least 1 and 0"
            )
        for name, known in (("blending", get_args(Blending)), ("padding", get_args(Padding))):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise ValueError(f"{name} {found!r}: expected one of {', '.join(known)}")


@dataclass(frozen=True)
class WindowRestorer:
    """ViTDeblur on a device, ready to restore pictures; made by `of`.

    precision: the type of its matrix products.
    """

    network: ViTDeblur
    device: torch.device
    settings: WindowSettings
    precision: torch.dtype

    @classmethod
    def of(
        cls, network: ViTDeblur, device: torch.device, settings: WindowSettings | None = None
    ) -> WindowRestorer:
        """Take over a network: it is moved to the device, for inference.

        Raises ValueError for a stride that leaves pixels between windows without features.
        """
        chosen = settings or WindowSettings()
        most = network.config.covered_px
        if chosen.stride_px > most:
            raise ValueError(f"stride_px {chosen.stride_px}: expected at most {most}")
        precision = torch.float32 if chosen.full_precision else choose_precision(device)
        return cls(network.eval().to(device), device, chosen, precision)

    @property
    def facts(self) -> dict[str, str]:
        """What changes the result, by the names of the settings."""
        return {
            "window_stride": str(self.settings.stride_px),
            "blending": self.settings.blending,
            "padding": self.settings.padding,
            "precision": str(self.precision).removeprefix("torch."),
        }

    def restore_bands(
        self, picture: Picture, receive: ReceiveRows, progress: Progress | None = None
    ) -> None:
        """Call receive(first_row, rows) for every band of the restored picture, from the top.

        picture: (H, W, 3) RGB, as in ldp.single.BandRestorer.
        progress: progress(done, total) is called after every batch of windows.

        The rows are clipped to [0, 1], as the published network's are. Raises DeviceMemoryError
        where the device does not hold a window, LdpError where the result is not finite.
        """
        try:
            self._restore(picture, receive, progress)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"the memory of {self.device} does not hold the network and a row of windows of "
                f"{self.network.config.window_px} px; free some of it, or restore on the CPU"
            ) from error

    def _restore(self, picture: Picture, receive: ReceiveRows, progress: Progress | None) -> None:
        height, width = picture.shape[:2]
        window = self.network.config.window_px
        if self.settings.padding == "published" and min(height, width) < window:
            enlarged = resized(as_float(picture), max(height, window), max(width, window))
            bands = [band for _, band in self._bands(enlarged, progress)]
            whole = np.concatenate(bands)[: len(enlarged), : enlarged.shape[1]]
            receive(0, resized(whole, height, width))
            return
        for first_row, band in self._bands(picture, progress):
            kept = band[: max(0, height - first_row), :width]
            if len(kept):
                receive(first_row, kept)

    def _bands(
        self, picture: Picture, progress: Progress | None
    ) -> Iterator[tuple[int, FloatArray]]:
        """Yield the first row and the rows of every band of the padded picture."""
        rows, columns = (self._padded(side) for side in picture.shape[:2])
        window, stride = self.network.config.window_px, self.settings.stride_px
        tops, lefts = (window_starts(len(side), window, stride) for side in (rows, columns))
        joined = _JoinedFeatures(self, tops, lefts)
        output = _OutputRows(self.network, len(rows))
        batch, done = self.settings.batch or AUTO_BATCH[self.device.type], 0
        for number, top in enumerate(tops):
            pixels = as_float(picture[rows[top : top + window, None], columns])
            blue_first = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1]))
            band = blue_first.permute(2, 0, 1)[None].contiguous().to(self.device)
            turn = 0
            while turn < len(lefts):
                some = lefts[turn : turn + batch]
                try:
                    features = self._features(band, some)
                except torch.OutOfMemoryError:
                    if len(some) == 1:
                        raise
                    torch.cuda.empty_cache()
                    batch = len(some) // 2
                    continue
                for left, found in zip(some, features, strict=True):
                    joined.add(left, found)
                turn += len(some)
                done += len(some)
                if progress:
                    progress(done, len(tops) * len(lefts))
            first_row = output.next_row
            restored = output.rows_of(joined.take(number, band))
            if len(restored):
                yield first_row, restored

    @torch.inference_mode()
    def _features(self, band: Tensor, lefts: list[int]) -> Tensor:
        """Return the features, in float32, of the windows of a band that begin at `lefts`."""
        window = self.network.config.window_px
        windows = torch.cat([band[..., left : left + window] for left in lefts])
        narrow = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=narrow):
            return self.network.window_features(windows).float()

    def _padded(self, side: int) -> Indices:
        """Return the picture's pixels along a side, and those that are reflected behind them."""
        length = max(side, self.network.config.window_px)
        if self.settings.padding == "published":
            length = _up_to_multiple(length)
        return padded_indices(length, side)


class _JoinedFeatures:
    """Sum the features of a row of windows, and give those that no later row adds to.

    Windows and rows of windows are added in their order, so that sums are the same every time.
    """

    def __init__(self, restorer: WindowRestorer, tops: list[int], lefts: list[int]) -> None:
        covered = restorer.network.config.covered_px
        self._network, self._tops = restorer.network, tops
        ramp = torch.ones(covered)
        if restorer.settings.blending == "smooth":
            ramp = torch.sin(torch.pi * (torch.arange(covered) + 0.5) / covered) ** 2
        self._weights = (ramp[:, None] * ramp).to(restorer.device)
        self._row_totals, self._column_totals = (
            _totals(starts, ramp).to(restorer.device) for starts in (tops, lefts)
        )
        shape = (FEATURES, covered, len(self._column_totals))
        self._sums = torch.zeros(shape, device=restorer.device)

    @torch.inference_mode()
    def add(self, left: int, features: Tensor) -> None:
        """Add the features (FEATURES, T, T) of the window of this row that begins at `left`."""
        self._sums[:, :, left : left + features.shape[2]] += features * self._weights

    @torch.inference_mode()
    def take(self, number: int, band: Tensor) -> Tensor:
        """Return the finished rows of features, the picture's own added, (1, FEATURES, n, W).

        number: of the row of windows that is complete. band: its pixels, (1, 3, S, W).
        """
        top = self._tops[number]
        last = number + 1 == len(self._tops)
        count = self._sums.shape[1] if last else self._tops[number + 1] - top
        totals = self._row_totals[top : top + count, None] * self._column_totals
        finished = self._sums[:, :count] / totals
        self._sums = torch.cat([self._sums[:, count:], torch.zeros_like(finished)], 1)
        return finished[None] + self._network.skip_features(band[:, :, : count + 2 * MARGIN_PX])


class _OutputRows:
    """Make rows of the picture of rows of features as soon as all that they depend on are there."""

    def __init__(self, network: ViTDeblur, height: int) -> None:
        self._network, self._height = network, height
        self._feature_rows = height - 2 * MARGIN_PX
        self._held: Tensor | None = None
        self._held_from = 0
        self.next_row = 0

    @torch.inference_mode()
    def rows_of(self, features: Tensor) -> FloatArray:
        """Take the next rows of features, (1, FEATURES, n, W), and return the next of the picture.

        They are (m, W, 3) RGB in [0, 1]; m may be 0. Raises LdpError where one is not finite.
        """
        held = features if self._held is None else torch.cat([self._held, features], 2)
        stop = self._held_from + held.shape[2]
        first_row, until = self.next_row, self._computable(stop)
        if until == first_row:
            self._held = held
            return np.empty((0, held.shape[3] + 2 * MARGIN_PX, 3), np.float32)
        # Row y is made of the features y - OUTPUT_PAD_PX to y - OUTPUT_PAD_PX + OUTPUT_KERNEL - 1.
        needed = np.arange(first_row, until + OUTPUT_KERNEL - 1) - OUTPUT_PAD_PX
        needed = np.abs(needed)
        last = self._feature_rows - 1
        needed = np.where(needed > last, 2 * last - needed, needed) - self._held_from
        found = held[:, :, torch.from_numpy(needed).to(held.device)]
        restored = self._network.assembled(found, rows_padded=True)[0]
        keep_from = max(self._held_from, stop - OUTPUT_KERNEL + 1)
        self._held, self._held_from = held[:, :, keep_from - self._held_from :].clone(), keep_from
        self.next_row = until
        rgb = restored.flip(0).permute(1, 2, 0).clamp(0, 1)
        rows = np.asarray(rgb.cpu().numpy(), np.float32)
        if not np.isfinite(rows).all():
            raise LdpError(
                f"rows {first_row} to {until}: the restored picture is not finite; look for NaN "
                "or infinity in the picture"
            )
        return rows

    def _computable(self, stop: int) -> int:
        """Return how many rows of the picture can be made of the features before row `stop`."""
        if stop == self._feature_rows:
            return self._height
        # The first rows are made of reflected features, as far down as OUTPUT_PAD_PX.
        return 0 if stop <= OUTPUT_PAD_PX else stop + OUTPUT_PAD_PX - OUTPUT_KERNEL + 1


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Return where the windows along a side begin: every `stride` pixels, and at the far end."""
    return [*range(0, side - window, stride), side - window]


def padded_indices(length: int, side: int) -> Indices:
    """Return `length` indices of a side's pixels: its own, then reflected ones, the last twice.

    Where more are asked for than the side has, they are reflected again: OpenCV's BORDER_REFLECT.
    """
    folded = np.arange(length) % (2 * side)
    return np.asarray(np.minimum(folded, 2 * side - 1 - folded), np.int64)


def _totals(starts: list[int], ramp: Tensor) -> Tensor:
    """Return the sum of the windows' weights at every pixel along a side that has features."""
    totals = torch.zeros(starts[-1] + len(ramp))
    for start in starts:
        totals[start : start + len(ramp)] += ramp
    return totals


def padded_as_published(picture: Picture, window: int = 320) -> Picture:
    """Return a picture as ViTDeblur's published code pads it, before it scores it.

    Sides shorter than a window are enlarged to one by bicubic interpolation, which makes float32 of
    any picture; then it is reflected at the bottom and on the right, up to multiples of 16 px.
    """
    height, width = picture.shape[:2]
    if min(height, width) < window:
        picture = resized(as_float(picture), max(height, window), max(width, window))
    rows, columns = (padded_indices(_up_to_multiple(side), side) for side in picture.shape[:2])
    return picture[rows[:, None], columns]


def _up_to_multiple(side: int) -> int:
    return -(-side // PADDED_MULTIPLE_PX) * PADDED_MULTIPLE_PX


def resized(picture: FloatArray, height: int, width: int) -> FloatArray:
    """Return a picture with both sides enlarged (bicubic) or both reduced (area), in [0, 1]."""
    smaller = height < picture.shape[0] or width < picture.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    resized = cv2.resize(picture, (width, height), interpolation=kind)
    return np.asarray(np.clip(resized, 0, 1), np.float32)
