"""Camera metadata from the source into the result. The only file that imports exiv2.

The metadata travels as a TIFF without pixels (`PhotoMetadata.carrier`), which any process can
unpickle and which holds EXIF, GPS, MakerNote, IPTC and XMP alike. Files are read and written in
memory: the operating system's errors (a full disk) then reach Python, and names need no encoding.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import exiv2

from dpbatch.errors import OutputError, UnreadableError

# RDF wants the name space to end in a separator.
XMP_NAMESPACE = "urn:dpbatch:xmp:1.0#"

_LONGEST_TEXT = 300

# One directory without entries; exiv2 wants at least some 24 bytes to tell what it is.
_EMPTY_TIFF = b"II*\0" + (8).to_bytes(4, "little") + bytes(56)

# What IFD0 says about the photo. All else there (sizes, strips, profiles, private data with
# offsets) describes the source file and would be wrong in the result.
_IMAGE_TAGS = re.compile(
    r"DocumentName|ImageDescription|Make|Model|DateTime|Artist|HostComputer|Copyright|Rating|"
    r"RatingPercent|ImageNumber|ImageHistory|TimeZoneOffset|DateTimeOriginal|XPTitle|"
    r"XPComment|XPAuthor|XPKeywords|XPSubject|CameraSerialNumber|LensInfo|OriginalRawFileName|"
    r"ProcessingSoftware|PrintImageMatching|UniqueCameraModel"
)
# Other pages and thumbnails; the interoperability group names the source's colour space; MakerNote
# holds exiv2's notes on where it found the maker's.
_FOREIGN_GROUPS = re.compile(
    r"Image\d+|SubImage\d+|SubThumb\d+|Thumbnail|Iop|MpfInfo|PanasonicRaw|MakerNote"
)
_PHOTO_TAGS_OF_THE_FILE = re.compile(
    r"ColorSpace|PixelXDimension|PixelYDimension|ComponentsConfiguration|"
    r"CompressedBitsPerPixel|Gamma|InteroperabilityTag|RelatedSoundFile"
)
# Tags that exiv2 makes up while reading the maker's AFInfo array, and would write as real ones.
_CANON_AF_DERIVED = range(0x2600, 0x2700)
# XMP that describes the source file, or edits that a program would apply to the result once more.
_XMP_OF_THE_FILE = re.compile(
    r"Xmp\.tiff\.(ImageWidth|ImageLength|BitsPerSample|Compression|PhotometricInterpretation|"
    r"SamplesPerPixel|PlanarConfiguration|YCbCr\w+|Orientation|NativeDigest)|"
    r"Xmp\.exif\.(PixelXDimension|PixelYDimension|ColorSpace|ComponentsConfiguration|"
    r"CompressedBitsPerPixel|NativeDigest)|"
    r"Xmp\.xmp\.(Thumbnails|CreatorTool).*|Xmp\.dc\.format|Xmp\.photoshop\.ICCProfile|"
    r"Xmp\.xmpMM\.(DocumentID|InstanceID)|Xmp\.(crs|dpbatch)\..*"
)


@dataclass(frozen=True)
class PhotoMetadata:
    """What a source file says about its photo, ready for another file and another process.

    carrier: a TIFF without pixels with the EXIF, GPS, MakerNote, IPTC and XMP that hold for any
        rendering of the photo; empty where the source has none.
    pixels_per_inch: the source's resolution; 72 where it names none, as EXIF has it.
    problem: what could not be read or carried, for the user; empty where all went well.
    """

    carrier: bytes = b""
    pixels_per_inch: float = 72.0
    problem: str = ""


@dataclass(frozen=True)
class ProcessingNote:
    """What was done, for the result's XMP. An empty text is left out of the file."""

    version: str
    source: str = ""
    """The source's file name, or the two names of a pair."""
    model: str = ""
    weights_sha256: str = ""
    settings: str = ""
    """The settings' fingerprint or summary, as the journal has it."""


def read_metadata(path: Path) -> PhotoMetadata:
    """The metadata of a CR2, CR3, TIFF, PNG or JPEG.

    Never fails a photo: what exiv2 cannot read, or cannot write again, is named in `problem`.
    """
    try:
        source = _open(path.read_bytes())
        return _carry(source, path)
    except OSError as error:
        return PhotoMetadata(problem=f"{path.name}: metadata not read: {error.strerror}")
    except exiv2.Exiv2Error as error:
        return PhotoMetadata(problem=f"{path.name}: metadata not read: {error.message}")


