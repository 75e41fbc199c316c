"""Pairs that somebody already split: finding them by name, and reading them.

Left and right are told apart by the file's name (NAME_L.ext, NAME_R.ext, in either case) or by the
folder's: inputL/NAME.ext with inputR/NAME.ext, and set_l/source/NAME.ext with set_r/source/NAME.ext
(there NAME may carry _L and _R as well, as the DPDD data set has it).
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import exifread
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from dpbatch.errors import DamagedError, PairMismatchError, UnreadableError
from ldp.types import ViewPair

PAIR_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg"})

_SAME_FORMAT = {".tiff": ".tif", ".jpeg": ".jpg"}
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# What tifffile, imagecodecs and exifread raise on files that contradict themselves.
_BROKEN_CONTENT = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, struct.error,
)  # fmt: skip

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class PairFiles:
    """A left and a right file of one photo.

    name: what both are called, without the side. folder: where the photo belongs, that is the
    files' folder for NAME_L and NAME_R, the folder that holds inputL and inputR, and for
    set_l/source and set_r/source the folder `set` beside them, which need not exist.
    """

    left: Path
    right: Path
    name: str
    folder: Path


@dataclass(frozen=True)
class FoundPairs:
    """pairs: sorted by folder and name. lone: halves without their partner, sorted."""

    pairs: tuple[PairFiles, ...]
    lone: tuple[Path, ...]


@dataclass(frozen=True)
class _Half:
    path: Path
    is_left: bool
    name: str
    folder: Path

    @property
    def suffix(self) -> str:
        suffix = self.path.suffix.lower()
        return _SAME_FORMAT.get(suffix, suffix)


def find_pairs(files: Iterable[Path]) -> FoundPairs:
    """Sort out which of `files` are halves of pairs, by their names alone; nothing is opened.

    Files that no scheme calls a half are in neither list. Names and suffixes match in any case;
    halves of the same format go together first, then NAME_L.tif also takes NAME_R.png.
    """
    by_photo: dict[tuple[str, str], list[_Half]] = {}
    for path in sorted(set(files)):
        half = _as_half(path)
        if half is not None:
            by_photo.setdefault((str(half.folder).lower(), half.name.lower()), []).append(half)
    pairs: list[PairFiles] = []
    lone: list[Path] = []
    for halves in by_photo.values():
        for same_format in (True, False):
            for left in [h for h in halves if h.is_left]:
                partners = (
                    h
                    for h in halves
                    if not h.is_left and (h.suffix == left.suffix or not same_format)
                )
                right = next(partners, None)
                if right is not None:
                    pairs.append(PairFiles(left.path, right.path, left.name, left.folder))
                    halves = [h for h in halves if h not in (left, right)]
        lone += [h.path for h in halves]
    pairs.sort(key=lambda pair: (pair.folder, pair.name, pair.left))
    return FoundPairs(tuple(pairs), tuple(sorted(lone)))


def _as_half(path: Path) -> _Half | None:
    """What the name says, or None for a file that is no half of anything."""
    if path.suffix.lower() not in PAIR_SUFFIXES:
        return None
    stem_side = path.stem[-2:].lower() if len(path.stem) > 2 else ""
    parent, grandparent = path.parent, path.parent.parent
    if parent.name.lower() in ("inputl", "inputr"):
        folder_side, folder = "_" + parent.name[-1].lower(), grandparent
    elif parent.name.lower() == "source" and grandparent.name.lower().endswith(("_l", "_r")):
        folder_side, folder = (
            grandparent.name[-2:].lower(),
            grandparent.with_name(grandparent.name[:-2] or "_"),
        )
    elif stem_side in ("_l", "_r"):
        return _Half(path, stem_side == "_l", path.stem[:-2], parent)
    else:
        return None
    name = path.stem[:-2] if stem_side == folder_side else path.stem
    return _Half(path, folder_side == "_l", name, folder)


def read_pair_views(left_path: Path, right_path: Path) -> ViewPair:
    """Read two files (TIFF, PNG or JPEG, 8 or 16 bit) as the views of one photo.

    The pixels are taken as they are stored and keep their integer type; grey becomes RGB, alpha is
    dropped, an embedded colour profile is not looked at (the pixels count as sRGB). The views must
    differ along the rows, as the sensor has them: a portrait photo whose stored pixels have been
    turned upright must be turned back first. An EXIF orientation tag does no harm, since it is not
    applied here but handed on.

    Errors: UnreadableError, DamagedError; PairMismatchError where size, bit depth or orientation
    differ, or both are the same file.
    """
    if _is_same_file(left_path, right_path):
        raise PairMismatchError(
            f"{left_path.name} and {right_path.name} are one and the same file, expected two views"
        )
    left, left_orientation = _read_picture(left_path)
    right, right_orientation = _read_picture(right_path)
    for what, of_left, of_right in (
        ("size", _size(left), _size(right)),
        ("depth", f"{left.itemsize * 8} bit", f"{right.itemsize * 8} bit"),
        ("orientation", str(left_orientation), str(right_orientation)),
    ):
        if of_left != of_right:
            raise PairMismatchError(
                f"{left_path.name} has {what} {of_left}, {right_path.name} {of_right}: "
                "the two views of one photo are alike; export both in the same way"
            )
    return ViewPair(left, right, left_orientation)


def _is_same_file(left_path: Path, right_path: Path) -> bool:
    try:
        return left_path.samefile(right_path)
    except OSError:  # one is missing, which reading it will say
        return False


def _size(picture: Pixels) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _read_picture(path: Path) -> tuple[Pixels, int]:
    """(H, W, 3) uint8 or uint16 as stored, and the EXIF orientation."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path.name}: {error.strerror or error}") from error
    try:
        if content.startswith(_TIFF_SIGNATURES):
            stored = _decode_tiff(content, path.name)
        elif content.startswith(_PNG_SIGNATURE):
            stored = imagecodecs.png_decode(content)
        elif content.startswith(_JPEG_SIGNATURE):
            stored = _decode_jpeg(content, path.name)
        else:
            found = f"begins with {content[:8]!r}" if content else "is empty"
            raise UnreadableError(f"{path.name}: {found}, expected a TIFF, PNG or JPEG")
    except _BROKEN_CONTENT as error:
        raise DamagedError(f"{path.name}: cannot be decoded ({error}); copy it again") from error
    return _as_rgb(stored, path.name), _orientation(content)


