"""What goes into a CR2 comes back through LibRaw, bit for bit, with its metadata."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import cv2
import exifread
import exiv2
import numpy as np
import numpy.typing as npt
import pytest
import rawpy

from dpbatch.raw.reader import read_dual
from tests.helpers.raw_frames import whole_frame
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags
from training.simulator.cr2.ljpeg import encode_lossless_jpeg
from training.simulator.cr2.writer import (
    BORDER_BOTTOM,
    BORDER_LEFT,
    BORDER_RIGHT,
    BORDER_TOP,
    write_cr2_frames,
    write_dpraw_cr2,
    write_single_cr2,
)

INSIDE = (slice(BORDER_TOP, -BORDER_BOTTOM), slice(BORDER_LEFT, -BORDER_RIGHT))


def noise_mosaic(shape: tuple[int, int], seed: int, highest: int = 16383) -> npt.NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, highest, shape, np.uint16, endpoint=True)


@pytest.mark.parametrize("shape", [(128, 224), (130, 236), (300, 1100), (640, 644)])
def test_both_frames_come_back_bit_exact(tmp_path: Path, shape: tuple[int, int]) -> None:
    frames = [noise_mosaic(shape, 1), noise_mosaic(shape, 2, 3000)]
    write_cr2_frames(tmp_path / "a.cr2", frames)
    for shot, frame in enumerate(frames):
        np.testing.assert_array_equal(whole_frame(tmp_path / "a.cr2", shot), frame)


def extremes(shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """The largest differences there are: 0 and 16383 in turn."""
    mosaic = np.zeros(shape, np.uint16)
    mosaic[:, ::3] = 16383
    mosaic[1::5] = 16383 - mosaic[1::5]
    return mosaic


@pytest.mark.parametrize(
    "frame",
    [np.full((128, 260), 8192, np.uint16), np.zeros((128, 260), np.uint16), extremes((128, 260))],
    ids=["one category", "zeros", "extremes"],
)
def test_degenerate_frames_come_back_bit_exact(
    tmp_path: Path, frame: npt.NDArray[np.uint16]
) -> None:
    write_cr2_frames(tmp_path / "a.cr2", [frame])
    np.testing.assert_array_equal(whole_frame(tmp_path / "a.cr2", 0), frame)


def test_slices_of_any_width_come_back_bit_exact(tmp_path: Path) -> None:
    frames = [noise_mosaic((130, 232), 1), noise_mosaic((130, 232), 2)]
    write_cr2_frames(tmp_path / "a.cr2", frames, slice_widths_px=[70, 70])
    for shot, frame in enumerate(frames):
        np.testing.assert_array_equal(whole_frame(tmp_path / "a.cr2", shot), frame)


def test_composite_is_the_clipped_sum_and_frame_1_the_left_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.uniform(-40, 9000, (2, 96, 128)).astype(np.float32)
    write_dpraw_cr2(tmp_path / "a.cr2", left, right, black_level=512, photodiode_black=300)
    whole_left, whole_right = np.rint(left).astype(int), np.rint(right).astype(int)
    composite = np.clip(whole_left + whole_right + 512, 0, 16383)
    assert (composite == 16383).any()
    np.testing.assert_array_equal(whole_frame(tmp_path / "a.cr2", 0)[INSIDE], composite)
    np.testing.assert_array_equal(whole_frame(tmp_path / "a.cr2", 1)[INSIDE], whole_left + 300)

    write_dpraw_cr2(tmp_path / "b.cr2", left, right, photodiode_black=300, swap=True)
    np.testing.assert_array_equal(whole_frame(tmp_path / "b.cr2", 1)[INSIDE], whole_right + 300)


def test_borders_are_optically_black(tmp_path: Path) -> None:
    write_dpraw_cr2(
        tmp_path / "a.cr2",
        np.full((96, 128), 4000),
        np.full((96, 128), 4000),
        black_level=520,
        photodiode_black=300,
    )
    for shot, black in enumerate((520, 300)):
        frame = whole_frame(tmp_path / "a.cr2", shot).astype(float)
        frame[INSIDE] = np.nan
        assert np.nanmean(frame) == pytest.approx(black, abs=0.5)
        assert 1 < np.nanstd(frame) < 5
        assert np.nanmax(frame) < black + 30


def test_an_ordinary_cr2_has_one_frame(tmp_path: Path) -> None:
    signal = np.arange(96 * 128).reshape(96, 128) % 9000
    write_single_cr2(tmp_path / "a.cr2", signal)
    np.testing.assert_array_equal(whole_frame(tmp_path / "a.cr2", 0)[INSIDE], signal + 512)
    with pytest.raises(rawpy.LibRawRequestForNonexistentImageError):
        whole_frame(tmp_path / "a.cr2", 1)


def test_metadata_is_carried(tmp_path: Path) -> None:
    tags = CameraTags(
        orientation=6,
        exposure_time_s=1 / 60,
        f_number=1.8,
        iso=800,
        focal_length_mm=85,
        lens_model="EF85mm f/1.8 USM",
        serial="012345678901",
        taken=datetime(2023, 2, 3, 4, 5, 6),
        artist="Somebody",
        copyright="CC-BY",
        gps=(48.20849, -16.37208),
        rating=4,
        caption="Grüße",
    )
    path = tmp_path / "a.cr2"
    write_test_dpraw(path, 96, 128, tags=tags)
    with path.open("rb") as file:
        found = {key: str(value) for key, value in exifread.process_file(file).items()}
    assert found["Image Make"] == "Canon"
    assert found["Image Model"] == "Canon EOS 5D Mark IV"
    assert found["EXIF ExposureTime"] == "1/60"
    assert found["EXIF FNumber"] == "9/5"
    assert found["EXIF ISOSpeedRatings"] == "800"
    assert found["EXIF FocalLength"] == "85"
    assert found["EXIF LensModel"] == "EF85mm f/1.8 USM"
    assert found["EXIF BodySerialNumber"] == "012345678901"
    assert found["EXIF DateTimeOriginal"] == "2023:02:03 04:05:06"
    assert found["Image Artist"] == "Somebody"
    assert found["Image Copyright"] == "CC-BY"
    assert found["GPS GPSLatitudeRef"] == "N"
    assert found["GPS GPSLongitudeRef"] == "W"
    assert found["GPS GPSLatitude"] == "[48, 12, 7641/250]"
    assert found["MakerNote Tag 0x4018"].split(", ")[11].startswith("1")

    image = exiv2.ImageFactory.open(str(path))
    image.readMetadata()
    assert image.exifData()["Exif.Photo.MakerNote"].size() > 1000
    assert image.xmpData()["Xmp.xmp.Rating"].toString() == "4"
    assert image.iptcData()["Iptc.Application2.Caption"].toString() == "Grüße"


def test_libraw_reads_levels_balance_and_orientation(tmp_path: Path) -> None:
    write_single_cr2(
        tmp_path / "a.cr2",
        np.full((96, 128), 1000),
        tags=CameraTags(orientation=8),
        wb_rggb=(1.75, 1.0, 1.0, 2.25),
        black_level=520,
        white_level=15000,
    )
    with rawpy.imread(str(tmp_path / "a.cr2")) as raw:
        assert raw.black_level_per_channel == [520] * 4
        assert raw.camera_white_level_per_channel == [15000] * 4
        assert np.array(raw.camera_whitebalance) / 1024 == pytest.approx([1.75, 1, 2.25, 1])
        assert raw.sizes.flip == 5
        assert (raw.sizes.width, raw.sizes.height) == (128, 96)


def test_the_preview_is_the_picture_given(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 240).astype(np.uint8)[:, None], (160, 240, 3))
    write_single_cr2(tmp_path / "a.cr2", np.full((160, 240), 1000), preview_rgb=ramp)
    with rawpy.imread(str(tmp_path / "a.cr2")) as raw:
        thumbnail = raw.extract_thumb()
    decoded = cv2.imdecode(np.frombuffer(thumbnail.data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == ramp.shape
    assert np.abs(decoded[:, :, ::-1].astype(int) - ramp).max() < 12


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (96, 130, "divide by 4"),
        (95, 128, "divide by 4"),
        (256, 128, "wider than high"),
        (96, 3984 - 160, "3984"),
        (96, 65536 - 160, "65532"),
    ],
)
def test_sizes_that_libraw_would_misread_are_refused(
    tmp_path: Path, height: int, width: int, message: str
) -> None:
    signal = np.zeros((height, width), np.int32)
    with pytest.raises(ValueError, match=message):
        write_dpraw_cr2(tmp_path / "a.cr2", signal, signal)
    assert not (tmp_path / "a.cr2").exists()


def test_views_of_unequal_size_and_values_beyond_14_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="share one sensor"):
        write_dpraw_cr2(tmp_path / "a.cr2", np.zeros((96, 128)), np.zeros((96, 132)))
    with pytest.raises(ValueError, match="14 bits"):
        encode_lossless_jpeg(np.full((2, 2, 4), 16384, np.uint16))


@pytest.mark.slow
def test_full_size_is_bit_exact_and_libraw_uses_its_own_margins(tmp_path: Path) -> None:
    path = tmp_path / "a.cr2"
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 9000, 6720).astype(np.int32)
    left = ramp + rng.integers(-30, 30, (4480, 6720), np.int32)
    right = np.roll(left, 5, axis=0)
    write_dpraw_cr2(path, left, right, photodiode_black=300)
    pair = read_dual(path)
    assert pair.frame_size == (4544, 6880)
    assert pair.active == (BORDER_TOP, BORDER_LEFT, 4480, 6720)
    np.testing.assert_array_equal(pair.composite, np.clip(left + right + 512, 0, 16383))
    np.testing.assert_array_equal(pair.photodiode, left + 300)
    np.testing.assert_allclose(pair.photodiode_black, 300, atol=0.1)
    # LibRaw measures this camera's black itself and agrees: nothing to note.
    assert pair.notes == ()
