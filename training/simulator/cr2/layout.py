"""Write the IFDs of a CR2 file around its raw frames: preview, EXIF, GPS, IPTC, XMP, MakerNote.

Tag numbers follow TIFF 6.0, EXIF 2.3 and, for the MakerNote, what exiftool and LibRaw read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.simulator.cr2.ifd import (
    BYTE,
    LONG,
    UNDEFINED,
    Field,
    blob,
    directory,
    longs,
    rationals,
    shorts,
    text,
)

Rggb = tuple[float, float, float, float]
Rgb8 = npt.NDArray[np.uint8]

EOS_5D_MARK_IV_ID = 0x80000349
_COLOR_DATA_COUNT, _COLOR_DATA_VERSION = 1592, 13
_LARGEST_SHORT = 0xFFFF
_THUMBNAIL_LONG_SIDE, _SMALL_LONG_SIDE = 160, 96


@dataclass(frozen=True)
class CameraTags:
    """The metadata that the camera writes.

    gps: (latitude, longitude) in degrees, north and east positive. rating goes into the XMP packet,
    caption into the IPTC block (none is written when it is empty).
    """

    model: str = "Canon EOS 5D Mark IV"
    model_id: int = EOS_5D_MARK_IV_ID
    orientation: int = 1
    exposure_time_s: float = 1 / 125
    f_number: float = 2.8
    iso: int = 100
    focal_length_mm: float = 50.0
    lens_model: str = "EF50mm f/1.4 USM"
    serial: str = "025021000537"
    taken: datetime = datetime(2024, 5, 17, 10, 42, 7)
    artist: str = "Test Photographer"
    copyright: str = "CC0"
    gps: tuple[float, float] | None = None
    rating: int = 0
    caption: str = ""


@dataclass(frozen=True)
class ActiveArea:
    """The light-sensitive rectangle inside a full mosaic, in px."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class RawLevels:
    """The MakerNote's values for the composite frame; size is (width, height) with borders."""

    size: tuple[int, int]
    active: ActiveArea
    wb_rggb: Rggb
    black_level: int
    white_level: int


@dataclass(frozen=True)
class Frame:
    """A raw frame as a lossless JPEG stream, and the widths in px of its two vertical slices."""

    stream: bytes
    slice_widths_px: tuple[int, int]


_Places = dict[str, int]
_Block = tuple[str, Callable[[_Places], bytes]]


def write_layout(
    path: Path, frames: Sequence[Frame], levels: RawLevels, tags: CameraTags, preview_rgb: Rgb8
) -> None:
    """Write the whole file. preview_rgb: (h, w, 3) uint8 sRGB, stored as it is."""
    blocks = _metadata_blocks(tags, preview_rgb, levels, len(frames))
    for number, frame in enumerate(frames, 3):
        following = f"ifd{number + 1}" if number < len(frames) + 2 else None
        blocks += _frame_blocks(f"ifd{number}", frame, following)

    # The length of a block does not depend on where the others lie: one pass measures, one writes.
    nowhere = {name: 0 for name, _ in blocks}
    places, at = {}, 0
    for name, build in blocks:
        places[name] = at
        at += len(build(nowhere)) + 1 & ~1
    with path.open("wb") as file:
        for _, build in blocks:
            block = build(places)
            file.write(block + b"\0" * (len(block) & 1))


