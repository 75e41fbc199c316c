"""Deflate streams hold what was given, with ISA-L and without, in one piece and in many."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from dpbatch.output import deflate
from dpbatch.output.images import encode_png, encode_tiff


@pytest.fixture(params=["ISA-L", "zlib"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with ISA-L, and as where it is not installed."""
    if request.param == "ISA-L":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(deflate, "isal_zlib", None)


def noisy_ramp(shape: tuple[int, ...], dtype: type[np.uint8 | np.uint16]) -> npt.NDArray[np.uint16]:
    """A gradient with noise, as photos have; its differences wrap at the ends of the range."""
    largest = int(np.iinfo(dtype).max)
    ramp = np.linspace(-0.1, 1.1, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2)) * largest
    noise = np.random.default_rng(0).normal(0, largest / 100, shape)
    return np.asarray((ramp + noise).astype(np.int64) & largest, dtype)


@pytest.mark.parametrize("lengths", [[0], [1], [70_000], [5, 0, 3], [200_000] * 7])
def test_blocks_make_one_stream(lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    # The bytes of 255 carry most into the checksum.
    blocks = [np.where(rng.random(n) < 0.5, 255, rng.integers(0, 256, n)) for n in lengths]
    octets = [block.astype(np.uint8) for block in blocks]
    pieces = deflate.deflated_in_blocks(lambda number: octets[number], range(len(octets)))
    assert zlib.decompress(b"".join(pieces)) == np.concatenate(octets).tobytes()


def test_work_is_done_in_order_and_errors_are_raised() -> None:
    assert deflate.in_threads(lambda item: (item, threading.current_thread().name), range(0)) == []
    assert deflate.in_threads(lambda item: item * 2, range(50)) == list(range(0, 100, 2))
    with pytest.raises(ZeroDivisionError):
        deflate.in_threads(lambda item: 1 // item, range(3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 1, 3), (32, 50, 3), (100, 70, 3), (65, 70)])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_come_back_from_both_formats(
    dtype: type[np.uint8 | np.uint16], shape: tuple[int, ...], turned: bool, tmp_path: Path
) -> None:
    pixels = noisy_ramp(shape, dtype)
    given = np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1] if turned else pixels
    for name, content in (("a.tif", encode_tiff(given, None)), ("a.png", encode_png(given, None))):
        path = tmp_path / name
        path.write_bytes(content)
        read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert read is not None
        assert read.dtype == dtype
        np.testing.assert_array_equal(read[..., ::-1] if read.ndim == 3 else read, pixels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)


def test_files_are_about_as_small_as_those_of_other_writers() -> None:
    pixels = noisy_ramp((200, 300, 3), np.uint16)
    usual = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].size
    assert len(encode_png(pixels, None)) < 1.05 * usual
    assert len(encode_tiff(pixels, None)) < 1.05 * usual