def read_tags(path: Path) -> dict[str, str]:
    """Every EXIF, MakerNote, IPTC and XMP tag as readable text, e.g. "Exif.Photo.FNumber": "F2.8".

    A key that occurs more than once has its values joined by ", "; tables of numbers are cut short.
    Raises UnreadableError.
    """
    try:
        source = _open(path.read_bytes())
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
    encoded: bytes | memoryview,
    metadata: PhotoMetadata,
    note: ProcessingNote,
    *,
    width: int,
    height: int,
    orientation: int = 1,
    properties: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Write an encoded picture to `path`, with the metadata and the note in it.

    encoded: a whole TIFF or PNG file whose pixels are width x height; where it has an ICC profile,
        that is taken to be sRGB.
    orientation: the EXIF tag that turns the pixels upright, 1 where they are.
    properties: further texts for the dpbatch name space of the XMP.

    Returns warnings: a photo is not lost because its metadata does not encode, the result then
    carries the note alone. Raises OutputError where not even that is possible, and OSError.
    """
    warnings: tuple[str, ...] = (metadata.problem,) if metadata.problem else ()
    try:
        try:
            result = _embed(encoded, metadata, note, (width, height), orientation, properties or {})
        except exiv2.Exiv2Error as error:
            if not metadata.carrier:
                raise
            warnings += (f"{note.source}: metadata not written: {error.message}",)
            empty = PhotoMetadata()
            result = _embed(encoded, empty, note, (width, height), orientation, properties or {})
    except exiv2.Exiv2Error as error:
        raise OutputError(f"{note.source}: metadata not written: {error.message}") from error
    # While `result` lives: the view is on its memory.
    path.write_bytes(result.data())
    return warnings


def _embed(
    encoded: bytes | memoryview,
    metadata: PhotoMetadata,
    note: ProcessingNote,
    size: tuple[int, int],
    orientation: int,
    properties: Mapping[str, str],
) -> exiv2.Image:
    """The file in memory, with its metadata. size: (width, height)."""
    result = _open(encoded)
    exif, xmp = result.exifData(), result.xmpData()
    if metadata.carrier:
        source = _open(metadata.carrier)
        for datum in source.exifData():
            if _is_carried(datum):
                exif.add(datum)
        for datum in source.iptcData():
            result.iptcData().add(datum)
        for datum in source.xmpData():
            xmp.add(datum)
    tool = f"dpbatch {note.version}"
    exif["Exif.Image.Orientation"] = exiv2.UShortValue(orientation)
    exif["Exif.Image.Software"] = tool
    if result.imageType() != exiv2.ImageType.tiff:  # there the file's own structure has it
        resolution = Fraction(metadata.pixels_per_inch).limit_denominator(1000)
        for key in ("XResolution", "YResolution"):
            exif[f"Exif.Image.{key}"] = exiv2.URationalValue(
                [(resolution.numerator, resolution.denominator)]
            )
        exif["Exif.Image.ResolutionUnit"] = exiv2.UShortValue(2)
    exif["Exif.Photo.PixelXDimension"] = exiv2.ULongValue(size[0])
    exif["Exif.Photo.PixelYDimension"] = exiv2.ULongValue(size[1])
    has_profile = result.iccProfileDefined()
    exif["Exif.Photo.ColorSpace"] = exiv2.UShortValue(1 if has_profile else 0xFFFF)
    for key, mandatory in (("ExifVersion", b"0232"), ("FlashpixVersion", b"0100")):
        if f"Exif.Photo.{key}" not in exif:
            exif[f"Exif.Photo.{key}"] = exiv2.DataValue(mandatory)
    xmp["Xmp.tiff.Orientation"] = str(orientation)
    xmp["Xmp.xmp.CreatorTool"] = tool
    xmp["Xmp.dc.format"] = result.mimeType()
    texts = {
        "Version": note.version,
        "Source": note.source,
        "Model": note.model,
        "WeightsSHA256": note.weights_sha256,
        "Settings": note.settings,
        **properties,
    }
    for name, text in texts.items():
        if text:
            xmp[f"Xmp.dpbatch.{name}"] = _printable(text)
    result.writeMetadata()
    return result


def _carry(source: exiv2.Image, path: Path) -> PhotoMetadata:
    """What of the source holds for any rendering, as a TIFF without pixels."""
    exif = exiv2.ExifData()
    for datum in source.exifData():
        if _is_carried(datum):
            exif.add(datum)
    xmp = exiv2.XmpData()
    for datum in source.xmpData():
        if not _XMP_OF_THE_FILE.fullmatch(datum.key()):
            xmp.add(datum)
    iptc = source.iptcData()
    if exif.empty() and iptc.empty() and xmp.empty():
        return PhotoMetadata()
    pixels_per_inch = _pixels_per_inch(source.exifData())
    try:
        return PhotoMetadata(_encode(exif, iptc, xmp), pixels_per_inch)
    except exiv2.Exiv2Error:
        exif, dropped = _encodable(exif)
        if not _encodes(iptc=iptc):
            iptc = exiv2.IptcData()
            dropped.append("IPTC")
        if not _encodes(xmp=xmp):
            xmp = exiv2.XmpData()
            dropped.append("XMP")
        problem = f"{path.name}: metadata not carried over: {', '.join(dropped)}"
        return PhotoMetadata(_encode(exif, iptc, xmp), pixels_per_inch, problem)


def _is_carried(datum: exiv2.Exifdatum) -> bool:
    group = datum.groupName()
    if group == "Image":
        return _IMAGE_TAGS.fullmatch(datum.tagName()) is not None
    if group == "Photo":
        return _PHOTO_TAGS_OF_THE_FILE.fullmatch(datum.tagName()) is None
    if group == "Canon" and datum.tag() in _CANON_AF_DERIVED:
        return False
    return _FOREIGN_GROUPS.fullmatch(group) is None


def _pixels_per_inch(exif: exiv2.ExifData) -> float:
    resolution = _number(exif, "Exif.Image.XResolution")
    unit = _number(exif, "Exif.Image.ResolutionUnit")
    if unit == 3:  # centimetres; 2, or no tag, are inches
        resolution *= 2.54
    if unit == 1 or not 1 <= resolution <= 100_000:  # no unit, or nonsense
        return PhotoMetadata.pixels_per_inch
    return round(resolution, 2)  # 300 dpi noted in centimetres are 118.11


def _number(exif: exiv2.ExifData, key: str) -> float:
    """0 where the tag is missing or, in a damaged file, empty."""
    return float(exif[key].toFloat()) if key in exif and exif[key].count() else 0.0


def _encodable(exif: exiv2.ExifData) -> tuple[exiv2.ExifData, list[str]]:
    """The tags that can be encoded together, and the keys of those that cannot."""
    kept: list[exiv2.Exifdatum] = []
    dropped: list[str] = []
    for datum in exif:
        if _encodes(exif=_exif_of([*kept, datum])):
            kept.append(datum)
        else:
            dropped.append(datum.key())
    return _exif_of(kept), dropped


def _exif_of(datums: Iterable[exiv2.Exifdatum]) -> exiv2.ExifData:
    exif = exiv2.ExifData()
    for datum in datums:
        exif.add(datum)
    return exif


def _encodes(
    exif: exiv2.ExifData | None = None,
    iptc: exiv2.IptcData | None = None,
    xmp: exiv2.XmpData | None = None,
) -> bool:
    try:
        _encode(exif or exiv2.ExifData(), iptc or exiv2.IptcData(), xmp or exiv2.XmpData())
    except exiv2.Exiv2Error:
        return False
    return True


def _encode(exif: exiv2.ExifData, iptc: exiv2.IptcData, xmp: exiv2.XmpData) -> bytes:
    carrier = _open(_EMPTY_TIFF)
    carrier.setExifData(exif)
    carrier.setIptcData(iptc)
    carrier.setXmpData(xmp)
    carrier.writeMetadata()
    return bytes(carrier.data())


def _open(encoded: bytes | memoryview) -> exiv2.Image:
    """An image in memory with its metadata read."""
    _prepare()
    image = exiv2.ImageFactory.open(encoded)
    image.readMetadata()
    return image


def _printable(text: str) -> str:
    """Without control characters and undecodable bytes, which a file name may have and XML not."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


@functools.cache
def _prepare() -> None:
    """Once a process: our name space, and no chatter on the terminal.

    exiv2 hands its remarks to Python's logging; a program that configures logging still sees them.
    """
    logging.getLogger("exiv2").addHandler(logging.NullHandler())
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.error)
    exiv2.XmpParser.initialize()
    exiv2.XmpProperties.registerNs(XMP_NAMESPACE, "dpbatch")
