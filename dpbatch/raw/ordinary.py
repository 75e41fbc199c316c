"""Develop ordinary raws, which have one frame, with LibRaw's own demosaic: any camera's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rawpy

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.raw.frames import EXIF_ORIENTATION
from dpbatch.raw.reader import largest_preview, reason_of
from dpbatch.settings import parse_gains
from ldp.srgb import encode_srgb
from ldp.types import to_uint16

_ROWS_AT_ONCE = 64
_PILE_DN, _PILE_FACTOR = 16, 4
"""Clipped samples spread over so few values, and are so many times those just below them."""
_HOT_SHARE, _CLIPPED_SHARE = 1e-5, 1e-4


@dataclass(frozen=True)
class OrdinaryRaw:
    """A developed raw with one frame.

    picture: (H, W, 3) uint16 RGB, sRGB primaries, sRGB-encoded, 65535 is white, in the sensor's
        orientation. orientation: EXIF, 1 to 8.
    preview: the largest JPEG that the camera stored, b"" without one.
    """

    picture: npt.NDArray[np.uint16]
    orientation: int
    preview: bytes = b""


def read_ordinary(path: Path, white_balance: str, *, with_preview: bool = False) -> OrdinaryRaw:
    """Decode and develop a raw file.

    White balance: camera, auto, daylight, or gains "R,G,B". Samples are clipped at white before the
    colour matrix, so that clipped highlights are neutral, and at black. X-Trans and other mosaics
    are demosaiced as LibRaw does, Bayer mosaics by AHD.

    Raises UnreadableError for a file that is missing or that LibRaw does not read, DamagedError for
    one that does not decode.
    """
    with _Opened(path) as raw:
        # First: after unpacking, a file that was read from a buffer has no previews left.
        preview = largest_preview(raw) if with_preview else b""
        orientation = EXIF_ORIENTATION.get(raw.sizes.flip, 1)
        try:
            raw.unpack()
            developed = raw.postprocess(
                **_white_balance(white_balance),
                user_sat=_white(raw),
                demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD,
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
                gamma=(1, 1),
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
                user_flip=0,
            )
        except rawpy.LibRawError as error:
            raise _not_decoded(path, error) from error
    if developed.ndim == 2 or developed.shape[2] == 1:  # a monochrome camera
        developed = np.repeat(developed.reshape(*developed.shape[:2], 1), 3, 2)
    picture = np.asarray(developed, np.uint16)
    for top in range(0, len(picture), _ROWS_AT_ONCE):
        rows = picture[top : top + _ROWS_AT_ONCE]
        rows[:] = to_uint16(encode_srgb(rows.astype(np.float32) / np.float32(65535)))
    return OrdinaryRaw(picture, orientation, preview)


def picture_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a raw's picture. Raises UnreadableError and DamagedError."""
    with _Opened(path) as raw:
        return raw.sizes.width, raw.sizes.height


def _white(raw: rawpy.RawPy) -> int | None:
    """Return the value above black to develop as white; None for LibRaw's.

    Some cameras clip below the white that their files state, which leaves highlights coloured.
    """
    if raw.raw_type != rawpy.RawType.Flat:
        return None
    level = clip_level(raw.raw_image_visible)
    # Below, it is the noise of a dark or an even picture that piles up.
    if level is None or level <= raw.white_level / 2:
        return None
    return level - max(raw.black_level_per_channel)


def clip_level(samples: npt.NDArray[np.uint16]) -> int | None:
    """Return the value from which samples are clipped; None where none are.

    Clipped samples pile up at one value, or a few next to each other; a bright scene that is not
    clipped thins out towards its brightest sample. samples: of any shape, of all colours.
    """
    counts = np.bincount(samples.ravel(), minlength=65536)
    from_top = np.cumsum(counts[::-1])[::-1]
    # A few samples above the others are hot photosites.
    bright = np.flatnonzero(from_top > _HOT_SHARE * samples.size)
    if not bright.size or bright[-1] < 3 * _PILE_DN:
        return None
    top = int(bright[-1])
    start = top - _PILE_DN + 1
    pile, before = int(from_top[start]), int(counts[start - _PILE_DN : start].sum())
    if pile < _CLIPPED_SHARE * samples.size or pile < _PILE_FACTOR * before:
        return None
    # The first of its values that holds more than its share.
    return start + int(np.argmax(counts[start : top + 1] * _PILE_DN > pile))


class _Opened:
    """A raw file that LibRaw has open, as a context."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = rawpy.RawPy()

    def __enter__(self) -> rawpy.RawPy:
        try:
            with self._path.open("rb") as stream:  # LibRaw does not say why it cannot be read
                if os.fsdecode(self._path).isascii():
                    self._raw.open_file(str(self._path))
                else:  # rawpy takes names that are UTF-8 only
                    self._raw.open_buffer(stream)
        except OSError as error:
            self._raw.close()
            reason = error.strerror or error
            raise UnreadableError(f"{self._path.name}: cannot be read: {reason}") from error
        except rawpy.LibRawError as error:
            self._raw.close()
            raise _not_decoded(self._path, error) from error
        return self._raw

    def __exit__(self, *_: object) -> None:
        self._raw.close()


def _white_balance(white_balance: str) -> dict[str, Any]:
    """Return LibRaw's parameters; without any it takes daylight."""
    if white_balance == "camera":
        return {"use_camera_wb": True}
    if white_balance == "auto":
        return {"use_auto_wb": True}
    if white_balance == "daylight":
        return {}
    red, green, blue = parse_gains(white_balance)
    return {"user_wb": [red, green, blue, green]}


def _not_decoded(path: Path, error: rawpy.LibRawError) -> UnreadableError | DamagedError:
    reason = reason_of(error)
    if isinstance(error, rawpy.LibRawUnsufficientMemoryError):
        return UnreadableError(f"{path.name}: not enough memory to decode it")
    if isinstance(error, rawpy.LibRawFileUnsupportedError):
        return UnreadableError(
            f"{path.name}: LibRaw does not read this file ({reason}); expected a raw of a camera "
            "that it knows, or convert it to DNG"
        )
    return DamagedError(f"{path.name}: does not decode ({reason}); copy it from the card again")
