"""Sources whose metadata is missing, damaged or followed by other bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpbatch.errors import UnreadableError
from dpbatch.output.images import encode_tiff, write_picture
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, read_metadata, read_tags
from dpbatch.settings import OutputSettings
from tests.helpers.cr3_writer import Cr3Camera, write_cr3

NOTE = ProcessingNote("0.1.0", "IMG_1.CR2", "tiny", "ab" * 32, "fingerprint 1234")


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a photo at all, whatever it is called"])
def test_unreadable_source_is_a_warning_for_the_photo_and_an_error_for_inspect(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "IMG_9.CR2"
    path.write_bytes(content)
    carried = read_metadata(path)
    assert carried.carrier == b""
    assert carried.problem.startswith("metadata not read")
    target = tmp_path / "IMG_9.tif"
    rgb = np.zeros((4, 5, 3), np.uint16)
    assert write_picture(target, rgb, OutputSettings(), carried, NOTE).warnings == (
        carried.problem,
    )
    assert read_tags(target)["Exif.Photo.PixelXDimension"] == "5"
    with pytest.raises(UnreadableError, match=r"IMG_9\.CR2"):
        read_tags(path)


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"none\.CR2: metadata not read: No such file"):
        read_metadata(tmp_path / "none.CR2")
    with pytest.raises(UnreadableError, match=r"none\.CR2"):
        read_tags(tmp_path / "none.CR2")


def test_source_without_metadata_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "bare.tif").write_bytes(encode_tiff(np.zeros((4, 5, 3), np.uint8), None))
    assert read_metadata(tmp_path / "bare.tif") == PhotoMetadata()


def test_bytes_behind_a_cr3_do_not_cost_its_metadata(tmp_path: Path) -> None:
    mosaic = np.full((96, 160), 600, np.uint16)
    write_cr3(tmp_path / "a.cr3", mosaic, camera=Cr3Camera(iso=640))
    plain = read_tags(tmp_path / "a.cr3")
    assert plain["Exif.Photo.ISOSpeedRatings"] == "640"
    for trailer in (b"II*\0" + bytes(1020), b"x", bytes(40)):
        write_cr3(tmp_path / "a.cr3", mosaic, camera=Cr3Camera(iso=640), trailer=trailer)
        assert read_tags(tmp_path / "a.cr3") == plain
        assert read_metadata(tmp_path / "a.cr3").problem == ""