def shrunk(picture: Rgb8, long_side: int) -> Rgb8:
    """Scale a picture down to a long side of at most `long_side` px."""
    height, width = picture.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _metadata_blocks(
    tags: CameraTags, preview_rgb: Rgb8, levels: RawLevels, frame_count: int
) -> list[_Block]:
    preview = _jpeg(preview_rgb)
    thumbnail = _jpeg(shrunk(preview_rgb, _THUMBNAIL_LONG_SIDE))
    small = shrunk(preview_rgb, _SMALL_LONG_SIDE)
    raw_ifd = "ifd3" if frame_count else "ifd2"

    def maker_note(places: _Places) -> bytes:
        return directory(_maker_note(tags, levels, frame_count), places["maker note"], 0)

    maker_note_size = len(maker_note({"maker note": 0}))

    def ifd0(places: _Places) -> bytes:
        fields = _ifd0(tags, preview_rgb.shape, len(preview), places)
        return directory(fields, places["ifd0"], places["ifd1"])

    def exif(places: _Places) -> bytes:
        fields = _exif(tags, levels.active, maker_note_size, places)
        return directory(fields, places["exif"], 0)

    def ifd1(places: _Places) -> bytes:
        fields = [longs(0x201, places["thumbnail"]), longs(0x202, len(thumbnail))]
        return directory(fields, places["ifd1"], places["ifd2"])

    def ifd2(places: _Places) -> bytes:
        fields = _small_picture(small, places["small"])
        return directory(fields, places["ifd2"], places.get(raw_ifd, 0))

    blocks: list[_Block] = [
        ("header", lambda p: b"II*\0\x10\0\0\0CR\2\0" + struct.pack("<I", p[raw_ifd])),
        ("ifd0", ifd0),
        ("exif", exif),
        ("maker note", maker_note),
    ]
    if tags.gps is not None:
        gps = _gps(*tags.gps)
        blocks.append(("gps", lambda p: directory(gps, p["gps"], 0)))
    blocks += [
        ("preview", lambda _: preview),
        ("ifd1", ifd1),
        ("thumbnail", lambda _: thumbnail),
        ("ifd2", ifd2),
        ("small", lambda _: small.tobytes()),
    ]
    return blocks


def _frame_blocks(name: str, frame: Frame, following: str | None) -> list[_Block]:
    """Return a raw IFD and its stream, without a size: LibRaw takes that from the stream."""

    def ifd(places: _Places) -> bytes:
        fields = [
            shorts(0x103, 6),
            longs(0x111, places[f"{name} stream"]),
            longs(0x117, len(frame.stream)),
            longs(0xC5D8, 1),
            longs(0xC5E0, 1),
            shorts(0xC640, 1, *frame.slice_widths_px),
            longs(0xC6C5, 1),
        ]
        return directory(fields, places[name], places[following] if following else 0)

    return [(name, ifd), (f"{name} stream", lambda _: frame.stream)]


