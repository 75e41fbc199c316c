"""Find the photos in files and folders, and name their outputs; name clashes are found here."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Generic, Literal

from dpbatch.errors import SettingsError
from dpbatch.location import Location, P, absolute, path_below, short_name
from dpbatch.networks import ordinary_weights
from dpbatch.raw.container import OTHER_RAW_SUFFIXES, RAW_SUFFIXES
from dpbatch.raw.pairs import PAIR_SUFFIXES, find_pairs
from dpbatch.settings import Settings
from dpbatch.storage.base import InputSource
from dpbatch.types import Job, P_co, Photo

_COLLISIONS_SHOWN = 10
_TEMPLATES = ("{root}/{dir}/{stem}", "{dir}/{stem}_{ext}", "{root}/{dir}/{stem}_{ext}")
"""What to suggest where names collide; the first that keeps them apart."""
_SUFFIXES = {*RAW_SUFFIXES, *PAIR_SUFFIXES}


@dataclass(frozen=True)
class NotAPhoto:
    """An input that is not a photo: half a pair, a file of another kind, an unreadable folder.

    failed: whether it counts as failed; otherwise it is skipped.
    """

    path: Location
    failed: bool
    code: str
    message: str


@dataclass(frozen=True)
class Inputs(Generic[P_co]):
    """What the given files and folders hold, each in a fixed order."""

    photos: tuple[Photo[P_co], ...]
    others: tuple[NotAPhoto, ...]


def scan(
    given: Sequence[P],
    source: InputSource[P],
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pairs: bool = True,
    ordinary: bool = False,
    pictures: bool = False,
    out: Location | None = None,
) -> Inputs[P]:
    """Return the photos in the given files and folders of a source. Nothing is opened.

    Every Canon raw counts; with `pairs` TIFF, PNG and JPEG count as halves of pairs. With
    `ordinary` raws of other makers count too; with `pictures` a TIFF, PNG or JPEG that is no half
    of a pair is a photo, unless a raw of its name lies beside it.

    include, exclude: globs, matched in any case against the file's name and its path below the
    folder given. out: see `InputSource.list_files`.

    Raises SettingsError where something given does not exist.
    """
    listing = source.list_files(given, recursive=recursive, out=out)
    suffixes = {*_SUFFIXES, *(OTHER_RAW_SUFFIXES if ordinary else ())}
    roots = {
        path: root
        for path, root in listing.roots.items()
        if path in listing.named or path.suffix.lower() in suffixes
        if _wanted(path, root, include, exclude)
    }
    others = [NotAPhoto(path, True, "unreadable", why) for path, why in listing.unreadable]
    names = root_names(set(listing.roots.values()))

    def photo_of(path: P, kind: Literal["raw", "ordinary"]) -> Photo[P]:
        root = roots[path]
        return Photo(kind, (path,), path.stem, _below(path.parent, root), names[root])

    photos = [photo_of(path, "raw") for path in roots if path.suffix.lower() in RAW_SUFFIXES]
    if ordinary:
        other_raws = (path for path in roots if path.suffix.lower() in OTHER_RAW_SUFFIXES)
        photos += [photo_of(path, "ordinary") for path in other_raws]
    found = find_pairs(path for path in roots if pairs and path.suffix.lower() in PAIR_SUFFIXES)
    for pair in found.pairs:
        root = roots[pair.left]
        below = _below(pair.folder, root)
        photos.append(Photo("pair", (pair.left, pair.right), pair.name, below, names[root]))
    if pictures:
        alone = sorted(
            path
            for path in roots.keys() - {path for photo in photos for path in photo.paths}
            if path.suffix.lower() in PAIR_SUFFIXES
        )
        beside = {_without_suffix(photo.paths[0]) for photo in photos if photo.kind != "pair"}
        for path in alone:
            if _without_suffix(path) in beside:
                message = f"{path.name}: left out, since a raw of its name lies beside it"
                others.append(NotAPhoto(path, False, "raw-beside", message))
            else:
                photos.append(photo_of(path, "ordinary"))
    for half in found.lone if not pictures else ():
        message = f"{half.name}: half of a pair, the other half is not there"
        others.append(NotAPhoto(half, False, "lone-half", message))
    used = {
        *found.lone,
        *(other.path for other in others),
        *(path for photo in photos for path in photo.paths),
    }
    for path in sorted(listing.named & roots.keys() - used):
        message = f"{path.name}: neither a raw file nor half of a left/right pair"
        others.append(NotAPhoto(path, False, "not-an-input", message))
    photos.sort(key=lambda photo: (photo.root, photo.folder, photo.stem, photo.paths))
    return Inputs(tuple(photos), tuple(others))


def jobs_of(
    photos: Iterable[Photo[Location]], out: Location, settings: Settings, suffixes: Sequence[str]
) -> tuple[Job[Location], ...]:
    """Return each photo with the files that it becomes, named by the template.

    suffixes: what follows the name in each file, the main one first.

    Raises SettingsError where two photos would become the same file (also where only a file system
    that ignores case or Unicode composition says so), one would replace an input, or leave `out`.
    """
    model = Path(settings.restore.model).stem
    of_ordinary = Path(ordinary_weights(settings.restore)).stem
    photos = tuple(photos)

    def jobs_named(template: str) -> Iterator[Job[Location]]:
        for photo in photos:
            is_ordinary = photo.kind == "ordinary"
            name = _name(photo, template, of_ordinary if is_ordinary else model)
            outputs = tuple(
                out / f"{name}{suffix}"
                for suffix in suffixes
                if not (is_ordinary and suffix.startswith(".disparity"))
            )
            source = " + ".join(short_name(path) for path in photo.paths)
            yield Job(f"{name}{suffixes[0]}", source, photo, outputs)

    jobs = tuple(jobs_named(settings.output.template))
    collisions = list(_collisions(jobs))
    if not collisions:
        return jobs
    for template in _TEMPLATES:
        if not any(_collisions(jobs_named(template))):
            what_to_do = f"add --template '{template}', which keeps them apart"
            break
    else:
        what_to_do = "exclude the one or the other"
    listed = [f"  {collision}" for collision in collisions[:_COLLISIONS_SHOWN]]
    more = len(collisions) - len(listed)
    raise SettingsError(
        "output names that are taken twice (case makes no difference on some systems); "
        f"{what_to_do}:\n" + "\n".join(listed + [f"  and {more} more"] * bool(more))
    )


def root_names(roots: Collection[Location]) -> dict[Location, str]:
    """Return the name of each folder given, for {root}; equal names with the parent that differs.

    Of A/DCIM/100CANON and B/DCIM/100CANON: A/100CANON and B/100CANON.
    """
    named = {root: root.name for root in roots}
    alike: dict[str, list[Location]] = {}
    for root in roots:
        alike.setdefault(_folded(root.name), []).append(root)
    for group in alike.values():
        for root in group if len(group) > 1 else ():
            named[root] = "/".join(
                part for part in (_parent_that_differs(root, group), root.name) if part
            )
    return named


def _parent_that_differs(root: Location, group: Sequence[Location]) -> str:
    """Return the name of the nearest parent that no two folders of the group share.

    All that is above the folder where there is no such parent.
    """
    above = {other: [_as_name(part) for part in reversed(other.parent.parts)] for other in group}
    for parents in zip_longest(*above.values(), fillvalue=""):
        if len(set(map(_folded, parents))) == len(group):
            return dict(zip(above, parents, strict=True))[root]
    return "/".join(filter(None, reversed(above[root])))


def _as_name(part: str) -> str:
    """Return a part of a path as a name of a folder: E for the drive E:\\, "" for /."""
    return part.strip("\\/:")


def _collisions(jobs: Iterable[Job[Location]]) -> Iterator[str]:
    """Yield a line for each output path that is also an input or the output of another photo."""
    jobs = tuple(jobs)
    takers = {_key(path): f"the input {path}" for job in jobs for path in job.photo.paths}
    for job in jobs:
        for output in job.outputs:
            other = takers.setdefault(_key(output), job.name)
            if other != job.name:
                yield f"{output}: {job} and {other}"


def _wanted(path: Location, root: Location, include: Sequence[str], exclude: Sequence[str]) -> bool:
    names = (path.name.lower(), (path_below(path, root) or "").lower())

    def matches(globs: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob.lower()) for name in names for glob in globs)

    return (not include or matches(include)) and not matches(exclude)


def _without_suffix(path: Location) -> str:
    return _folded(str(path.with_name(path.stem)))


def _below(folder: Location, root: Location) -> str:
    """Return `folder` relative to `root`, with /; "" for the root and for what is not below it."""
    below = path_below(folder, root)
    return "" if below in (None, ".") else below


def _name(photo: Photo[Location], template: str, model: str) -> str:
    """Return a photo's path below the output folder, with / and without a suffix."""
    name = template.format(
        dir=photo.folder or ".",
        stem=photo.stem,
        ext=photo.paths[0].suffix[1:].lower(),
        root=photo.root,
        model=model,
    )
    name = os.path.normpath(name)
    if Path(name).is_absolute() or name.startswith(".."):
        raise SettingsError(f"template {template!r} leads out of the output folder: {name}")
    return PurePath(name).as_posix()


def _key(path: Location) -> str:
    """Return a text that is equal for paths that are the same file on some file system."""
    whole = absolute(path) if isinstance(path, Path) else path
    return _folded(str(whole))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