def _decode_jpeg(content: bytes, name: str) -> npt.NDArray[np.generic]:
    # The decoder fills up a file that was cut off with grey and says nothing. In a scan's data
    # FF D9 cannot occur, so its absence after the first scan begins shows the cut.
    position = 2
    while content[position : position + 1] == b"\xff" and content[position + 1] != 0xDA:
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    if content.find(b"\xff\xd9", position) < 0:
        raise DamagedError(f"{name}: the end of the JPEG is missing; copy it again")
    stored = np.asarray(imagecodecs.jpeg8_decode(content))
    if stored.ndim == 3 and stored.shape[2] != 3:
        raise UnreadableError(f"{name}: a CMYK JPEG, expected RGB or grey")
    return stored


def _decode_tiff(content: bytes, name: str) -> npt.NDArray[np.generic]:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        kind = tifffile.PHOTOMETRIC(page.photometric)
        if kind.name not in ("RGB", "MINISBLACK", "YCBCR"):
            raise UnreadableError(f"{name}: a TIFF of kind {kind.name}, expected RGB or grey")
        # A strip that was cut off would otherwise come back as zeros.
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > len(content):
            raise DamagedError(
                f"{name}: {len(content)} bytes, its pixels need {max(ends)}; copy it again"
            )
        stored = page.asarray()
        return stored.transpose(1, 2, 0) if page.axes == "SYX" else stored


def _as_rgb(stored: npt.NDArray[np.generic], name: str) -> Pixels:
    if stored.dtype not in (np.uint8, np.uint16):
        raise UnreadableError(f"{name}: {stored.dtype} samples, expected 8 or 16 bit integers")
    planes = stored.shape[2] if stored.ndim == 3 else 1
    if stored.ndim not in (2, 3) or planes > 4:
        raise UnreadableError(f"{name}: {stored.shape} samples, expected RGB or grey")
    if planes <= 2:
        grey = stored if stored.ndim == 2 else stored[..., 0]
        stored = np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(stored[..., :3])


def _orientation(content: bytes) -> int:
    """The EXIF orientation, 1 where there is none or no sense in it."""
    logging.getLogger("exifread").setLevel(logging.ERROR)  # it warns of every file without EXIF
    try:
        tags = exifread.process_file(io.BytesIO(content), details=False)
    except _BROKEN_CONTENT:
        return 1  # the pixels are whole; only what is written beside them is not
    values = tags["Image Orientation"].values if "Image Orientation" in tags else [1]
    return values[0] if values and values[0] in range(1, 9) else 1
