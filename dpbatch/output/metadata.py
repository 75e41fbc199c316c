"""Camera metadata from the source into the result.

Files are read and written in memory: the errors of the operating system (a full disk) then reach
Python, and file names need no encoding for exiv2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import exiv2

from dpbatch.errors import OutputError, UnreadableError
from dpbatch.output.carrier import carrier_of, is_carried, open_image
from dpbatch.output.color_spaces import icc_profile
from dpbatch.output.late_tag import Buffer, LateTag
from dpbatch.output.sidecar import read_sidecar, sidecars_of

_LONGEST_TEXT = 300
_DNG_VERSION = "Exif.Image.DNGVersion"


@dataclass(frozen=True)
class PhotoMetadata:
    """The metadata of a source file, ready for another file and another process.

    carrier: a TIFF without pixels with the EXIF, GPS, MakerNote, IPTC and XMP that hold for any
        rendering of the photo; empty if the source has none.
    pixels_per_inch: resolution of the source; 72, the default of EXIF, if it names none.
    problem: what could not be read or carried over, for the user, without the file's name; empty if
        nothing.
    """

    carrier: bytes = b""
    pixels_per_inch: float = 72.0
    problem: str = ""


@dataclass(frozen=True)
class ProcessingNote:
    """How a result was made, for its XMP. An empty text is left out of the file.

    source: file name of the source, or the two names of a pair.
    source_blake2b: hash of the source's content, or the two hashes of a pair.
    settings: the settings in one line.
    fingerprint: equal for results that need not be made again; see `BatchStages`.
    rescued: what of the photo was restored, or drawn anew, in words; "" for everything.
    """

    version: str
    source: str = ""
    model: str = ""
    weights_sha256: str = ""
    settings: str = ""
    source_blake2b: str = ""
    fingerprint: str = ""
    rescued: str = ""


@dataclass(frozen=True)
class Written:
    """A result that was written. blake2b: the hash of its content, 16 bytes as hex digits.

    warnings: see `dpbatch.types.Saved`. rescued: see `ProcessingNote`.
    """

    blake2b: str
    warnings: tuple[str, ...] = ()
    rescued: str = ""


_NOTE_NAMES = {
    "version": "Version",
    "source": "Source",
    "model": "Model",
    "weights_sha256": "WeightsSHA256",
    "settings": "Settings",
    "source_blake2b": "SourceBLAKE2b",
    "fingerprint": "Fingerprint",
    "rescued": "Rescued",
}
"""What the fields of a note are called in the dpbatch name space of the XMP."""


def read_metadata(path: Path) -> PhotoMetadata:
    """Return the metadata of a CR2, CR3, TIFF, PNG or JPEG, with that of its XMP sidecars.

    What exiv2 cannot read, or cannot write again, is told in `problem`. Raises UnreadableError
    where the file itself cannot be read: it was removed, or its disk was.
    """
    try:
        source = open_image(path.read_bytes())
        sidecars, problems = _read_sidecars(path)
        carrier, dropped = carrier_of(source, sidecars)
        if dropped:
            problems.append(f"metadata not carried over: {', '.join(dropped)}")
        resolution = _pixels_per_inch(source.exifData())
        return PhotoMetadata(carrier, resolution, "; ".join(problems))
    except OSError as error:
        raise UnreadableError(
            f"{path.name}: metadata not read: {error.strerror}; run again once the file is there"
        ) from error
    except exiv2.Exiv2Error as error:
        return PhotoMetadata(problem=f"metadata not read: {error.message}")


def _read_sidecars(path: Path) -> tuple[list[exiv2.XmpData], list[str]]:
    """Return the readable sidecars of a photo, and what is wrong with the others."""
    sidecars, problems = [], []
    for sidecar in sidecars_of(path):
        try:
            sidecars.append(read_sidecar(sidecar))
        except (OSError, ValueError, exiv2.Exiv2Error) as error:
            reason = error.message if isinstance(error, exiv2.Exiv2Error) else error
            problems.append(f"{sidecar.name}: sidecar not read: {reason}")
    return sidecars, problems


def read_note(path: Path) -> ProcessingNote | None:
    """Return how a result was made, None for a file that dpbatch did not make. Raises OSError."""
    try:
        xmp = open_image(path.read_bytes()).xmpData()
    except exiv2.Exiv2Error:
        return None
    keys = {name: f"Xmp.dpbatch.{xmp_name}" for name, xmp_name in _NOTE_NAMES.items()}
    texts = {name: xmp[key].toString() for name, key in keys.items() if key in xmp}
    return ProcessingNote(**texts) if "version" in texts else None


def read_tags(path: Path) -> dict[str, str]:
    """Return every EXIF, MakerNote, IPTC and XMP tag as text, e.g. "Exif.Photo.FNumber": "F2.8".

    The values of a key that occurs more than once are joined by ", "; long tables of numbers are
    shortened. Raises UnreadableError.
    """
    try:
        source = open_image(path.read_bytes())
        tags: dict[str, str] = {}
        for data in (source.exifData(), source.iptcData(), source.xmpData()):
            for datum in data:
                key = datum.key()
                try:
                    text = datum.print(source.exifData())
                except exiv2.Exiv2Error as error:
                    text = f"({error.message})"
                text = text.encode(errors="surrogateescape").decode(errors="replace")
                if len(text) > _LONGEST_TEXT:
                    text = f"{text[:_LONGEST_TEXT]}..."
                tags[key] = f"{tags[key]}, {text}" if key in tags else text
        return tags
    except OSError as error:
        raise UnreadableError(f"{path}: could not be read: {error.strerror}") from error
    except exiv2.Exiv2Error as error:
        raise UnreadableError(
            f"{path}: metadata not readable ({error.message}); expected a CR2, CR3, TIFF, PNG or "
            "JPEG"
        ) from error


def write_with_metadata(
    path: Path,
    encoded: bytes,
    metadata: PhotoMetadata,
    note: ProcessingNote,
    *,
    width: int,
    height: int,
    orientation: int = 1,
    properties: Mapping[str, str] | None = None,
    late_tag: LateTag | None = None,
) -> Written:
    """Write an encoded picture to `path`, with the metadata and the note in it.

    encoded: a whole TIFF, PNG, JPEG or DNG file of width x height pixels.
    orientation: the EXIF tag that turns the pixels upright; 1 if they are.
    properties: further texts for the dpbatch name space of the XMP.
    late_tag: put into the TIFF at the end.

    If exiv2 cannot write the metadata, the result carries the note alone, with a warning. Raises
    OutputError if it cannot write the note either, and OSError.
    """
    warnings: tuple[str, ...] = (metadata.problem,) if metadata.problem else ()
    try:
        try:
            result, lost = embed(
                encoded, metadata, note, (width, height), orientation, properties or {}
            )
        except exiv2.Exiv2Error as error:
            if not metadata.carrier:
                raise
            warnings += (f"metadata not written: {error.message}",)
            empty = PhotoMetadata()
            result, lost = embed(
                encoded, empty, note, (width, height), orientation, properties or {}
            )
    except exiv2.Exiv2Error as error:
        raise OutputError(f"{note.source}: metadata not written: {error.message}") from error
    if lost:
        warnings += (f"metadata too large for a JPEG, left out: {', '.join(lost)}",)
    # data() is a view of the memory of `result`, which must be alive here.
    content = result.data()
    pieces = [content] if late_tag is None else late_tag.put_into(content)
    with ThreadPoolExecutor(max_workers=1) as hashing:  # neither holds Python's lock
        checksum = hashing.submit(_checksum, pieces)
        path.write_bytes(pieces[0])
        if len(pieces) > 1:
            with path.open("ab") as file:
                file.writelines(pieces[1:])
        return Written(checksum.result(), warnings)


def _checksum(pieces: Sequence[Buffer]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


def embed(
    encoded: bytes,
    metadata: PhotoMetadata,
    note: ProcessingNote,
    size: tuple[int, int],
    orientation: int,
    properties: Mapping[str, str],
) -> tuple[exiv2.Image, list[str]]:
    """Return the file in memory with the metadata in it, and the keys of EXIF tags left out.

    Arguments as in `write_with_metadata`; size: (width, height). exiv2 leaves out large tags where
    the EXIF would exceed the 64 KiB that a JPEG allows. Raises exiv2.Exiv2Error.
    """
    result = open_image(encoded)
    exif, xmp = result.exifData(), result.xmpData()
    is_dng = _DNG_VERSION in exif
    if metadata.carrier:
        _copy_carried(open_image(metadata.carrier), result)
    tool = f"dpbatch {note.version}"
    exif["Exif.Image.Orientation"] = exiv2.UShortValue(orientation)
    exif["Exif.Image.Software"] = tool
    is_jpeg = result.imageType() == exiv2.ImageType.jpeg
    if is_jpeg:  # mandatory there: Y, Cb, Cr, none; samples at the centre of the pixels
        exif["Exif.Photo.ComponentsConfiguration"] = exiv2.DataValue(b"\1\2\3\0")
        exif["Exif.Image.YCbCrPositioning"] = exiv2.UShortValue(1)
    if result.imageType() != exiv2.ImageType.tiff:  # a TIFF has its resolution in its own tags
        resolution = Fraction(metadata.pixels_per_inch).limit_denominator(1000)
        for key in ("XResolution", "YResolution"):
            exif[f"Exif.Image.{key}"] = exiv2.URationalValue(
                [(resolution.numerator, resolution.denominator)]
            )
        exif["Exif.Image.ResolutionUnit"] = exiv2.UShortValue(2)
    exif["Exif.Photo.PixelXDimension"] = exiv2.ULongValue(size[0])
    exif["Exif.Photo.PixelYDimension"] = exiv2.ULongValue(size[1])
    if not is_dng:  # whose colours are the camera's
        is_srgb = bytes(result.iccProfile().data()) == icc_profile("srgb")
        exif["Exif.Photo.ColorSpace"] = exiv2.UShortValue(1 if is_srgb else 0xFFFF)
    for key, mandatory in (("ExifVersion", b"0232"), ("FlashpixVersion", b"0100")):
        if f"Exif.Photo.{key}" not in exif:
            exif[f"Exif.Photo.{key}"] = exiv2.DataValue(mandatory)
    xmp["Xmp.tiff.Orientation"] = str(orientation)
    xmp["Xmp.xmp.CreatorTool"] = tool
    xmp["Xmp.dc.format"] = "image/x-adobe-dng" if is_dng else result.mimeType()
    texts = {xmp_name: getattr(note, name) for name, xmp_name in _NOTE_NAMES.items()}
    texts |= properties
    for name, text in texts.items():
        if text:
            xmp[f"Xmp.dpbatch.{name}"] = _printable(text)
    wanted = {datum.key() for datum in exif}
    result.writeMetadata()
    if not is_jpeg:
        return result, []
    written = open_image(bytes(result.data()))
    return result, sorted(wanted - {datum.key() for datum in written.exifData()})


def _copy_carried(source: exiv2.Image, result: exiv2.Image) -> None:
    """Copy what holds for any rendering; tags that the result has already stay as they are."""
    own = {datum.key() for datum in result.exifData()}
    for datum in source.exifData():
        if is_carried(datum) and datum.key() not in own:
            result.exifData().add(datum)
    for datum in source.iptcData():
        result.iptcData().add(datum)
    for datum in source.xmpData():
        result.xmpData().add(datum)


def _pixels_per_inch(exif: exiv2.ExifData) -> float:
    resolution = _number(exif, "Exif.Image.XResolution")
    unit = _number(exif, "Exif.Image.ResolutionUnit")
    if unit == 3:  # centimetres; 2, or no tag, are inches
        resolution *= 2.54
    if unit == 1 or not 1 <= resolution <= 100_000:  # no unit, or not a resolution
        return PhotoMetadata.pixels_per_inch
    return round(resolution, 2)  # 300 dpi in centimetres are 118.11


def _number(exif: exiv2.ExifData, key: str) -> float:
    """Return a tag's value, 0 if the tag is missing or, in a damaged file, empty."""
    return float(exif[key].toFloat()) if key in exif and exif[key].count() else 0.0


def _printable(text: str) -> str:
    """Replace control characters and undecodable bytes, which file names may have and XML not."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
