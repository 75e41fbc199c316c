"""DNG files: what LibRaw and exiv2 read from them."""

from pathlib import Path

import exiv2
import numpy as np
import pytest
import rawpy
import tifffile

from dpbatch.output import whole
from dpbatch.output.dng import encode_linear_dng, encode_mosaic_dng, write_dng
from dpbatch.output.dng_tags import CameraColor, RawLevels
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, read_metadata, read_note
from tests.helpers.raw_frames import developed
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags

XYZ_TO_CAMERA = np.array(
    [[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]]
)
COLOR = CameraColor("Canon", "Canon Of Nobody", XYZ_TO_CAMERA, np.array([0.5, 1, 0.625]), 1.0)
HEIGHT, WIDTH = 300, 530
ACTIVE = (20, 32, 260, 480)
NOTE = ProcessingNote("1.0", source="A.CR2", fingerprint="f" * 32)


def mosaic() -> np.ndarray:
    values = np.random.default_rng(0).normal(4000, 900, (HEIGHT, WIDTH))
    values[100:120] = 32254  # light above the camera's own 14 bits
    values[:, :2], values[:2, 2:] = 0, 65535
    return np.clip(values, 0, 65535).astype(np.uint16)


def preview() -> np.ndarray:
    """A smooth picture whose colours differ."""
    y, x = np.mgrid[:130, :240]
    return np.stack([y, 255 - x, (x + y) // 2], axis=-1).astype(np.uint8)


def written(
    folder: Path, encoded: bytes, metadata: PhotoMetadata | None = None, orientation: int = 6
) -> Path:
    path = folder / "a.dng"
    write_dng(path, encoded, ACTIVE[2:], orientation, metadata or PhotoMetadata(), NOTE)
    return path


@pytest.mark.parametrize("pattern", [(0, 1, 1, 2), (1, 0, 2, 1), (2, 1, 1, 0)])
def test_libraw_reads_a_mosaic_bit_equal_with_its_levels_and_colours(tmp_path, pattern):
    levels = RawLevels(ACTIVE, (512, 513, 514, 515), 32254)
    stored = mosaic()
    path = written(tmp_path, encode_mosaic_dng(stored, pattern, levels, COLOR, preview()))
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image, stored)
        sizes = raw.sizes
        assert (sizes.top_margin, sizes.left_margin, sizes.height, sizes.width) == ACTIVE
        assert raw.white_level == 32254
        assert raw.raw_pattern is not None
        colors = raw.raw_pattern.ravel()
        blacks = [raw.black_level_per_channel[color] for color in colors]
        assert blacks == [512, 513, 514, 515]
        assert [min(int(color), 1 if color == 3 else 3) for color in colors] == list(pattern)
        wb = np.array(raw.camera_whitebalance[:3])
        np.testing.assert_allclose(wb / wb[1], (2, 1, 1.6), rtol=1e-5)
        assert raw.sizes.flip == 6


def test_a_linear_dng_develops_to_the_light_that_was_stored(tmp_path):
    light = np.random.default_rng(2).uniform(0.05, 0.6, (8, 12, 3))
    light = np.repeat(np.repeat(light, 20, axis=0), 20, axis=1)
    balanced = XYZ_TO_CAMERA @ np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    balanced /= balanced.sum(axis=1, keepdims=True)
    stored = np.rint(light @ balanced.T * (0.5, 1, 0.625) * 65535).astype(np.uint16)
    levels = RawLevels((0, 0, 160, 240), (0.0, 0.0, 0.0), 65535)
    path = written(tmp_path, encode_linear_dng(stored, levels, COLOR, preview()), orientation=1)
    assert np.abs(developed(path) - light).max() < 1e-4


def test_the_preview_is_the_first_page_and_the_raw_one_below_it_in_a_list(tmp_path):
    levels = RawLevels(ACTIVE, (512,) * 4, 16383)
    encoded = encode_mosaic_dng(mosaic(), (0, 1, 1, 2), levels, COLOR, preview())
    with tifffile.TiffFile(written(tmp_path, encoded)) as tiff:
        first = tiff.pages.first.aspage()
        assert len(tiff.pages) == 1
        assert first.shape == (130, 240, 3)
        assert np.abs(first.asarray().astype(int) - preview()).mean() < 3
        assert first.tags["SubIFDs"].dtype == tifffile.DATATYPE.LONG
        assert first.pages is not None
        raw = first.pages[0].aspage()
        assert (raw.shape, raw.compression, raw.photometric) == ((HEIGHT, WIDTH), 7, 32803)
        assert raw.tags["BitsPerSample"].value == 16  # 12 makes RawTherapee's white level wrong


def test_a_depth_map_lies_behind_the_raw_and_libraw_reads_the_raw(tmp_path):
    levels = RawLevels(ACTIVE, (512,) * 4, 16383)
    depth = np.arange(130 * 240, dtype=np.uint16).reshape(130, 240)
    stored = mosaic()
    path = written(
        tmp_path, encode_mosaic_dng(stored, (0, 1, 1, 2), levels, COLOR, preview(), depth)
    )
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image, stored)
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages.first.aspage()
        assert first.tags["DNGVersion"].value == bytes((1, 5, 0, 0))
        assert first.tags[51177].value == 2  # DepthFormat: inverse
        assert [first.tags[code].value for code in (51178, 51179)] == [(0, 0), (0, 0)]  # not known
        assert first.tags["SubIFDs"].dtype == tifffile.DATATYPE.LONG
        assert first.pages is not None
        page = first.pages[1].aspage()
        assert (page.subfiletype, page.photometric) == (8, 51177)
        np.testing.assert_array_equal(page.asarray(), depth)
    assert whole.opens(path)


