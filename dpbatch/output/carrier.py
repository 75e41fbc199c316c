"""The tags that hold for any rendering of a photo, stored in a TIFF without pixels.

Such a carrier can be pickled, and it holds EXIF, GPS, MakerNote, IPTC and XMP alike. Only this
module, `metadata` and `sidecar` import exiv2.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable

import exiv2

from dpbatch.output.sidecar import override

# RDF requires a separator at the end of a name space.
XMP_NAMESPACE = "urn:dpbatch:xmp:1.0#"

# One directory without entries. exiv2 needs at least 24 bytes to recognise a TIFF.
_EMPTY_TIFF = b"II*\0" + (8).to_bytes(4, "little") + bytes(56)

# The tags of IFD0 that describe the photo. All others (sizes, strips, profiles, private data with
# offsets) describe the source file and would be wrong in the result.
_IMAGE_TAGS = re.compile(
    r"DocumentName|ImageDescription|Make|Model|DateTime|Artist|HostComputer|Copyright|Rating|"
    r"RatingPercent|ImageNumber|ImageHistory|TimeZoneOffset|DateTimeOriginal|XPTitle|"
    r"XPComment|XPAuthor|XPKeywords|XPSubject|CameraSerialNumber|LensInfo|OriginalRawFileName|"
    r"ProcessingSoftware|PrintImageMatching|UniqueCameraModel"
)
# Other pages and thumbnails; Iop names the colour space of the source; MakerNote is where exiv2
# notes the position of the maker's own.
_FOREIGN_GROUPS = re.compile(
    r"Image\d+|SubImage\d+|SubThumb\d+|Thumbnail|Iop|MpfInfo|PanasonicRaw|MakerNote"
)
_PHOTO_TAGS_OF_THE_FILE = re.compile(
    r"ColorSpace|PixelXDimension|PixelYDimension|ComponentsConfiguration|"
    r"CompressedBitsPerPixel|Gamma|InteroperabilityTag|RelatedSoundFile"
)
# exiv2 derives these from the AFInfo array while reading, and would write them as real tags.
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


def open_image(encoded: bytes) -> exiv2.Image:
    """Return a file in memory with its metadata read. Raises exiv2.Exiv2Error."""
    _prepare()
    image = exiv2.ImageFactory.open(_without_trailer(encoded))
    image.readMetadata()
    return image


def _without_trailer(encoded: bytes) -> bytes:
    """Return a CR3 without the bytes behind its last box, which exiv2 refuses; others as given."""
    if encoded[4:12] != b"ftypcrx ":
        return encoded
    at = 0
    while at + 16 <= len(encoded):
        length = int.from_bytes(encoded[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(encoded[at + 8 : at + 16], "big")
        if length < 8 or at + length > len(encoded):
            break
        at += length
    return encoded[:at] if at < len(encoded) else encoded


def is_carried(datum: exiv2.Exifdatum) -> bool:
    """Return whether an EXIF tag describes the photo and not its file."""
    group = datum.groupName()
    if group == "Image":
        return _IMAGE_TAGS.fullmatch(datum.tagName()) is not None
    if group == "Photo":
        return _PHOTO_TAGS_OF_THE_FILE.fullmatch(datum.tagName()) is None
    if group == "Canon" and datum.tag() in _CANON_AF_DERIVED:
        return False
    return _FOREIGN_GROUPS.fullmatch(group) is None


def carrier_of(
    source: exiv2.Image, sidecars: Iterable[exiv2.XmpData] = ()
) -> tuple[bytes, list[str]]:
    """Return the carrier of a file's metadata, b"" if it has none, and the keys left out.

    sidecars: values that replace those of the file, the ones that count more last.
    A tag is left out, instead of the whole photo failing, if exiv2 cannot encode it.
    """
    exif = _exif_of(datum for datum in source.exifData() if is_carried(datum))
    xmp = exiv2.XmpData()
    for datum in source.xmpData():
        if not _XMP_OF_THE_FILE.fullmatch(datum.key()):
            xmp.add(datum)
    iptc = source.iptcData()
    for sidecar in sidecars:
        override(exif, iptc, xmp, sidecar)
    if exif.empty() and iptc.empty() and xmp.empty():
        return b"", []
    try:
        return encode(exif, iptc, xmp), []
    except exiv2.Exiv2Error:
        exif, dropped = _encodable(exif)
        if not _encodes(iptc=iptc):
            iptc = exiv2.IptcData()
            dropped.append("IPTC")
        if not _encodes(xmp=xmp):
            xmp = exiv2.XmpData()
            dropped.append("XMP")
        return encode(exif, iptc, xmp), dropped


def encode(exif: exiv2.ExifData, iptc: exiv2.IptcData, xmp: exiv2.XmpData) -> bytes:
    """Return a TIFF without pixels that holds the metadata. Raises exiv2.Exiv2Error."""
    carrier = open_image(_EMPTY_TIFF)
    carrier.setExifData(exif)
    carrier.setIptcData(iptc)
    carrier.setXmpData(xmp)
    carrier.writeMetadata()
    return bytes(carrier.data())


def _encodable(exif: exiv2.ExifData) -> tuple[exiv2.ExifData, list[str]]:
    """Return the tags that can be encoded together, and the keys of the others."""
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
        encode(exif or exiv2.ExifData(), iptc or exiv2.IptcData(), xmp or exiv2.XmpData())
    except exiv2.Exiv2Error:
        return False
    return True


@functools.cache
def _prepare() -> None:
    """Register the dpbatch name space and silence exiv2, once a process.

    exiv2 sends its messages to Python's logging, where a program that configures logging sees them.
    """
    logging.getLogger("exiv2").addHandler(logging.NullHandler())
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.error)
    exiv2.XmpParser.initialize()
    exiv2.XmpProperties.registerNs(XMP_NAMESPACE, "dpbatch")
