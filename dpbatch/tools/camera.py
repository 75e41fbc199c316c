"""Read the camera's metadata of a raw file as text."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import exifread

from dpbatch.errors import DamagedError, UnreadableError

# A CR2 takes some 50,000 reads of exifread, one for each byte of the MakerNote.
_MOST_READS = 200_000

# A field of Camera, and the tags of exifread and exiv2 that hold it, the better one first.
_EXIFREAD_NAMES = {
    "make": ("Image Make",),
    "model": ("Image Model",),
    "lens": ("EXIF LensModel", "MakerNote LensModel", "MakerNote LensType"),
    "serial": ("EXIF BodySerialNumber", "MakerNote SerialNumber"),
    "exposure": ("EXIF ExposureTime",),
    "aperture": ("EXIF FNumber",),
    "iso": ("EXIF RecommendedExposureIndex", "EXIF ISOSpeedRatings"),
    "focal_length": ("EXIF FocalLength",),
    "taken": ("EXIF DateTimeOriginal",),
}
_EXIV2_NAMES = {
    "make": ("Exif.Image.Make",),
    "model": ("Exif.Image.Model",),
    "lens": ("Exif.Photo.LensModel", "Exif.Canon.LensModel", "Exif.CanonCs.LensType"),
    "serial": ("Exif.Photo.BodySerialNumber", "Exif.Canon.SerialNumber"),
    "exposure": ("Exif.Photo.ExposureTime",),
    "aperture": ("Exif.Photo.FNumber",),
    "iso": ("Exif.Photo.RecommendedExposureIndex", "Exif.Photo.ISOSpeedRatings"),
    "focal_length": ("Exif.Photo.FocalLength",),
    "taken": ("Exif.Photo.DateTimeOriginal",),
}
_QUALITY = "Exif.CanonCs.Quality"


@dataclass(frozen=True)
class Camera:
    """The camera's metadata as text; a field is empty if the file has no readable value."""

    make: str = ""
    model: str = ""
    lens: str = ""
    serial: str = ""
    exposure: str = ""
    aperture: str = ""
    iso: str = ""
    focal_length: str = ""
    taken: str = ""

    @property
    def name(self) -> str:
        """Make and model; the models of Canon begin with the make."""
        own_name = self.model.startswith(self.make)
        return self.model if own_name else f"{self.make} {self.model}".strip()


def read_camera(path: Path, container_format: str) -> tuple[Camera, str]:
    """Return the camera and Canon's name of the quality ("RAW", "CRAW"; empty for a CR2).

    A CR2 is read by exifread; by exiv2 if it is another format, or if its tags claim more values
    than any camera writes. Raises UnreadableError and DamagedError.
    """
    if container_format == "cr2":
        try:
            return _camera(_read_cr2_tags(path), _EXIFREAD_NAMES), ""
        except _TooManyReadsError:
            pass
    from dpbatch.output.metadata import read_tags  # imports exiv2, which few CR2 need

    tags = read_tags(path)
    quality = "" if container_format == "cr2" else tags.get(_QUALITY, "")
    return _camera(tags, _EXIV2_NAMES), quality


class _TooManyReadsError(Exception):
    """A tag claims so many values that exifread would take hours."""


class _BoundedFile(io.BufferedReader):
    """A file that raises _TooManyReadsError after _MOST_READS reads.

    exifread reads one value after the other, as many as a tag claims, also past the file's end.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._reads_left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        """Read as any file does."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise _TooManyReadsError
        return super().read(size)


def _read_cr2_tags(path: Path) -> dict[str, str]:
    logging.getLogger("exifread").setLevel(logging.ERROR)  # it warns of every unknown tag
    try:
        with io.FileIO(path) as raw, _BoundedFile(raw) as file:
            tags = exifread.process_file(file, extract_thumbnail=False)
    except OSError as error:
        raise UnreadableError(f"{path.name}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        raise DamagedError(f"{path.name}: metadata not readable ({error})") from error
    text = {name: str(tag).strip() for name, tag in tags.items()}
    for name, form in (
        ("EXIF ExposureTime", "{} s"),
        ("EXIF FNumber", "f/{}"),
        ("EXIF FocalLength", "{} mm"),
    ):
        if name in text:
            text[name] = form.format(_short_number(text[name]))
    return text


def _short_number(ratio: str) -> str:
    """Return "14/5" as "2.8"; an exposure time such as 1/125 stays."""
    above, _, below = ratio.partition("/")
    if above == "1" or not (above.isdigit() and below.isdigit() and int(below)):
        return ratio
    return f"{int(above) / int(below):.3g}"


def _camera(tags: dict[str, str], names: dict[str, tuple[str, ...]]) -> Camera:
    def first(word: str) -> str:
        return next((tags[name] for name in names[word] if tags.get(name, "n/a") != "n/a"), "")

    found = {word: first(word) for word in names}
    if found["aperture"].startswith("F"):
        found["aperture"] = f"f/{found['aperture'][1:]}"
    found["focal_length"] = found["focal_length"].replace(".0 mm", " mm")
    return Camera(**found)