def test_the_cameras_metadata_and_the_note_are_in_the_file(tmp_path):
    source = tmp_path / "A.CR2"
    write_test_dpraw(source, 64, 128, tags=CameraTags(iso=800, orientation=6))
    levels = RawLevels(ACTIVE, (512,) * 4, 16383)
    encoded = encode_mosaic_dng(mosaic(), (0, 1, 1, 2), levels, COLOR, preview())
    path = written(tmp_path, encoded, read_metadata(source))
    image = exiv2.ImageFactory.open(path.read_bytes())
    image.readMetadata()
    exif = image.exifData()
    assert exif["Exif.Photo.ISOSpeedRatings"].toInt64() == 800
    assert exif["Exif.Image.Orientation"].toInt64() == 6
    assert exif["Exif.Image.DNGBackwardVersion"].toString() == "1 1 0 0"
    assert any(datum.groupName() == "CanonCs" for datum in exif)  # the MakerNote
    assert "Exif.Photo.ColorSpace" not in exif
    keys = [datum.key() for datum in exif]
    assert keys.count("Exif.Image.Model") == 1
    assert exif["Exif.Image.UniqueCameraModel"].toString() == "Canon Of Nobody"
    assert image.xmpData()["Xmp.dc.format"].toString() == "image/x-adobe-dng"
    note = read_note(path)
    assert note is not None
    assert note.fingerprint == NOTE.fingerprint
    with rawpy.imread(str(path)) as raw:  # Canon's MakerNote does not overrule the DNG's tags
        np.testing.assert_array_equal(raw.raw_image, mosaic())
        assert raw.white_level == 16383
        assert raw.sizes.height == ACTIVE[2]


def test_a_dng_that_is_cut_off_does_not_open(tmp_path):
    levels = RawLevels(ACTIVE, (512,) * 4, 16383)
    path = written(tmp_path, encode_mosaic_dng(mosaic(), (0, 1, 1, 2), levels, COLOR, preview()))
    assert whole.opens(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 1000])
    assert not whole.opens(path)
