"""Read XMP sidecars: what a photographer noted about a photo in another program.

The values of a sidecar replace those in the photo, since somebody entered them later. Develop
settings and the history of edits stay behind: another program would apply them to the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import exiv2

_MOST_BYTES = 16 << 20
_LISTS = (exiv2.TypeId.xmpBag, exiv2.TypeId.xmpSeq, exiv2.TypeId.xmpAlt)


@dataclass(frozen=True)
class _Counterparts:
    """Where EXIF and IPTC hold the value of an XMP property.

    exif: the tag that is written too, "" if none. stale: tags that would contradict the new value.
    """

    exif: str = ""
    stale: tuple[str, ...] = ()
    iptc: tuple[str, ...] = ()


_CARRIED = {
    "Xmp.xmp.Rating": _Counterparts("Exif.Image.Rating", ("Exif.Image.RatingPercent",)),
    "Xmp.xmp.Label": _Counterparts(),
    "Xmp.dc.subject": _Counterparts(
        stale=("Exif.Image.XPKeywords",), iptc=("Iptc.Application2.Keywords",)
    ),
    "Xmp.lr.hierarchicalSubject": _Counterparts(),
    "Xmp.dc.title": _Counterparts(
        stale=("Exif.Image.XPTitle",), iptc=("Iptc.Application2.ObjectName",)
    ),
    "Xmp.dc.description": _Counterparts(
        "Exif.Image.ImageDescription",
        ("Exif.Image.XPComment", "Exif.Image.XPSubject"),
        ("Iptc.Application2.Caption",),
    ),
    "Xmp.dc.creator": _Counterparts(
        "Exif.Image.Artist", ("Exif.Image.XPAuthor",), ("Iptc.Application2.Byline",)
    ),
    "Xmp.dc.rights": _Counterparts("Exif.Image.Copyright", iptc=("Iptc.Application2.Copyright",)),
    "Xmp.xmpRights.Marked": _Counterparts(),
    "Xmp.xmpRights.UsageTerms": _Counterparts(),
    "Xmp.xmpRights.WebStatement": _Counterparts(),
}


def sidecars_of(photo: Path) -> Iterator[Path]:
    """Yield the sidecars of a photo, the one that counts more last.

    NAME.xmp may belong to another file NAME too; NAME.CR2.xmp belongs to NAME.CR2 alone.
    """
    for stem in (photo.stem, photo.name):
        for suffix in (".xmp", ".XMP"):
            sidecar = photo.with_name(stem + suffix)
            if sidecar.is_file():
                yield sidecar
                break


def read_sidecar(sidecar: Path) -> exiv2.XmpData:
    """Return what of a sidecar goes into a result.

    Raises OSError, exiv2.Exiv2Error, and ValueError for a file that holds no XMP.
    """
    size = sidecar.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{size} bytes are too many for a sidecar")
    image = exiv2.ImageFactory.open(sidecar.read_bytes())
    if image.imageType() != exiv2.ImageType.xmp:
        raise ValueError("not an XMP file")
    image.readMetadata()
    if image.xmpData().empty():
        raise ValueError("no XMP found")
    carried = exiv2.XmpData()
    for datum in image.xmpData():
        if datum.key() in _CARRIED:
            carried.add(datum)
    return carried


def override(
    exif: exiv2.ExifData, iptc: exiv2.IptcData, xmp: exiv2.XmpData, sidecar: exiv2.XmpData
) -> None:
    """Put the values of a sidecar into a photo's metadata, in place of those that it has."""
    for datum in sidecar:
        counterparts = _CARRIED[datum.key()]
        _erase(xmp, datum.key())
        xmp.add(datum)
        for key in (counterparts.exif, *counterparts.stale):
            _erase(exif, key)
        for key in counterparts.iptc:
            _erase(iptc, key)
        if counterparts.exif == "Exif.Image.Rating":
            stars = datum.toString()
            if stars in ("0", "1", "2", "3", "4", "5"):  # -1, rejected, is known to XMP alone
                exif[counterparts.exif] = exiv2.UShortValue(int(stars))
        elif counterparts.exif:
            exif[counterparts.exif] = _text(datum)


def _text(datum: exiv2.Xmpdatum) -> str:
    """Return the text of a property, of several languages the default one."""
    value = datum.value()
    if datum.typeId() == exiv2.TypeId.langAlt:
        texts = dict(value)
        return str(texts.get("x-default", next(iter(texts.values()), "")))
    return "; ".join(value) if datum.typeId() in _LISTS else str(datum.toString())


def _erase(data: exiv2.ExifData | exiv2.IptcData | exiv2.XmpData, key: str) -> None:
    """Remove every entry of a key; an empty key has none."""
    while key and key in data:
        del data[key]
