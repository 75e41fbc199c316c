"""XMP sidecars: which values reach the result, which win, and what stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dpbatch.output.images import write_picture
from dpbatch.output.metadata import ProcessingNote, read_metadata, read_tags
from dpbatch.settings import OutputSettings
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags

SIDECAR = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
 xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:darktable="http://darktable.sf.net/"
 xmp:Rating="5" xmp:Label="Red" crs:Exposure2012="+2.00" tiff:Orientation="8"
 darktable:xmp_version="5">
 <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Quay</rdf:li></rdf:Alt></dc:title>
 <dc:description><rdf:Alt><rdf:li xml:lang="de">Hafen</rdf:li>
  <rdf:li xml:lang="x-default">Boats at the quay</rdf:li></rdf:Alt></dc:description>
 <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© the photographer</rdf:li></rdf:Alt></dc:rights>
 <dc:creator><rdf:Seq><rdf:li>First</rdf:li><rdf:li>Second</rdf:li></rdf:Seq></dc:creator>
 <dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>
 <lr:hierarchicalSubject><rdf:Bag><rdf:li>places|sea</rdf:li></rdf:Bag></lr:hierarchicalSubject>
 <darktable:history><rdf:Seq><rdf:li darktable:num="0" darktable:operation="exposure"/></rdf:Seq>
 </darktable:history>
</rdf:Description></rdf:RDF></x:xmpmeta>
"""
FORMATS = [OutputSettings(format=format_) for format_ in ("tif", "png", "jpg")]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A raw file with a rating and a caption of its own."""
    path = tmp_path / "IMG_1.CR2"
    write_test_dpraw(path, 64, 160, tags=CameraTags(rating=2, caption="Harbour"))
    return path


def result_of(photo: Path, settings: OutputSettings | None = None) -> dict[str, str]:
    """The tags of the photo's result."""
    settings = settings or OutputSettings()
    target = photo.parent / f"result.{settings.format}"
    pixels = np.full((8, 16, 3), 30000, np.uint16)
    metadata, note = read_metadata(photo), ProcessingNote("0.1.0", "IMG_1.CR2")
    assert write_picture(target, pixels, settings, metadata, note).warnings == ()
    return read_tags(target)


@pytest.mark.parametrize("settings", FORMATS, ids=str)
@pytest.mark.parametrize("name", ["IMG_1.xmp", "IMG_1.CR2.xmp", "IMG_1.XMP"])
def test_what_was_noted_about_the_photo_is_in_the_result(
    photo: Path, name: str, settings: OutputSettings
) -> None:
    before = result_of(photo, settings)
    assert before["Xmp.xmp.Rating"] == "2"
    assert before["Iptc.Application2.Caption"] == "Harbour"
    photo.with_name(name).write_text(SIDECAR, encoding="utf-8")
    tags = result_of(photo, settings)
    expected = {
        "Xmp.xmp.Rating": "5",
        "Xmp.xmp.Label": "Red",
        "Xmp.dc.title": 'lang="x-default" Quay',
        "Xmp.dc.rights": 'lang="x-default" © the photographer',
        "Xmp.dc.creator": "First, Second",
        "Xmp.dc.subject": "boat, sea",
        "Xmp.lr.hierarchicalSubject": "places|sea",
        "Exif.Image.Rating": "5",
        "Exif.Image.ImageDescription": "Boats at the quay",
        "Exif.Image.Artist": "First; Second",
        "Exif.Image.Copyright": "© the photographer",
    }
    assert {key: tags[key] for key in expected} == expected
    assert "Boats at the quay" in tags["Xmp.dc.description"]
    assert "Hafen" in tags["Xmp.dc.description"]
    assert "Iptc.Application2.Caption" not in tags  # it would contradict the description


def test_edits_of_other_programs_stay_behind(photo: Path) -> None:
    photo.with_suffix(".xmp").write_text(SIDECAR, encoding="utf-8")
    tags = result_of(photo)
    assert not [key for key in tags if "crs." in key or "darktable" in key]
    assert tags["Xmp.tiff.Orientation"] == "top, left"


def test_what_a_sidecar_does_not_name_stays_as_it_is_in_the_photo(photo: Path) -> None:
    only_label = SIDECAR.split("<rdf:Description")[0] + (
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="Blue"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    before = result_of(photo)
    photo.with_suffix(".xmp").write_text(only_label, encoding="utf-8")
    after = result_of(photo)
    moved = {key for key in before if key.endswith(("Offsets", ".Offset", "Tag", "Packet"))}
    moved.add("Exif.Photo.MakerNote")  # holds offsets; its tags are compared one by one
    kept = {key: text for key, text in after.items() if key not in moved}
    expected = {key: text for key, text in before.items() if key not in moved}
    assert kept == expected | {"Xmp.xmp.Label": "Blue"}


def test_the_sidecar_of_this_very_file_counts_more(photo: Path) -> None:
    photo.with_name("IMG_1.xmp").write_text(SIDECAR, encoding="utf-8")
    other = SIDECAR.replace('Rating="5"', 'Rating="3"').replace("Quay", "Pier")
    photo.with_name("IMG_1.CR2.xmp").write_text(other, encoding="utf-8")
    tags = result_of(photo)
    assert (tags["Xmp.xmp.Rating"], tags["Exif.Image.Rating"]) == ("3", "3")
    assert tags["Xmp.dc.title"] == 'lang="x-default" Pier'


def test_a_rejected_photo_is_so_in_xmp_and_has_no_stars(photo: Path) -> None:
    photo.with_suffix(".xmp").write_text(SIDECAR.replace('Rating="5"', 'Rating="-1"'), "utf-8")
    tags = result_of(photo)
    assert tags["Xmp.xmp.Rating"] == "-1"
    assert "Exif.Image.Rating" not in tags


@pytest.mark.parametrize(
    "content",
    [b"", b"not XMP", SIDECAR[:400].encode(), b"\xff\xd8\xff\xe0" + bytes(100), bytes(17 << 20)],
    ids=["empty", "text", "truncated", "jpeg", "huge"],
)
def test_an_unreadable_sidecar_is_a_warning(photo: Path, content: bytes) -> None:
    whole = read_metadata(photo)
    photo.with_suffix(".xmp").write_bytes(content)
    metadata = read_metadata(photo)
    assert metadata.carrier == whole.carrier
    assert metadata.problem.startswith("IMG_1.xmp: sidecar not read: ")
    assert "ErrorCode" not in metadata.problem


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_is_no_sidecar(photo: Path) -> None:
    whole = read_metadata(photo)
    os.mkfifo(photo.with_suffix(".xmp"))
    assert read_metadata(photo) == whole


def test_a_picture_without_metadata_has_that_of_its_sidecar(tmp_path: Path) -> None:
    from dpbatch.output.images import encode_tiff

    path = tmp_path / "IMG_1_L.tif"
    path.write_bytes(encode_tiff(np.zeros((4, 5, 3), np.uint8), None))
    path.with_suffix(".xmp").write_text(SIDECAR, encoding="utf-8")
    assert result_of(path)["Xmp.dc.subject"] == "boat, sea"
