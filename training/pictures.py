"""Read and write pictures as they are stored: for simulator, data sets and evaluation alike."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ldp.srgb import encode_srgb
from ldp.types import FloatArray
from training.errors import DataError
from training.files import whole_file

StoredPicture = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(H, W, 3) RGB or (H, W) grey, sRGB-encoded; the type's largest value is white."""
Float64Picture = npt.NDArray[np.float64]
"""(H, W, 3) RGB, sRGB-encoded, white at 1: what scores are computed of."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})


def picture_files(folder: Path) -> list[Path]:
    """Return every file below a folder whose name ends as a picture's, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)


def read_rgb(path: Path) -> StoredPicture:
    """Read a picture of 8 or 16 bits as (H, W, 3) RGB; grey becomes RGB, alpha is dropped.

    An EXIF orientation is applied. Raises DataError where there is no such picture.
    """
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if stored is None or stored.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: missing, or not a readable picture of 8 or 16 bit")
    return np.ascontiguousarray(stored[..., ::-1])  # type: ignore[return-value]


def read_rgb8(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 RGB; of 16 bits the upper 8 are kept.

    An EXIF orientation is applied. Raises DataError where there is no such picture.
    """
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if stored is None:
        raise DataError(f"{path}: not a readable picture; repair or remove it")
    return np.ascontiguousarray(stored[..., ::-1], np.uint8)


def read_grey(path: Path) -> StoredPicture:
    """Read a map of 8 or 16 bits as (H, W); one stored in colour must have equal channels.

    Raises DataError for anything else.
    """
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: missing, or not a readable picture of 8 or 16 bit")
    if stored.ndim == 3:
        if not (stored[..., :1] == stored[..., :3]).all():
            raise DataError(f"{path}: in colour, expected a grey depth map")
        stored = stored[..., 0]
    return stored  # type: ignore[return-value]


def as_float64(stored: StoredPicture) -> Float64Picture:
    """Convert a stored picture to float64, white at 1."""
    return np.asarray(stored / np.iinfo(stored.dtype).max, np.float64)


def read_float64(path: Path) -> Float64Picture:
    """Read a picture of 8 or 16 bits as (H, W, 3) float64. Raises DataError as read_rgb does."""
    return as_float64(read_rgb(path))


def encode_clipped(linear: FloatArray) -> FloatArray:
    """Encode linear light to sRGB, clip it to [0, 1] and return a new array."""
    return np.clip(encode_srgb(np.array(linear, np.float32, order="C")), 0, 1)


def write_png(path: Path, rgb: StoredPicture) -> None:
    """Write (H, W, 3) RGB as a PNG, which is there only when it is complete. Raises OSError."""
    encodes, encoded = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    if not encodes:
        raise OSError(f"{path}: cannot be encoded as a PNG")
    with whole_file(path) as unfinished:
        unfinished.write_bytes(encoded.tobytes())
