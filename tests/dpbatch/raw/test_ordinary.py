"""Raws with one frame, of any camera, through LibRaw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.raw.ordinary import clip_level, picture_size, read_ordinary
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray, as_float
from training.simulator.cr2.layout import CameraTags
from training.simulator.sensor import Sensor, write_ordinary_raw

WHITE, BLACK = 16383, 512
_ROWS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
X_TRANS = np.array([["RGB".index(colour) for colour in row] for row in _ROWS])
_XYZ_TO_SRGB = [3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560]
_XYZ_TO_SRGB += [0.0556434, -0.2040259, 1.0572252]


def smooth(height: int = 96, width: int = 128) -> FloatArray:
    """A picture in linear light without detail that a demosaic could miss."""
    small = np.random.default_rng(0).uniform(0.05, 0.6, (3, 4, 3)).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def write_dng(path: Path, light: FloatArray, pattern: npt.NDArray[np.intp]) -> None:
    """Write linear light as a mosaic of a camera whose colours are sRGB's."""
    height, width = light.shape[:2]
    rows, columns = pattern.shape
    colour = np.tile(pattern, (-(-height // rows), -(-width // columns)))[:height, :width]
    mosaic = np.take_along_axis(light, colour[..., None], 2)[..., 0] * (WHITE - BLACK) + BLACK
    matrix = [x for value in _XYZ_TO_SRGB for x in (round(value * 10_000), 10_000)]
    tags = [
        *((50706, "B", 4, (1, 4, 0, 0), True), (50708, "s", 0, "A camera", True)),
        *((33421, "H", 2, (rows, columns), True),),
        *((33422, "B", pattern.size, bytes(pattern.astype(np.uint8).ravel()), True),),
        *((50714, "I", 1, BLACK, True), (50717, "I", 1, WHITE, True)),
        *((50721, "2i", 9, matrix, True), (50728, "2I", 3, [1, 1] * 3, True)),
        (50778, "H", 1, 21, True),
    ]
    tifffile.imwrite(path, mosaic.astype(np.uint16), photometric=32803, extratags=tags)


def test_an_ordinary_raw_is_developed_neutrally_and_not_turned(tmp_path: Path) -> None:
    light = smooth()
    write_ordinary_raw(tmp_path / "a.CR2", light, Sensor(tags=CameraTags(orientation=6)))
    developed = read_ordinary(tmp_path / "a.CR2", "camera")
    assert developed.orientation == 6
    assert developed.picture.dtype == np.uint16
    error = as_float(developed.picture) - encode_srgb(light)
    assert float(np.abs(error).mean()) < 0.004
    assert developed.preview == b""
    shown = read_ordinary(tmp_path / "a.CR2", "camera", with_preview=True)
    assert shown.preview.startswith(b"\xff\xd8")
    assert picture_size(tmp_path / "a.CR2") == (light.shape[1], light.shape[0])


def test_white_balance_is_chosen_as_for_dual_pixel_raws(tmp_path: Path) -> None:
    light = np.full((64, 64, 3), 0.2, np.float32)
    write_ordinary_raw(tmp_path / "a.CR2", light, Sensor())

    def ratios(white_balance: str) -> list[float]:
        developed = read_ordinary(tmp_path / "a.CR2", white_balance).picture
        means = decode_srgb(as_float(developed)).mean((0, 1))
        return [float(means[0] / means[1]), float(means[2] / means[1])]

    assert ratios("camera") == pytest.approx([1, 1], abs=0.02)
    assert ratios("auto") == pytest.approx([1, 1], abs=0.02)
    warm = ratios("4,1,1.2")
    assert warm[0] > 1.3 > 1 > warm[1]


def test_a_mosaic_that_is_not_bayers_is_developed_too(tmp_path: Path) -> None:
    light = smooth(516, 522)  # LibRaw takes no smaller X-Trans picture
    write_dng(tmp_path / "a.dng", light, X_TRANS)
    developed = read_ordinary(tmp_path / "a.dng", "camera")
    inner = (slice(12, -12), slice(12, -12))
    error = as_float(developed.picture)[inner] - encode_srgb(light)[inner]
    assert float(np.abs(error).mean()) < 0.004


def test_highlights_that_clip_below_the_stated_white_are_neutral(tmp_path: Path) -> None:
    light = smooth(128, 128)
    light[32:96, 32:96] = 4
    clipped = np.minimum(light, np.float32(0.8))
    write_dng(tmp_path / "a.dng", clipped, np.array([[0, 1], [1, 2]]))
    developed = read_ordinary(tmp_path / "a.dng", "2,1,1.5").picture
    assert developed[48:80, 48:80].min() == 65535


def test_samples_that_pile_up_are_clipped_and_bright_ones_that_thin_out_are_not() -> None:
    rng = np.random.default_rng(0)
    scene = rng.gamma(2, 2000, 200_000) + 512
    assert clip_level(scene.clip(0, 65535).astype(np.uint16)) is None
    clipped = np.minimum(scene, 9000 + rng.integers(0, 3, scene.size)).astype(np.uint16)
    level = clip_level(clipped)
    assert level is not None
    assert 8985 <= level <= 9000
    clipped[:1] = 16000  # a hot photosite
    assert clip_level(clipped) == level
    assert clip_level(np.zeros((2, 2), np.uint16)) is None


def test_files_that_libraw_cannot_develop_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"gone\.NEF: cannot be read: No such file"):
        read_ordinary(tmp_path / "gone.NEF", "camera")
    (tmp_path / "text.NEF").write_text("This is no raw file, but a text.\n" * 50)
    with pytest.raises(UnreadableError, match=r"text\.NEF: LibRaw does not read this file"):
        read_ordinary(tmp_path / "text.NEF", "camera")
    write_ordinary_raw(tmp_path / "a.CR2", smooth(), Sensor())
    whole = (tmp_path / "a.CR2").read_bytes()
    (tmp_path / "cut.CR2").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DamagedError, match=r"cut\.CR2: does not decode"):
        read_ordinary(tmp_path / "cut.CR2", "camera")


def test_a_name_that_is_not_ascii_is_read_with_its_preview(tmp_path: Path) -> None:
    write_ordinary_raw(tmp_path / "Käfer.CR2", smooth(), Sensor())
    assert read_ordinary(tmp_path / "Käfer.CR2", "camera", with_preview=True).preview