def _ifd0(
    tags: CameraTags, preview_shape: tuple[int, ...], preview_bytes: int, places: _Places
) -> list[Field]:
    fields = [
        shorts(0x100, preview_shape[1]),
        shorts(0x101, preview_shape[0]),
        # Three samples: LibRaw must not take the preview for a raw frame.
        shorts(0x102, 8, 8, 8),
        shorts(0x103, 6),
        text(0x10F, "Canon"),
        text(0x110, tags.model),
        longs(0x111, places["preview"]),
        shorts(0x112, tags.orientation),
        longs(0x117, preview_bytes),
        rationals(0x11A, 72),
        rationals(0x11B, 72),
        shorts(0x128, 2),
        text(0x132, f"{tags.taken:%Y:%m:%d %H:%M:%S}"),
        text(0x13B, tags.artist),
        shorts(0x213, 2),
        blob(0x2BC, _xmp(tags.rating), BYTE),
        text(0x8298, tags.copyright),
        longs(0x8769, places["exif"]),
    ]
    if tags.caption:
        iptc = _iptc_caption(tags.caption)
        fields.append(Field(0x83BB, LONG, len(iptc) // 4, iptc))
    if tags.gps is not None:
        fields.append(longs(0x8825, places["gps"]))
    return fields


def _exif(
    tags: CameraTags, active: ActiveArea, maker_note_bytes: int, places: _Places
) -> list[Field]:
    taken = f"{tags.taken:%Y:%m:%d %H:%M:%S}"
    focal = tags.focal_length_mm
    return [
        rationals(0x829A, tags.exposure_time_s),
        rationals(0x829D, tags.f_number),
        *_sensitivity(tags.iso),
        blob(0x9000, b"0230"),
        text(0x9003, taken),
        text(0x9004, taken),
        blob(0x9101, b"\1\2\3\0"),
        rationals(0x920A, focal),
        Field(0x927C, UNDEFINED, maker_note_bytes, b"", places["maker note"]),
        blob(0xA000, b"0100"),
        shorts(0xA001, 1),
        shorts(0xA002, active.width),
        shorts(0xA003, active.height),
        text(0xA431, tags.serial),
        rationals(0xA432, focal, focal, tags.f_number, tags.f_number),
        text(0xA434, tags.lens_model),
    ]


def _sensitivity(iso: int) -> list[Field]:
    """Return the fields of an ISO; one over 65535 is a recommended exposure index, as in EXIF."""
    if iso <= _LARGEST_SHORT:
        return [shorts(0x8827, iso)]
    return [shorts(0x8827, _LARGEST_SHORT), shorts(0x8830, 2), longs(0x8832, iso)]


def _maker_note(tags: CameraTags, levels: RawLevels, frame_count: int) -> list[Field]:
    settings = [0] * 47
    settings[0] = 2 * len(settings)
    settings[22] = 0xFFFF  # lens type: not in Canon's list
    settings[23] = settings[24] = round(tags.focal_length_mm)
    settings[25] = 1  # focal units per mm
    width, height = levels.size
    area = levels.active
    # One past the last column and row: LibRaw's visible area ends before them.
    right, bottom = area.left + area.width, area.top + area.height
    sensor = (34, width, height, 1, 1, area.left, area.top, right, bottom, *[0] * 8)
    color = [0] * _COLOR_DATA_COUNT
    color[0] = _COLOR_DATA_VERSION
    color[0x3F:0x43] = [round(1024 * gain) for gain in levels.wb_rggb]
    color[0x43] = 5200  # as-shot colour temperature in K
    color[0x30A:0x30E] = [levels.black_level] * 4
    color[0x30E:0x310] = [levels.white_level] * 2
    lighting = [0] * 12
    lighting[0] = 4 * len(lighting)
    lighting[11] = int(frame_count > 1)  # Dual Pixel RAW
    return [
        shorts(0x1, *settings),
        shorts(0x2, 0, round(tags.focal_length_mm), 0, 0),
        shorts(0x4, *(68, *[0] * 33)),
        text(0x6, tags.model),
        text(0x7, "Firmware Version 1.0.0"),
        longs(0x10, tags.model_id),
        text(0x95, tags.lens_model),
        shorts(0xE0, *sensor),
        shorts(0x4001, *color),
        longs(0x4018, *lighting),
    ]


def _gps(latitude: float, longitude: float) -> list[Field]:
    def degrees_minutes_seconds(angle: float) -> tuple[float, float, float]:
        minutes, seconds = divmod(round(abs(angle) * 3600, 3), 60)
        degrees, minutes = divmod(minutes, 60)
        return degrees, minutes, seconds

    return [
        blob(0x0, b"\2\3\0\0", BYTE),
        text(0x1, "N" if latitude >= 0 else "S"),
        rationals(0x2, *degrees_minutes_seconds(latitude)),
        text(0x3, "E" if longitude >= 0 else "W"),
        rationals(0x4, *degrees_minutes_seconds(longitude)),
    ]


def _small_picture(small: Rgb8, place: int) -> list[Field]:
    return [
        shorts(0x100, small.shape[1]),
        shorts(0x101, small.shape[0]),
        shorts(0x102, 8, 8, 8),
        shorts(0x103, 1),
        shorts(0x106, 2),
        longs(0x111, place),
        shorts(0x115, 3),
        shorts(0x116, small.shape[0]),
        longs(0x117, small.size),
        shorts(0x11C, 1),
    ]


def _xmp(rating: int) -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
        f"<xmp:Rating>{rating}</xmp:Rating>"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _iptc_caption(caption: str) -> bytes:
    text = caption.encode()
    utf8 = b"\x1c\x01\x5a" + struct.pack(">H", 3) + b"\x1b%G"
    records = utf8 + b"\x1c\x02\x78" + struct.pack(">H", len(text)) + text
    return records + b"\0" * (-len(records) % 4)  # TIFF stores the block as 32-bit numbers


def _jpeg(picture: Rgb8) -> bytes:
    done, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise ValueError(f"OpenCV cannot encode a preview of shape {picture.shape}")
    return encoded.tobytes()
