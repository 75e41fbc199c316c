"""Find and read pairs of views that another program has split.

Left and right are told apart by the file's name (NAME_L.ext, NAME_R.ext, in either case) or by the
folder's: inputL/NAME.ext with inputR/NAME.ext, and set_l/source/NAME.ext with set_r/source/NAME.ext
(there NAME may carry _L and _R as well, as the DPDD data set has it).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np

from dpbatch.errors import PairMismatchError
from dpbatch.location import Location, P
from dpbatch.raw.likeness import MIN_LIKENESS, scene_likeness
from dpbatch.raw.pictures import read_picture
from ldp.types import ViewPair

PAIR_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg"})

_SAME_FORMAT = {".tiff": ".tif", ".jpeg": ".jpg"}


@dataclass(frozen=True)
class PairFiles(Generic[P]):
    """The left and the right file of one photo.

    name: the common file name without side and suffix. folder: the photo's folder: that of the
    files for NAME_L and NAME_R, the parent of inputL and inputR, and `set` (which need not exist)
    beside set_l and set_r for set_l/source and set_r/source.
    """

    left: P
    right: P
    name: str
    folder: Location


@dataclass(frozen=True)
class FoundPairs(Generic[P]):
    """pairs: sorted by folder and name. lone: halves without their partner, sorted."""

    pairs: tuple[PairFiles[P], ...]
    lone: tuple[P, ...]


@dataclass(frozen=True)
class _Half(Generic[P]):
    path: P
    is_left: bool
    name: str
    folder: Location

    @property
    def suffix(self) -> str:
        suffix = self.path.suffix.lower()
        return _SAME_FORMAT.get(suffix, suffix)


def find_pairs(files: Iterable[P]) -> FoundPairs[P]:
    """Match left and right files by their names; no file is opened.

    Files that match no naming scheme are in neither list. Names and suffixes match in any case.
    Halves of one format are matched first, then NAME_L.tif may also match NAME_R.png.
    """
    by_photo: dict[tuple[str, str], list[_Half[P]]] = {}
    for path in sorted(set(files)):
        half = _as_half(path)
        if half is not None:
            by_photo.setdefault((str(half.folder).lower(), half.name.lower()), []).append(half)
    pairs: list[PairFiles[P]] = []
    lone: list[P] = []
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


def _as_half(path: P) -> _Half[P] | None:
    """Return the side and name in a path, None where it matches no naming scheme."""
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
    """Read two files (TIFF, PNG or JPEG, 4 to 16 bit) as the views of one photo.

    The pixels are read as `read_picture` does: integers, or floats where a colour profile was
    converted. The disparity must lie along the rows, as on the sensor: a portrait photo whose
    pixels were rotated must be rotated back first. An EXIF orientation tag is not applied but
    returned with the views.

    Raises UnreadableError and DamagedError as `read_picture` does; PairMismatchError where size,
    bit depth, colour space or orientation differ, both paths are the same file, or the pictures do
    not show the same scene.
    """
    if _is_same_file(left_path, right_path):
        raise PairMismatchError(
            f"{left_path.name} and {right_path.name} are one and the same file, expected two views"
        )
    left, right = read_picture(left_path), read_picture(right_path)
    for what, of_left, of_right in (
        ("size", left.size, right.size),
        ("depth", left.depth, right.depth),
        ("colours", left.colors, right.colors),
        ("orientation", str(left.orientation), str(right.orientation)),
    ):
        if of_left != of_right:
            raise PairMismatchError(
                f"{left_path.name} has {what} {of_left}, {right_path.name} {of_right}: "
                "the two views of one photo must match; export both in the same way"
            )
    likeness = scene_likeness(left.pixels, right.pixels)
    if likeness is not None and likeness < MIN_LIKENESS:
        raise PairMismatchError(
            f"{left_path.name} and {right_path.name} do not show the same scene (correlation "
            f"{likeness:.2f}, expected at least {MIN_LIKENESS:g}): they are not the views of one "
            "photo; check which files belong together"
        )
    return ViewPair(left.pixels, right.pixels, left.orientation)


def _is_same_file(left_path: Path, right_path: Path) -> bool:
    try:
        return left_path.samefile(right_path)
    except OSError:  # a missing file is reported when it is read
        return False


def pair_warnings(views: ViewPair) -> tuple[str, ...]:
    """Return what is odd about a pair, but no reason to refuse it: both halves are equal."""
    if np.array_equal(views.left, views.right):
        return (
            "both halves hold the same picture: without a difference between the views nothing is "
            "known about the blur",
        )
    return ()
