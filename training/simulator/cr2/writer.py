"""Write Canon CR2 files, of one raw frame or of the two of Dual Pixel RAW, that LibRaw decodes.

Tests, the demo and the simulator use it. The layout is the EOS 5D Mark IV's: IFD0 preview and
metadata, IFD1 thumbnail, IFD2 small picture, IFD3 the composite frame, IFD4 one photodiode's frame;
the frames are 14-bit lossless JPEG with four components, cut into two vertical slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.simulator.cr2.layout import (
    ActiveArea,
    CameraTags,
    Frame,
    RawLevels,
    Rggb,
    shrunk,
    write_layout,
)
from training.simulator.cr2.ljpeg import encode_lossless_jpeg

Mosaic = npt.NDArray[np.uint16]
Signal = npt.NDArray[np.floating] | npt.NDArray[np.integer]

BORDER_LEFT, BORDER_TOP, BORDER_RIGHT, BORDER_BOTTOM = 148, 54, 12, 10
"""The 5D Mark IV's borders: 6720x4480 active becomes 6880x4544, as in the camera's own files."""

_PREVIEW_LONG_SIDE = 1620


def write_dpraw_cr2(
    path: Path,
    left_dn: Signal,
    right_dn: Signal,
    *,
    tags: CameraTags | None = None,
    wb_rggb: Rggb = (2.0, 1.0, 1.0, 1.5),
    black_level: int = 512,
    photodiode_black: int = 512,
    white_level: int = 16383,
    swap: bool = False,
    preview_rgb: npt.NDArray[np.uint8] | None = None,
    seed: int = 0,
) -> None:
    """Write a Dual Pixel RAW file from what each photodiode saw.

    left_dn, right_dn: (H, W) RGGB mosaics of the active area, DN above black of each photodiode
        alone, integer or float, not clipped; they are rounded to whole DN.
    Frame 0 is the composite clip(left + right + black_level), frame 1 the left photodiode
    clip(left + photodiode_black), or the right one with `swap`. Both get optically black borders
    with a little read noise (seeded with `seed`), so that H + 64 by W + 160 px are stored.
    wb_rggb: the as-shot white balance gains, written as 1024 x gain.
    preview_rgb: (h, w, 3) uint8 sRGB; made from the mosaics when None.

    Limits, each a ValueError when violated: W a multiple of 4, H even, at least 64 each; W + 160 >
    H + 64 (LibRaw takes the four-component JPEG for a frame only if it is wider than high) and not
    3984, where LibRaw shifts columns; up to 65532 px wide; DN within 14 bits. 8192x5464 active
    (45 MP) is fine. LibRaw knows some sizes of real cameras and then uses its own margins, as for
    6720x4480 active; for all others it takes black level and active area from the MakerNote.
    """
    left, right = _whole_dn(left_dn), _whole_dn(right_dn)
    if left.shape != right.shape:
        raise ValueError(f"left is {left.shape}, right {right.shape}: they share one sensor")
    rng = np.random.default_rng(seed)
    composite = _with_borders(left + right, black_level, white_level, 3.0, rng)
    photodiode = right if swap else left
    second = _with_borders(photodiode, photodiode_black, white_level, 2.0, rng)
    write_cr2_frames(
        path,
        (composite, second),
        tags=tags,
        wb_rggb=wb_rggb,
        black_level=black_level,
        white_level=white_level,
        preview_rgb=preview_rgb,
    )


def write_single_cr2(
    path: Path,
    signal_dn: Signal,
    *,
    tags: CameraTags | None = None,
    wb_rggb: Rggb = (2.0, 1.0, 1.0, 1.5),
    black_level: int = 512,
    white_level: int = 16383,
    preview_rgb: npt.NDArray[np.uint8] | None = None,
    seed: int = 0,
) -> None:
    """Write an ordinary CR2 with one raw frame; arguments and limits as for `write_dpraw_cr2`."""
    rng = np.random.default_rng(seed)
    frame = _with_borders(_whole_dn(signal_dn), black_level, white_level, 3.0, rng)
    write_cr2_frames(
        path,
        (frame,),
        tags=tags,
        wb_rggb=wb_rggb,
        black_level=black_level,
        white_level=white_level,
        preview_rgb=preview_rgb,
    )


def write_cr2_frames(
    path: Path,
    frames: Sequence[Mosaic],
    *,
    tags: CameraTags | None = None,
    wb_rggb: Rggb = (2.0, 1.0, 1.0, 1.5),
    black_level: int = 512,
    white_level: int = 16383,
    active: ActiveArea | None = None,
    slice_widths_px: Sequence[int] | None = None,
    preview_rgb: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Write full mosaics, borders included, unchanged, without checking that they fit each other.

    frames: uint16 (H, W) RGGB mosaics in [0, 16383], in the order of their IFDs.
    active: defaults to the first frame without the borders that `write_dpraw_cr2` adds.
    slice_widths_px: width of the first of each frame's two slices, half the frame's by default.
    Raises ValueError for the limits that `write_dpraw_cr2` lists.
    """
    widths = slice_widths_px or [frame.shape[1] // 2 for frame in frames]
    for frame in frames:
        _check_size(frame)
    height, width = frames[0].shape
    if active is None:
        active = ActiveArea(
            BORDER_LEFT,
            BORDER_TOP,
            width - BORDER_LEFT - BORDER_RIGHT,
            height - BORDER_TOP - BORDER_BOTTOM,
        )
    if min(active.width, active.height) < 64:
        raise ValueError(f"the active area is {active.width}x{active.height}, at least 64 each")
    if preview_rgb is None:
        preview_rgb = _preview(frames[0], active, wb_rggb, black_level, white_level)
    encoded = [
        Frame(_encoded(frame, first), (first, frame.shape[1] - first))
        for frame, first in zip(frames, widths, strict=True)
    ]
    levels = RawLevels((width, height), active, wb_rggb, black_level, white_level)
    write_layout(path, encoded, levels, tags or CameraTags(), preview_rgb)


def _whole_dn(signal: Signal) -> npt.NDArray[np.int32]:
    if signal.ndim != 2:
        raise ValueError(f"a mosaic is (H, W), found {signal.shape}")
    return np.rint(signal).astype(np.int32)


def _with_borders(
    signal: npt.NDArray[np.int32],
    black_level: int,
    white_level: int,
    read_noise_dn: float,
    rng: np.random.Generator,
) -> Mosaic:
    """Return the full mosaic: the active area on its black level, with optically black borders."""
    height, width = signal.shape
    shape = (height + BORDER_TOP + BORDER_BOTTOM, width + BORDER_LEFT + BORDER_RIGHT)
    mosaic = np.empty(shape, np.uint16)
    inside = (slice(BORDER_TOP, BORDER_TOP + height), slice(BORDER_LEFT, BORDER_LEFT + width))
    mosaic[inside] = np.clip(signal + black_level, 0, white_level)
    rows = (slice(None, BORDER_TOP), slice(BORDER_TOP + height, None))
    columns = (slice(None, BORDER_LEFT), slice(BORDER_LEFT + width, None))
    for border in (*((r, slice(None)) for r in rows), *((slice(None), c) for c in columns)):
        noise = rng.normal(black_level, read_noise_dn, mosaic[border].shape)
        mosaic[border] = np.clip(np.rint(noise), 0, white_level)
    return mosaic


def _check_size(frame: Mosaic) -> None:
    height, width = frame.shape
    if width % 4 or height % 2:
        raise ValueError(f"{width}x{height}: the width must divide by 4 and the height by 2")
    if width <= height:
        raise ValueError(f"{width}x{height} with borders: LibRaw needs a frame wider than high")
    if width == 3984:
        raise ValueError("a frame 3984 px wide comes out shifted in LibRaw; choose another width")
    if width > 65532:
        raise ValueError(f"a frame {width} px wide does not fit the format's 65532")


def _encoded(frame: Mosaic, first_slice_px: int) -> bytes:
    """Encode the frame's slices one after the other, as lines of W/2 four-component samples."""
    height, width = frame.shape
    in_slices = np.concatenate(
        (frame[:, :first_slice_px].ravel(), frame[:, first_slice_px:].ravel())
    )
    return encode_lossless_jpeg(in_slices.reshape(height // 2, width // 2, 4))


def _preview(
    frame: Mosaic, active: ActiveArea, wb: Rggb, black_level: int, white_level: int
) -> npt.NDArray[np.uint8]:
    """Return a plain sRGB-like picture of the mosaic: one pixel per 2x2 cell, camera colours."""
    rows = slice(active.top, active.top + active.height)
    columns = slice(active.left, active.left + active.width)
    cells = frame[rows, columns]
    scale = _PREVIEW_LONG_SIDE / (max(cells.shape) / 2)
    # A big frame is thinned out first: the preview needs no more than about 3 Mpx.
    step = 2 * max(1, int(1 / scale))
    red, green, blue = cells[::step, ::step], cells[::step, 1::step], cells[1::step, 1::step]
    linear = np.stack((red, green, blue), axis=-1).astype(np.float32) - black_level
    linear *= np.array((wb[0] / wb[1], 1.0, wb[3] / wb[1]), np.float32) / (
        white_level - black_level
    )
    encoded = np.clip(linear, 0, 1) ** (1 / 2.2)
    return shrunk((encoded * 255 + 0.5).astype(np.uint8), _PREVIEW_LONG_SIDE)
