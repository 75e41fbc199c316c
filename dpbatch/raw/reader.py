"""Read Dual Pixel RAW files with LibRaw; the only file that imports rawpy.

LibRaw writes warnings about damaged files to the C library's stderr. That stream belongs to the
whole process, so it is not redirected here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rawpy

from dpbatch.errors import DamagedError, NotDualPixelError, UnreadableError
from dpbatch.raw.canon_tags import read_canon_tags, single_frame_message
from dpbatch.raw.checks import Area, Cfa
from dpbatch.raw.container import probe
from dpbatch.raw.frames import Frame, RawPair, pair_of
from dpbatch.settings import DEMOSAICS

_PEDESTAL = 8192
"""Offset added to the signal, of 65535: room for noise below black and for colours outside sRGB.
The remaining range still has several steps for each DN of a 14-bit signal."""
_FULL_SCALE = 65535


class DualRaw:
    """An opened Dual Pixel RAW file; made by `open_dual`."""

    def __init__(self, pair: RawPair, raw: rawpy.RawPy) -> None:
        self.pair = pair
        self._raw = raw

    def render(
        self, signal: npt.NDArray[np.floating], *, demosaic: str = "ahd", bright: float = 2.0
    ) -> npt.NDArray[np.float32]:
        """Develop a mosaic with this photo's white balance and colour matrix.

        signal: (H, W) float or integer, the whole mosaic, DN above black, signed. Borders outside
            the active area do not matter.
        bright: additional gain; 2 makes half the composite's light as bright as the composite.

        Returns the active area, (h, w, 3) float32, linear light, sRGB primaries, not rotated. White
        is 1 and the upper limit: each sample is clipped at white after white balance and gain and
        before the colour matrix, so that clipped highlights are neutral. Negative values (noise
        below black, colours outside sRGB) are kept down to -1/7.

        LibRaw works on unsigned 16 bits, so a neutral pedestal is added to the balanced signal.
        Demosaicing and the colour matrix do not change it, and it is subtracted at the end.
        Raises ValueError for an unknown demosaic or another shape.
        """
        pair = self.pair
        if demosaic not in DEMOSAICS:
            raise ValueError(f"demosaic {demosaic!r}; known: {', '.join(DEMOSAICS)}")
        if signal.shape != pair.composite.shape:
            raise ValueError(f"signal is {signal.shape}, the mosaic {pair.composite.shape}")
        self._load(signal, bright)
        developed = self._raw.postprocess(
            demosaic_algorithm=rawpy.DemosaicAlgorithm[demosaic.upper()],
            user_wb=[1.0, 1.0, 1.0, 1.0],
            user_black=0,
            user_cblack=[0, 0, 0, 0],
            user_sat=_FULL_SCALE,
            no_auto_bright=True,
            adjust_maximum_thr=0.0,
            gamma=(1, 1),
            output_bps=16,
            output_color=rawpy.ColorSpace.sRGB,
            user_flip=0,
        )
        top, left, height, width = pair.active
        top -= self._raw.sizes.top_margin
        left -= self._raw.sizes.left_margin
        view = developed[top : top + height, left : left + width].astype(np.float32)
        view -= _PEDESTAL
        view /= _FULL_SCALE - _PEDESTAL
        return view

    @property
    def daylight_wb(self) -> npt.NDArray[np.float64]:
        """(4,) gains per colour index for daylight, from LibRaw's table; 0 where it has none."""
        return _four(np.array(self._raw.daylight_whitebalance, np.float64))

    def with_white_balance(self, gains: npt.NDArray[np.float64]) -> DualRaw:
        """Return the same file developed with other gains, (4,) per colour index."""
        return DualRaw(replace(self.pair, camera_wb=gains), self._raw)

    def preview_jpeg(self) -> bytes:
        """Return the largest JPEG that the camera stored in the file, b"" without one."""
        try:
            preview = self._raw.extract_thumb()
        except rawpy.LibRawError:
            return b""
        return bytes(preview.data) if preview.format == rawpy.ThumbFormat.JPEG else b""

    def _load(self, signal: npt.NDArray[np.floating], bright: float) -> None:
        """Write the white-balanced signal with the pedestal into LibRaw's mosaic."""
        pair = self.pair
        gains = pair.camera_wb / pair.camera_wb.min()
        white_dn = (pair.white_level - pair.composite_black.max()) / bright
        mosaic = self._raw.raw_image
        for row, column in np.ndindex(2, 2):
            gain = (_FULL_SCALE - _PEDESTAL) * gains[pair.cfa[row, column]] / white_dn
            cells = signal[row::2, column::2].astype(np.float32)
            cells *= np.float32(gain)
            cells += np.float32(_PEDESTAL + 0.5)
            mosaic[row::2, column::2] = np.clip(cells, 0, _FULL_SCALE, out=cells)


