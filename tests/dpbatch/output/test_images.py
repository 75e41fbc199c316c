"""TIFF, PNG, JPEG: pixels come back, the profile is readable, the file is whole or not there."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import exiv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from dpbatch.errors import DiskFullError, OutputError
from dpbatch.output import metadata
from dpbatch.output.color_spaces import icc_profile
from dpbatch.output.images import to_8_bit, write_picture
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, Written, read_tags
from dpbatch.settings import OutputSettings
from dpbatch.storage.stamps import stamp

NOTE = ProcessingNote(version="0.1.0", source="IMG_1.CR2", model="tiny")
FORMATS = [
    OutputSettings(format=format_, bit_depth=bit_depth)
    for format_ in ("tif", "png")
    for bit_depth in (16, 8)
]
JPEG = OutputSettings(format="jpg")


def picture(height: int = 70, width: int = 101) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 65536, (height, width, 3), np.uint16)


def write(path: Path, settings: OutputSettings, rgb: npt.NDArray[np.uint16]) -> Path:
    target = path / f"IMG_1.{settings.format}"
    assert write_picture(target, rgb, settings, PhotoMetadata(), NOTE) == Written(
        stamp(target).blake2b
    )
    return target


def png_chunks(content: bytes) -> list[tuple[str, bytes]]:
    """Name and content of each chunk; every checksum is verified."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        body = content[place + 4 : place + 8 + length]
        assert struct.unpack_from(">I", content, place + 8 + length) == (zlib.crc32(body),)
        chunks.append((body[:4].decode(), body[4:]))
        place += 12 + length
    return chunks


def test_8_bit_is_the_nearest_value_for_each_of_65536() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(1024, 64)
    nearest = np.rint(values.astype(np.float64) * 255 / 65535)
    np.testing.assert_array_equal(to_8_bit(values), nearest)


@pytest.mark.parametrize("settings", FORMATS, ids=str)
def test_pixels_come_back(tmp_path: Path, settings: OutputSettings) -> None:
    rgb = picture()
    expected = rgb if settings.bit_depth == 16 else to_8_bit(rgb)
    read = cv2.imread(str(write(tmp_path, settings, rgb)), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read[..., ::-1], expected)


def test_tiff_is_one_page_of_standard_deflate_with_profile(tmp_path: Path) -> None:
    with tifffile.TiffFile(write(tmp_path, OutputSettings(), picture(70, 101))) as tiff:
        (page,) = tiff.pages
        assert isinstance(page, tifffile.TiffPage)
        assert page.compression == 8  # 32946 is obsolete and not read everywhere
        assert page.predictor == 2
        assert page.photometric == tifffile.PHOTOMETRIC.RGB
        assert page.shape == (70, 101, 3)
        assert page.tags["InterColorProfile"].value == icc_profile("srgb")
        np.testing.assert_array_equal(page.asarray(), picture(70, 101))


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_png_has_one_named_profile_and_its_metadata_before_the_pixels(
    tmp_path: Path, bit_depth: int
) -> None:
    target = write(tmp_path, OutputSettings(format="png", bit_depth=bit_depth), picture())
    chunks = png_chunks(target.read_bytes())
    kinds = [kind for kind, _ in chunks]
    pixels_start = kinds.index("IDAT")
    assert kinds[0] == "IHDR"
    assert kinds[-1] == "IEND"
    for kind in ("iCCP", "eXIf", "iTXt", "pHYs"):
        assert kinds.count(kind) == 1
        assert kinds.index(kind) < pixels_start
    assert not {"sRGB", "gAMA", "cHRM"} & set(kinds)
    name, _, profile = dict(chunks)["iCCP"].partition(b"\0")
    assert name == b"sRGB"
    assert zlib.decompress(profile[1:]) == icc_profile("srgb")


