"""Files and folders -> photos and what each becomes; all trouble with names is found here."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from dpbatch.errors import SettingsError
from dpbatch.raw.container import RAW_SUFFIXES
from dpbatch.raw.pairs import PAIR_SUFFIXES, find_pairs
from dpbatch.settings import Settings
from dpbatch.storage.urls import shown, url_of
from dpbatch.types import FileStamp, Job, Photo

_COLLISIONS_SHOWN = 10
_SUFFIXES = {*RAW_SUFFIXES, *PAIR_SUFFIXES}


@dataclass(frozen=True)
class NotAPhoto:
    """An input that is none: half a pair, a file of another kind, a folder that cannot be read.

    failed: whether it should have been one.
    """

    path: Path
    failed: bool
    code: str
    message: str


@dataclass(frozen=True)
class Inputs:
    """What the given files and folders hold, each in a fixed order."""

    photos: tuple[Photo, ...]
    others: tuple[NotAPhoto, ...]


@dataclass
class _Found:
    files: dict[Path, Path] = field(default_factory=dict)
    """Each file, absolute, with the folder given that it was found below."""
    folders: set[str] = field(default_factory=set)
    others: list[NotAPhoto] = field(default_factory=list)


def scan(
    given: Sequence[Path],
    *,
    recursive: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pairs: bool = True,
    out: Path | None = None,
    list_remote: Callable[[Path, bool], Mapping[Path, FileStamp]] | None = None,
) -> Inputs:
    """The photos in the given files and folders.

    Every raw file counts; with `pairs` TIFF, PNG and JPEG count as halves of pairs. A file or
    folder reached twice counts once, links are followed; hidden ones and `out` below a given folder
    do not count.
    include, exclude: globs, matched in any case against the file's name and its path below the
    folder given. Nothing is opened.
    list_remote: gives the files in a remote folder; (folder, whether those in its subfolders too).
    Raises SettingsError where something given does not exist.
    """
    found = _Found()
    hidden_out = os.path.realpath(out) if out is not None else ""
    for path in given:
        if url_of(path) is not None and list_remote is not None:
            _take(path, list_remote(path, recursive), out, found)
        elif path.is_dir():
            _walk(path, recursive, hidden_out, found)
        elif path.exists():
            found.files.setdefault(_absolute(path), _absolute(path.parent))
        else:
            raise SettingsError(f"{path}: no such file or folder")
    roots = {
        path: root for path, root in found.files.items() if _wanted(path, root, include, exclude)
    }
    named = {_absolute(path) for path in given}
    photos = [_raw(path, roots[path]) for path in roots if path.suffix.lower() in RAW_SUFFIXES]
    pictures = [path for path in roots if path.suffix.lower() in PAIR_SUFFIXES] if pairs else []
    found_pairs = find_pairs(pictures)
    paired = set()
    for pair in found_pairs.pairs:
        paired |= {pair.left, pair.right}
        root = roots[pair.left]
        below = _below(pair.folder, root)
        photos.append(Photo("pair", (pair.left, pair.right), pair.name, below, root.name))
    for half in found_pairs.lone:
        message = f"{half.name}: half of a pair, the other half is not there"
        found.others.append(NotAPhoto(half, False, "lone-half", message))
    for path in sorted(named & roots.keys() - paired - set(found_pairs.lone)):
        if path.suffix.lower() not in RAW_SUFFIXES:
            message = f"{path.name}: neither a raw file nor half of a left/right pair"
            found.others.append(NotAPhoto(path, False, "not-an-input", message))
    photos.sort(key=lambda photo: (photo.root, photo.folder, photo.stem, photo.paths))
    return Inputs(tuple(photos), tuple(found.others))


def jobs_of(
    photos: Iterable[Photo], out: Path, settings: Settings, suffixes: Sequence[str]
) -> tuple[Job, ...]:
    """Each photo with the files that it becomes: its name after the template, with every ending.

    Raises SettingsError where two photos would become the same file (also where only a file system
    that ignores case or Unicode composition says so), one would replace an input, or leave `out`.
    """
    model = Path(settings.restore.model).stem
    jobs = []
    for photo in photos:
        name = _name(photo, settings.output.template, model)
        outputs = tuple(out / f"{name}{suffix}" for suffix in suffixes)
        source = " + ".join(shown(path) for path in photo.paths)
        jobs.append(Job(outputs[0].relative_to(out).as_posix(), source, photo, outputs))
    _refuse_collisions(jobs)
    return tuple(jobs)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    takers = {_key(path): f"the input {path}" for job in jobs for path in job.photo.paths}
    collisions = []
    for job in jobs:
        for output in job.outputs:
            other = takers.setdefault(_key(_absolute(output)), job.name)
            if other != job.name:
                collisions.append(f"  {output}: {job} and {other}")
    if collisions:
        shown = collisions[:_COLLISIONS_SHOWN]
        more = len(collisions) - len(shown)
        raise SettingsError(
            "output names that are taken twice (on some systems case does not tell them apart); "
            "exclude the one or the other, or use --template, as in '{root}/{dir}/{stem}_{ext}':\n"
            + "\n".join(shown + [f"  and {more} more"] * bool(more))
        )


def _walk(root: Path, recursive: bool, hidden_out: str, found: _Found) -> None:
    """Adds what lies below `root`; links last, so that they add only what they alone reach."""
    base = _absolute(root)
    waiting: list[Path] = [base]
    links: list[Path] = []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(folder)
        if real in found.folders or (real == hidden_out and folder != base):
            continue
        found.folders.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            message = f"{folder.name}: cannot be listed: {error.strerror}"
            found.others.append(NotAPhoto(folder, True, "unreadable", message))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if _is_folder(entry):
                if recursive:
                    (links if entry.is_symlink() else waiting).append(path)
            elif path.suffix.lower() in _SUFFIXES:
                found.files.setdefault(path, base)


def _take(given: Path, files: Mapping[Path, FileStamp], out: Path | None, found: _Found) -> None:
    """Adds remote files: what `_walk` would find below `given`, or `given` itself."""
    if given in files:
        found.files.setdefault(given, given.parent)
        return
    for path in sorted(files):
        is_result = out is not None and out != given and path.is_relative_to(out)
        is_hidden = any(part.startswith(".") for part in path.relative_to(given).parts)
        if is_result or is_hidden or path.suffix.lower() not in _SUFFIXES:
            continue
        if files[path].size < 0:
            message = f"{files[path].path}: a name with empty or dotted parts cannot be a file's"
            found.others.append(NotAPhoto(path, True, "unreadable", message))
            continue
        found.files.setdefault(path, given)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where we may not look
        return False


def _wanted(path: Path, root: Path, include: Sequence[str], exclude: Sequence[str]) -> bool:
    names = (path.name.lower(), path.relative_to(root).as_posix().lower())

    def matches(globs: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob.lower()) for name in names for glob in globs)

    return (not include or matches(include)) and not matches(exclude)


def _raw(path: Path, root: Path) -> Photo:
    return Photo("raw", (path,), path.stem, _below(path.parent, root), root.name)


def _below(folder: Path, root: Path) -> str:
    """`folder` relative to `root`, with /; "" for the root and for what is not below it."""
    if folder == root or not folder.is_relative_to(root):
        return ""
    return folder.relative_to(root).as_posix()


def _name(photo: Photo, template: str, model: str) -> str:
    """A photo's output below the output folder, without its ending."""
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
    return name


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links)


def _key(path: Path) -> str:
    """Equal for paths that some file system holds for the same."""
    return unicodedata.normalize("NFC", str(path)).casefold()
