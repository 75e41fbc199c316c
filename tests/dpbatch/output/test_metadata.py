"""The camera's metadata reaches the result whole, and nothing in it describes the source file."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import exiv2
import numpy as np
import pytest
import tifffile

from dpbatch.output import carrier, metadata
from dpbatch.output.images import encode_tiff, write_picture
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, read_metadata, read_tags
from dpbatch.settings import OutputSettings
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags

HEIGHT, WIDTH = 48, 31
NOTE = ProcessingNote("0.1.0", "IMG_1.CR2", "tiny", "ab" * 32, "fingerprint 1234")
TAGS = CameraTags(orientation=6, gps=(47.5, -122.25), rating=4, caption="Harbour")
FORMATS = [
    OutputSettings(format=format_, bit_depth=bit_depth)
    for format_ in ("tif", "png")
    for bit_depth in (16, 8)
]
FORMATS.append(OutputSettings(format="jpg"))
# Tags that describe the file and not the photo.
FILE_TAGS = {
    "Exif.Image.ImageWidth",
    "Exif.Image.ImageLength",
    "Exif.Image.BitsPerSample",
    "Exif.Image.Compression",
    "Exif.Image.StripOffsets",
    "Exif.Image.StripByteCounts",
    "Exif.Image.Orientation",
    "Exif.Image.YCbCrPositioning",
    "Exif.Image.ExifTag",
    "Exif.Image.GPSTag",
    "Exif.Image.XMLPacket",
    "Exif.Image.IPTCNAA",
    "Exif.Photo.ComponentsConfiguration",
    "Exif.Photo.PixelXDimension",
    "Exif.Photo.PixelYDimension",
    "Exif.Photo.MakerNote",  # its bytes hold offsets; its tags are compared one by one
    "Exif.MakerNote.Offset",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "IMG_1.CR2"
    write_test_dpraw(path, 64, 160, tags=TAGS)
    return path


def write(
    folder: Path,
    carried: PhotoMetadata,
    settings: OutputSettings | None = None,
    note: ProcessingNote = NOTE,
) -> Path:
    settings = settings or OutputSettings()
    target = folder / f"IMG_1.{settings.format}"
    rgb = np.full((HEIGHT, WIDTH, 3), 30000, np.uint16)
    assert write_picture(target, rgb, settings, carried, note).warnings == ()
    return target


def exiftool(*arguments: str | Path) -> str:
    return subprocess.run(
        ["exiftool", *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_every_tag_of_the_photo_is_carried(
    tmp_path: Path, source: Path, settings: OutputSettings
) -> None:
    before, after = read_tags(source), read_tags(write(tmp_path, read_metadata(source), settings))
    foreign = ("Exif.Image2.", "Exif.Image3.", "Exif.Image4.", "Exif.Thumbnail.")
    carried = {
        key: text
        for key, text in before.items()
        if key not in FILE_TAGS and not key.startswith(foreign)
    }
    # The laws are about something: each kind of metadata is in the source.
    for key in (
        "Exif.Photo.ExposureTime",
        "Exif.Photo.LensModel",
        "Exif.Photo.BodySerialNumber",
        "Exif.GPSInfo.GPSLatitude",
        "Exif.Image.XResolution",
        "Exif.Canon.ColorData",
        "Exif.CanonLiOp.DualPixelRaw",
        "Iptc.Application2.Caption",
        "Xmp.xmp.Rating",
    ):
        assert key in carried
    assert {key: after.get(key) for key in carried} == carried
    assert not [key for key in after if key.startswith(foreign)]


@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_what_describes_the_file_is_that_of_the_result(
    tmp_path: Path, source: Path, settings: OutputSettings
) -> None:
    assert read_tags(source)["Exif.Image.Orientation"] == "right, top"
    tags = read_tags(write(tmp_path, read_metadata(source), settings))
    assert tags["Exif.Image.Orientation"] == "top, left"
    assert tags["Xmp.tiff.Orientation"] == "top, left"
    assert tags["Exif.Photo.PixelXDimension"] == str(WIDTH)
    assert tags["Exif.Photo.PixelYDimension"] == str(HEIGHT)
    assert tags["Exif.Photo.ColorSpace"] == "sRGB"
    if settings.format == "tif":
        assert tags["Exif.Image.ImageWidth"] == str(WIDTH)


def test_tiff_has_one_page_and_no_sub_images(tmp_path: Path, source: Path) -> None:
    with tifffile.TiffFile(source) as raw:
        assert len(raw.pages) > 3
    with tifffile.TiffFile(write(tmp_path, read_metadata(source))) as tiff:
        (page,) = tiff.pages
        assert isinstance(page, tifffile.TiffPage)
        assert "SubIFDs" not in page.tags
        assert page.tags["Orientation"].value == 1
        assert page.tags["Orientation"].count == 1


def test_note_is_in_xmp_and_empty_texts_are_not(tmp_path: Path) -> None:
    tags = read_tags(write(tmp_path, PhotoMetadata()))
    assert tags["Exif.Image.Software"] == tags["Xmp.xmp.CreatorTool"] == "dpbatch 0.1.0"
    ours = {
        key.removeprefix("Xmp.dpbatch."): text for key, text in tags.items() if "dpbatch" in key
    }
    assert ours == {
        "Version": "0.1.0",
        "Source": "IMG_1.CR2",
        "Model": "tiny",
        "WeightsSHA256": "ab" * 32,
        "Settings": "fingerprint 1234",
    }
    bare = read_tags(write(tmp_path, PhotoMetadata(), note=ProcessingNote("0.1.0")))
    assert [key for key in bare if "dpbatch" in key] == ["Xmp.dpbatch.Version"]


def test_file_name_that_xml_cannot_hold(tmp_path: Path) -> None:
    note = ProcessingNote("0.1.0", source="a\x01b\udc80<&>.CR2")
    tags = read_tags(write(tmp_path, PhotoMetadata(), note=note))
    assert tags["Xmp.dpbatch.Source"] == "a\ufffdb\ufffd<&>.CR2"


def test_metadata_travels_between_processes(tmp_path: Path, source: Path) -> None:
    carried = read_metadata(source)
    assert pickle.loads(pickle.dumps(carried)) == carried
    assert len(carried.carrier) < source.stat().st_size / 4


def test_result_as_source_gives_the_same_metadata_again(tmp_path: Path, source: Path) -> None:
    """A TIFF and a PNG carry as much as the raw did, and nothing grows from pass to pass."""
    first = write(tmp_path, read_metadata(source))
    for settings in FORMATS[::-1]:
        again = write(tmp_path, read_metadata(first), settings)
        expected, found = read_tags(first), read_tags(again)
        for tags in (expected, found):
            for key in FILE_TAGS | {"Xmp.dc.format"}:
                tags.pop(key, None)
        if settings.format == "tif":
            assert found == expected
        else:
            assert {key: expected[key] for key in found} == found
            assert not [key for key in expected.keys() - found.keys() if "Exif.Image." not in key]


def test_tiff_with_the_editor_s_xmp(tmp_path: Path) -> None:
    """Orientation and profile name of the source go, and edits that would be applied once more."""
    packet = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="8" tiff:ImageWidth="9"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelXDimension="9" exif:ColorSpace="65535"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:Exposure2012="+2.00"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:ICCProfile="Adobe RGB (1998)"
 photoshop:City="Bergen"
 xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmpMM:DocumentID="xmp.did:1"
 xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg">
 <dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
    path = tmp_path / "pair_L.tif"
    tifffile.imwrite(
        path,
        np.zeros((5, 9, 3), np.uint8),
        photometric="rgb",
        extratags=[(700, 1, len(packet), packet, True), (274, 3, 1, 8, True)],
        resolution=(118.11, 118.11),
        resolutionunit="centimeter",
    )
    assert read_tags(path)["Xmp.tiff.Orientation"] == "left, bottom"
    carried = read_metadata(path)
    assert carried.pixels_per_inch == 300
    tags = read_tags(write(tmp_path, carried))
    assert tags["Xmp.photoshop.City"] == "Bergen"
    assert tags["Xmp.dc.subject"] == "boat, sea"
    assert tags["Xmp.tiff.Orientation"] == tags["Exif.Image.Orientation"] == "top, left"
    assert tags["Xmp.dc.format"] == "image/tiff"
    gone = ("crs.", "ImageWidth", "exif.PixelXDimension", "exif.ColorSpace", "ICCProfile", "xmpMM")
    xmp = [key for key in tags if key.startswith("Xmp.")]
    assert not [key for key in xmp for part in gone if part in key]


def test_canon_focus_points_do_not_multiply(tmp_path: Path) -> None:
    """exiv2 shows tags that it derives from the array; as real tags they would double each time."""
    raw = carrier.open_image(encode_tiff(np.zeros((4, 5, 3), np.uint8), None))
    focus = [30, 2, 1, 1, 5, 4, 5, 4, 1, 1, 0, 0, 1, 1, 0]
    raw.exifData()["Exif.Image.Make"] = "Canon"
    raw.exifData()["Exif.Canon.AFInfo"] = exiv2.UShortValue(focus)
    raw.writeMetadata()
    path = tmp_path / "source.tif"
    path.write_bytes(raw.data())
    before = {key: text for key, text in read_tags(path).items() if ".Canon.AF" in key}
    assert len(before) > 1
    for _ in range(2):
        path = write(tmp_path, read_metadata(path))
        assert {k: text for k, text in read_tags(path).items() if ".Canon.AF" in k} == before


def odd_tag_error() -> Exception:
    error: Exception = exiv2.Exiv2Error(exiv2.ErrorCode.kerErrorMessage, "odd")
    return error


def test_one_odd_tag_does_not_cost_the_others(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = carrier.encode

    def picky(exif: Iterable[Any], iptc: object, xmp: Iterable[Any]) -> bytes:
        if any(datum.key() == "Exif.Photo.FNumber" for datum in exif) or list(xmp):
            raise odd_tag_error()
        return encode(exif, iptc, xmp)

    monkeypatch.setattr(carrier, "encode", picky)
    carried = read_metadata(source)
    assert carried.problem == "metadata not carried over: Exif.Photo.FNumber, XMP"
    monkeypatch.undo()
    target = tmp_path / "IMG_1.tif"
    rgb = np.zeros((4, 5, 3), np.uint16)
    assert write_picture(target, rgb, OutputSettings(), carried, NOTE).warnings == (
        carried.problem,
    )
    before, after = read_tags(source), read_tags(target)
    assert "Exif.Photo.FNumber" not in after
    for key in ("Exif.Photo.LensModel", "Exif.Canon.ColorData", "Iptc.Application2.Caption"):
        assert after[key] == before[key]


def test_metadata_that_cannot_be_written_is_left_out_with_a_warning(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = metadata.embed

    def picky(encoded: bytes, carried: PhotoMetadata, *rest: Any) -> object:
        if carried.carrier:
            raise odd_tag_error()
        return embed(encoded, carried, *rest)

    monkeypatch.setattr(metadata, "embed", picky)
    target = tmp_path / "IMG_1.png"
    rgb = np.zeros((4, 5, 3), np.uint16)
    settings = OutputSettings(format="png")
    (warning,) = write_picture(target, rgb, settings, read_metadata(source), NOTE).warnings
    assert warning == "metadata not written: odd"
    assert read_tags(target)["Xmp.dpbatch.Model"] == "tiny"


def test_exiv2_is_quiet(tmp_path: Path, source: Path) -> None:
    """In a process of its own: pytest's handlers would swallow what goes through logging."""
    broken = bytearray(source.read_bytes())
    broken[40:3000:7] = bytes(len(range(40, 3000, 7)))
    path = tmp_path / "broken.CR2"
    path.write_bytes(broken)
    script = "import sys, pathlib; from dpbatch.output import metadata as m; "
    read = "m.read_metadata(pathlib.Path(sys.argv[1]))"
    heard = "m.exiv2.LogMsg.setHandler(m.exiv2.LogMsg.defaultHandler); "

    def terminal(code: str) -> str:
        command = [sys.executable, "-c", code, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        return result.stdout + result.stderr

    assert "Error:" in terminal(script + heard + read)
    assert terminal(script + read) == ""


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_exiftool_agrees(tmp_path: Path, source: Path, settings: OutputSettings) -> None:
    target = write(tmp_path, read_metadata(source), settings)
    (tags,) = json.loads(exiftool("-json", "-a", "-G1", "-n", target))
    (before,) = json.loads(exiftool("-json", "-a", "-G1", "-n", source))
    orientations = {key: value for key, value in tags.items() if key.endswith(":Orientation")}
    assert orientations == {"IFD0:Orientation": 1, "XMP-tiff:Orientation": 1}
    group = {"tif": "IFD0", "png": "PNG", "jpg": "File"}[settings.format]
    assert (tags[f"{group}:ImageWidth"], tags[f"{group}:ImageHeight"]) == (WIDTH, HEIGHT)
    assert (tags["ExifIFD:ExifImageWidth"], tags["ExifIFD:ExifImageHeight"]) == (WIDTH, HEIGHT)
    assert tags["ICC-header:ColorSpaceData"] == "RGB "
    for key in (
        "ExifIFD:LensModel",
        "ExifIFD:SerialNumber",
        "Composite:GPSLatitude",
        "Composite:GPSLongitude",
        "IPTC:Caption-Abstract",
        "XMP-xmp:Rating",
        "Canon:LensModel",
    ):
        assert tags[key] == before[key]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_exiftool_validates(tmp_path: Path, source: Path, settings: OutputSettings) -> None:
    target = write(tmp_path, read_metadata(source), settings)
    found = exiftool("-validate", "-warning", "-a", "-s3", target).splitlines()[1:]
    # exiftool's table knows no deflate, and the EXIF standard no pixel sizes, in a TIFF; Photoshop
    # writes both. The last is missing in the camera's GPS already.
    known = ("Compression", "ExifImageWidth", "ExifImageHeight", "GPSProcessingMethod")
    unexpected = [line for line in found if not any(name in line for name in known)]
    assert unexpected == []
