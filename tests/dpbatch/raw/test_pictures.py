"""Pictures of every depth, encoding and colour profile come out with the right colours."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from dpbatch.errors import DamagedError, PairMismatchError, PhotoError, UnreadableError
from dpbatch.raw.pairs import pair_warnings, read_pair_views
from dpbatch.raw.pictures import read_picture
from ldp.srgb import encode_srgb
from ldp.types import ViewPair
from tests.helpers.huge_tiff import write_huge_tiff

Floats = npt.NDArray[np.float32]

ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]])
"""Linear light, both D65."""


def adobe_rgb() -> bytes:
    return bytes(imagecodecs.cms_profile("adobergb"))


Integers = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def colors(bits: int = 8) -> Integers:
    """A (24, 40, 3) chart with smooth transitions; its corners are pure colours."""
    y, x = np.mgrid[:24, :40]
    red, green = x / 39, y / 23
    chart = np.stack([red, green, (1 - red) * (1 - green)], axis=-1)
    levels = np.rint(chart * ((1 << bits) - 1))
    return levels.astype(np.uint8) if bits == 8 else levels.astype(np.uint16)


def adobe_as_srgb(chart: Integers) -> Floats:
    white = 255 if chart.dtype == np.uint8 else 65535
    light = (chart.astype(np.float64) / white) ** (563 / 256)
    return encode_srgb(np.ascontiguousarray(light @ ADOBE_TO_SRGB.T, np.float32))


@pytest.mark.parametrize("suffix", ["tif", "tif16", "png", "jpg"])
def test_adobe_rgb_is_converted_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix[:3]}"
    chart = colors(16 if suffix == "tif16" else 8)
    if suffix == "tif16":
        tag = (34675, "B", None, adobe_rgb(), True)
        tifffile.imwrite(path, chart, photometric="rgb", extratags=[tag])
    else:
        quality = 100  # of a JPEG
        Image.fromarray(chart).save(path, icc_profile=adobe_rgb(), quality=quality, subsampling=0)
    picture = read_picture(path)
    assert picture.converted
    expected = adobe_as_srgb(chart)
    error = np.abs(picture.pixels - expected)
    assert np.quantile(error, 0.95) < (0.05 if suffix == "jpg" else 0.005)
    green = picture.pixels[23, 0]
    assert green[0] < -0.5
    assert green[1] == pytest.approx(1, abs=0.01)


def test_a_jpeg_that_states_adobe_rgb_in_exif_alone_is_converted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    chart = colors()
    Image.fromarray(chart).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.converted
    assert picture.orientation == 6
    assert np.quantile(np.abs(picture.pixels - adobe_as_srgb(chart)), 0.95) < 0.05


def test_a_wide_gamut_grey_stays_grey(tmp_path: Path) -> None:
    prophoto = imagecodecs.cms_profile(
        "rgb",
        whitepoint=[0.3457, 0.3585, 1.0],
        primaries=[0.7347, 0.2653, 1.0, 0.1596, 0.8404, 1.0, 0.0366, 0.0001, 1.0],
        gamma=1.8,
    )
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=bytes(prophoto))
    pixels = read_picture(tmp_path / "a.png").pixels
    assert np.ptp(pixels, axis=2).max() < 0.004
    light = (np.arange(256) / 255) ** 1.8
    expected = encode_srgb(light.astype(np.float32))
    np.testing.assert_allclose(pixels[0, :, 1], expected, atol=0.004)


def test_grey_profiles_convert_grey_pictures(tmp_path: Path) -> None:
    profile = bytes(imagecodecs.cms_profile("gray", gamma=1.8))
    grey = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=profile)
    pixels = read_picture(tmp_path / "a.png").pixels
    assert pixels.shape == (4, 256, 3)
    expected = encode_srgb(((np.arange(256) / 255) ** 1.8).astype(np.float32))
    np.testing.assert_allclose(pixels[1, :, 2], expected, atol=0.004)


def test_an_srgb_profile_changes_no_pixel(tmp_path: Path) -> None:
    profile = bytes(imagecodecs.cms_profile("srgb"))
    for suffix in ("png", "tif"):
        Image.fromarray(colors()).save(tmp_path / f"a.{suffix}", icc_profile=profile)
        picture = read_picture(tmp_path / f"a.{suffix}")
        assert not picture.converted
        np.testing.assert_array_equal(picture.pixels, colors())


def test_profiles_that_cannot_be_used_are_errors(tmp_path: Path) -> None:
    grey_profile = bytes(imagecodecs.cms_profile("gray", gamma=2.2))
    broken = bytearray(adobe_rgb())
    broken[128:] = bytes(len(broken) - 128)
    for profile, message in (
        (b"no profile at all, but some text of enough length", "colour profile is for"),
        (bytes(broken), "colour profile cannot be used"),
        (grey_profile, "is for 'GRAY' pictures, expected RGB"),
    ):
        Image.fromarray(colors()).save(tmp_path / "a.png", icc_profile=profile)
        with pytest.raises(UnreadableError, match=message):
            read_picture(tmp_path / "a.png")
    Image.fromarray(colors()).save(tmp_path / "a.png", icc_profile=adobe_rgb())
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"iCCP") + 20] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableError, match="does not unpack"):
        read_picture(tmp_path / "a.png")


def test_a_png_of_another_color_space_is_refused_by_name(tmp_path: Path) -> None:
    def with_cicp(code: bytes) -> bytes:
        plain = io.BytesIO()
        Image.fromarray(colors()).save(plain, "PNG")
        content = plain.getvalue()
        chunk = b"cICP" + code
        chunk = struct.pack(">I", len(code)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return content[:33] + chunk + content[33:]

    (tmp_path / "hdr.png").write_bytes(with_cicp(b"\x09\x10\x00\x01"))
    with pytest.raises(UnreadableError, match="cICP 9/16/0/1"):
        read_picture(tmp_path / "hdr.png")
    (tmp_path / "srgb.png").write_bytes(with_cicp(b"\x01\x0d\x00\x01"))
    np.testing.assert_array_equal(read_picture(tmp_path / "srgb.png").pixels, colors())


@pytest.mark.parametrize("bits", [4, 6, 10, 12, 14])
def test_other_depths_span_the_whole_scale(tmp_path: Path, bits: int) -> None:
    largest = (1 << bits) - 1
    rng = np.random.default_rng(0)
    chart = rng.integers(0, largest + 1, (24, 40, 3)).astype(np.uint8 if bits < 8 else np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", chart, photometric="rgb", bitspersample=bits)
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels.dtype == (np.uint8 if bits < 8 else np.uint16)
    white = 255 if bits < 8 else 65535
    expected = np.rint(chart.astype(float) / largest * white)
    np.testing.assert_allclose(picture.pixels, expected, atol=0.51)
    assert picture.bits == bits


def test_a_12_bit_jpeg_spans_the_whole_scale(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16)[None, :, None], (32, 1, 3))
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(ramp, level=98, bitspersample=12))
    pixels = read_picture(tmp_path / "a.jpg").pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_allclose(pixels / 65535, ramp / 4095, atol=0.01)


def test_ycbcr_is_converted_or_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(colors()).convert("YCbCr").save(tmp_path / "a.tif")
    with pytest.raises(UnreadableError, match="YCBCR"):
        read_picture(tmp_path / "a.tif")
    Image.fromarray(colors()).save(tmp_path / "a.tif", compression="jpeg", quality=98)
    pixels = read_picture(tmp_path / "a.tif").pixels
    assert np.abs(pixels.astype(int) - colors()).mean() < 4


def test_other_encodings_are_refused_by_name(tmp_path: Path) -> None:
    picture = Image.fromarray(colors())
    for mode, name in (("CMYK", "SEPARATED"), ("P", "PALETTE"), ("LAB", "CIELAB"), ("1", "1 bit")):
        source = picture if mode != "LAB" else Image.new("LAB", (8, 8))
        source.convert(mode).save(tmp_path / "a.tif")
        with pytest.raises(UnreadableError, match=name):
            read_picture(tmp_path / "a.tif")
    (tmp_path / "a.jpg").write_bytes(imagecodecs.ljpeg_encode(colors(16)[..., 0]))
    with pytest.raises(UnreadableError, match="lossless JPEG"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["P", "1"])
def test_a_png_with_a_palette_or_of_1_bit_has_the_colours_it_shows(
    tmp_path: Path, mode: str
) -> None:
    shown = Image.fromarray(colors()).convert(mode)
    shown.save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(pixels, np.asarray(shown.convert("RGB")))


def test_sizes_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    write_huge_tiff(tmp_path / "many.tif")
    write_huge_tiff(tmp_path / "large.tif", samples=3)
    png = struct.pack(">IIBBBBB", 60000, 60000, 16, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + png
    (tmp_path / "large.png").write_bytes(header + struct.pack(">I", zlib.crc32(b"IHDR" + png)))
    encoded = io.BytesIO()
    Image.fromarray(colors()).save(encoded, "JPEG")
    jpeg = bytearray(encoded.getvalue())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = b"\xff\xdc" * 2
    (tmp_path / "large.jpg").write_bytes(jpeg)
    start = time.process_time()
    with pytest.raises(UnreadableError, match=r"many.tif: 900 samples"):
        read_picture(tmp_path / "many.tif")
    for name in ("large.tif", "large.png", "large.jpg"):
        with pytest.raises(DamagedError, match=rf"{name}: claims 6\d+x6\d+ pixels"):
            read_picture(tmp_path / name)
    assert time.process_time() - start < 5


def test_too_little_memory_is_the_files_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(content: bytes) -> None:
        raise MemoryError

    Image.fromarray(colors()).save(tmp_path / "a.png")
    monkeypatch.setattr(imagecodecs, "png_decode", out_of_memory)
    with pytest.raises(UnreadableError, match=r"a.png: not enough memory"):
        read_picture(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a_L.tif")
    with pytest.raises(UnreadableError, match="a pipe, expected a file"):
        read_picture(tmp_path / "a_L.tif")


def scene(seed: int, blur_px: float = 0.0, shift: int = 0) -> Floats:
    """(160, 240, 3) blobs and edges in [0, 1]."""
    rng = np.random.default_rng(seed)
    picture = np.full((160, 240, 3), 0.3)
    for _ in range(60):
        row, column = rng.integers(0, 150), rng.integers(0, 230)
        height, width = rng.integers(4, 40, 2)
        picture[row : row + height, column : column + width] = rng.random(3)
    picture = np.roll(picture, shift, axis=1)
    if blur_px:
        import cv2

        picture = cv2.GaussianBlur(picture, (0, 0), blur_px)
    return picture.astype(np.float32)


def stored(picture: Floats, noise: float, seed: int) -> npt.NDArray[np.uint8]:
    noisy = picture + noise * np.random.default_rng(seed).standard_normal(picture.shape)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def write_pair(folder: Path, left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> ViewPair:
    Image.fromarray(left).save(folder / "a_L.png")
    Image.fromarray(right).save(folder / "a_R.png")
    return read_pair_views(folder / "a_L.png", folder / "a_R.png")


@pytest.mark.parametrize("seed", range(4))
def test_halves_of_different_photos_are_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(PairMismatchError, match="do not show the same scene"):
        write_pair(tmp_path, stored(scene(seed), 0.02, 1), stored(scene(seed + 10), 0.02, 2))


@pytest.mark.parametrize(
    ("blur_px", "noise", "gain"),
    [(0, 0, 1), (6, 0.01, 1), (15, 0.05, 1), (0, 0.3, 1), (3, 0.02, 0.05), (0, 0.1, 0.02)],
)
@pytest.mark.parametrize("shift", [0, 4, -7])
def test_true_pairs_pass_however_blurred_noisy_or_dark(
    tmp_path: Path, blur_px: float, noise: float, gain: float, shift: int
) -> None:
    left, right = scene(0, blur_px) * gain, scene(0, blur_px, shift) * gain * 0.8
    views = write_pair(tmp_path, stored(left, noise, 1), stored(right, noise, 2))
    assert pair_warnings(views) == ()


def test_pictures_without_structure_pass(tmp_path: Path) -> None:
    for level in (0.0, 0.5):
        flat = np.full((160, 240, 3), level, np.float32)
        write_pair(tmp_path, stored(flat, 0.03, 1), stored(flat, 0.03, 2))


def test_equal_halves_carry_a_warning(tmp_path: Path) -> None:
    picture = stored(scene(0), 0.02, 1)
    views = write_pair(tmp_path, picture, picture)
    (warning,) = pair_warnings(views)
    assert warning.startswith("both halves hold the same picture")


def test_halves_of_different_colors_are_refused(tmp_path: Path) -> None:
    Image.fromarray(colors()).save(tmp_path / "a_L.png", icc_profile=adobe_rgb())
    Image.fromarray(colors()).save(tmp_path / "a_R.png")
    with pytest.raises(PairMismatchError, match=r"colours by its own profile, a_R.png sRGB"):
        read_pair_views(tmp_path / "a_L.png", tmp_path / "a_R.png")


def test_damaged_tags_are_errors_of_the_file_and_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "whole.tif", colors(16), photometric="rgb", rowsperstrip=8)
    whole = (tmp_path / "whole.tif").read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "damaged.tif", 0
    for _ in range(150):
        content = bytearray(whole)
        for place in rng.integers(4, 250, 3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_picture(path)
        except PhotoError:
            refused += 1
    assert refused > 50
    assert capfd.readouterr() == ("", "")