@contextmanager
def open_dual(path: Path) -> Iterator[DualRaw]:
    """Open a Dual Pixel RAW file, decode both frames and check that they belong together.

    Raises NotDualPixelError for an ordinary raw; UnreadableError for a file that is missing, empty,
    not permitted or no Canon raw; DamagedError where it does not decode or the frames cannot be a
    composite and one of its photodiodes.
    """
    container = probe(path)
    if not container.is_dual_pixel:
        raise NotDualPixelError(single_frame_message(path, container))
    tags = read_canon_tags(path, container.format)
    with _decoded(path, 1) as raw:
        second = _frame_of(raw)
    with _decoded(path, 0) as raw:
        pair = pair_of(_frame_of(raw), second, path.name, container, tags)
        del second
        yield DualRaw(pair, raw)


def _frame_of(raw: rawpy.RawPy) -> Frame:
    sizes = raw.sizes
    visible = (sizes.top_margin, sizes.left_margin, sizes.height, sizes.width)
    return Frame(
        mosaic=raw.raw_image.copy(),
        cfa=_cfa_of_mosaic(raw, visible),
        black=np.array(raw.black_level_per_channel, np.float64),
        white_level=int(raw.white_level),
        visible=visible,
        active=_active_area(sizes, visible),
        camera_wb=_camera_wb(raw),
        flip=sizes.flip,
    )


@contextmanager
def _decoded(path: Path, shot: int) -> Iterator[rawpy.RawPy]:
    """Open the raw file and unpack one of its frames.

    LibRaw selects the frame while it opens the file, so shot_select is set before that.
    `rawpy.imread(shot_select=1)` sets it afterwards and returns frame 0.
    """
    raw = rawpy.RawPy()
    try:
        raw.set_unpack_params(shot_select=shot)
        try:
            _open(raw, path)
            raw.unpack()
        except rawpy.LibRawRequestForNonexistentImageError as error:
            raise DamagedError(
                f"{path.name}: the file lists two raw frames, LibRaw finds one of the larger "
                "size, expected two of one size"
            ) from error
        except rawpy.LibRawUnsufficientMemoryError as error:
            raise UnreadableError(
                f"{path.name}: not enough memory to decode raw frame {shot}"
            ) from error
        except rawpy.LibRawError as error:
            raise DamagedError(
                f"{path.name}: raw frame {shot} does not decode ({_reason(error)}); "
                "copy the file from the card again"
            ) from error
        if raw.raw_type != rawpy.RawType.Flat or raw.raw_pattern is None:
            raise DamagedError(f"{path.name}: raw frame {shot} is not a Bayer mosaic")
        yield raw
    finally:
        raw.close()


def _open(raw: rawpy.RawPy, path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # rawpy takes no other name
        with path.open("rb") as stream:
            raw.open_buffer(stream)
    else:
        raw.open_file(str(path))


def _reason(error: rawpy.LibRawError) -> str:
    text = error.args[0] if error.args else type(error).__name__
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _cfa_of_mosaic(raw: rawpy.RawPy, visible: Area) -> Cfa:
    """Return the 2x2 pattern from the mosaic's origin; LibRaw's starts at the visible area."""
    pattern = np.asarray(raw.raw_pattern, np.int8)
    return np.roll(pattern, (visible[0] % 2, visible[1] % 2), axis=(0, 1))


def _active_area(sizes: rawpy.ImageSizes, visible: Area) -> Area:
    """Return Canon's crop of the visible area in whole 2x2 cells; all of it without a crop."""
    top, left, height, width = visible
    bottom, right = top + height, left + width
    if sizes.crop_width and sizes.crop_height:
        bottom = min(bottom, sizes.crop_top_margin + sizes.crop_height)
        right = min(right, sizes.crop_left_margin + sizes.crop_width)
        top, left = max(top, sizes.crop_top_margin), max(left, sizes.crop_left_margin)
    return top, left, (bottom - top) // 2 * 2, (right - left) // 2 * 2


def _camera_wb(raw: rawpy.RawPy) -> npt.NDArray[np.float64]:
    """Return the as-shot gains per colour index; LibRaw's daylight gains where there are none."""
    gains = np.array(raw.camera_whitebalance, np.float64)
    if not (gains[:3] > 0).all():
        gains = np.array(raw.daylight_whitebalance, np.float64)
    return _four(gains)


def _four(gains: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return gains whose second green is the first one's if it has none."""
    if gains[3] <= 0:
        gains[3] = gains[1]
    return gains