def test_resolution_of_the_source_is_kept_in_both_formats(tmp_path: Path) -> None:
    carried = PhotoMetadata(pixels_per_inch=300)
    for settings in FORMATS:
        target = tmp_path / f"a.{settings.format}"
        write_picture(target, picture(4, 5), settings, carried, NOTE)
        assert read_tags(target)["Exif.Image.XResolution"] == "300"
        if settings.format == "png":
            density = dict(png_chunks(target.read_bytes()))["pHYs"]
            assert struct.unpack(">IIB", density) == (11811, 11811, 1)  # per metre


@pytest.mark.parametrize(("quality", "largest_error"), [(100, 3), (95, 6)])
def test_jpeg_holds_the_nearest_8_bit_values_at_full_colour_resolution(
    tmp_path: Path, quality: int, largest_error: int
) -> None:
    """Columns of red and blue by turns would run into each other with halved chroma."""
    rgb = np.zeros((32, 48, 3), np.uint16)
    rgb[:, ::2, 0] = rgb[:, 1::2, 2] = 40000
    rgb[..., 1] = np.linspace(0, 65535, 32, dtype=np.uint16)[:, None]
    target = write(tmp_path, replace(JPEG, jpeg_quality=quality), rgb)
    read = np.asarray(cv2.imread(str(target), cv2.IMREAD_UNCHANGED), int)[..., ::-1]
    assert np.abs(read - to_8_bit(rgb)).max() <= largest_error


def test_a_higher_quality_makes_a_larger_and_better_jpeg(tmp_path: Path) -> None:
    rgb = picture()
    sizes, errors = [], []
    for quality in (30, 80, 100):
        target = write(tmp_path, replace(JPEG, jpeg_quality=quality), rgb)
        sizes.append(target.stat().st_size)
        read = np.asarray(cv2.imread(str(target), cv2.IMREAD_UNCHANGED), int)[..., ::-1]
        errors.append(np.abs(read - to_8_bit(rgb)).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_jpeg_has_its_profile_and_resolution(tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    write_picture(target, picture(40, 52), JPEG, PhotoMetadata(pixels_per_inch=300), NOTE)
    with Image.open(target) as jpeg:
        assert jpeg.format == "JPEG"
        assert jpeg.size == (52, 40)
        assert jpeg.info["icc_profile"] == icc_profile("srgb")
        assert jpeg.info["dpi"] == (300, 300)
        assert jpeg.info["jfif_density"] == (300, 300)
    assert read_tags(target)["Exif.Image.XResolution"] == "300"


def test_a_picture_too_large_for_a_jpeg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="65501 x 1 pixels do not fit into a JPEG"):
        write(tmp_path, JPEG, np.zeros((1, 65501, 3), np.uint16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [*FORMATS, JPEG], ids=str)
def test_full_disk_leaves_nothing(
    tmp_path: Path, settings: OutputSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(memoryview(content)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError):
        write(tmp_path, settings, picture())
    assert list(tmp_path.iterdir()) == []


def test_failing_metadata_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = write(tmp_path, OutputSettings(), picture()).read_bytes()

    def fail(*_: object) -> None:
        raise exiv2.Exiv2Error(exiv2.ErrorCode.kerErrorMessage, "odd tag")

    monkeypatch.setattr(metadata, "embed", fail)
    with pytest.raises(OutputError, match=r"IMG_1\.CR2.*odd tag"):
        write(tmp_path, OutputSettings(), picture(8, 8))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [former]


@pytest.mark.parametrize("settings", [*FORMATS, JPEG], ids=str)
def test_names_beyond_ascii(tmp_path: Path, settings: OutputSettings) -> None:
    folder = tmp_path / "Fotos \N{LATIN SMALL LETTER U WITH DIAERESIS} \N{HIRAGANA LETTER A}"
    assert read_tags(write(folder, settings, picture()))["Exif.Photo.PixelXDimension"] == "101"


@pytest.mark.skipif(shutil.which("pngcheck") is None, reason="pngcheck is not installed")
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_pngcheck_passes(tmp_path: Path, bit_depth: int) -> None:
    target = write(tmp_path, OutputSettings(format="png", bit_depth=bit_depth), picture())
    result = subprocess.run(["pngcheck", "-q", target], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")
