"""CR3 and CR2 files as cameras and other programs leave them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dpbatch.errors import NotDualPixelError, UnreadableError
from dpbatch.raw.canon_tags import CanonTags, read_canon_tags
from dpbatch.raw.container import probe
from dpbatch.raw.develop import develop
from dpbatch.raw.frames import RawPair
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from tests.helpers.cr3_writer import Cr3Camera, write_cr3
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.writer import write_cr2_frames

Mosaic = npt.NDArray[np.uint16]

HEIGHT, WIDTH, LEFT, TOP = 300, 500, 132, 20
"""Of the whole frame, and of its optically black borders."""


def frames(black: int = 512, second_black: int | None = None) -> tuple[Mosaic, Mosaic]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.where((x >= LEFT) & (y >= TOP), 3000 + 1500 * np.sin(x / 40) * np.cos(y / 30), 0)
    composite, photodiode = (
        np.rint(level + share * light + rng.normal(0, 4, light.shape)).astype(np.uint16)
        for level, share in ((black, 1.0), (second_black or black, 0.5))
    )
    return composite, photodiode


def opened(path: Path) -> RawPair:
    return read_dual(path)


def cropped(frame: npt.NDArray[np.uint16], pair: RawPair) -> npt.NDArray[np.uint16]:
    top, left, height, width = pair.active
    return frame[top : top + height, left : left + width]


def test_a_cr3_is_read_bit_exactly(tmp_path: Path) -> None:
    composite, photodiode = frames()
    write_cr3(tmp_path / "a.cr3", composite, photodiode)
    pair = opened(tmp_path / "a.cr3")
    np.testing.assert_array_equal(pair.composite, cropped(composite, pair))
    np.testing.assert_array_equal(pair.photodiode, cropped(photodiode, pair))
    assert (pair.notes, pair.warnings) == ((), ())


@pytest.mark.parametrize("trailer", [b"II*\0" + bytes(1020), b"\0" * 16, b"\xff" * 100, b"xyz"])
def test_bytes_behind_the_last_box_change_nothing(tmp_path: Path, trailer: bytes) -> None:
    composite, photodiode = frames()
    write_cr3(tmp_path / "a.cr3", composite, photodiode, trailer=trailer)
    pair = opened(tmp_path / "a.cr3")
    np.testing.assert_array_equal(pair.composite, cropped(composite, pair))
    np.testing.assert_array_equal(pair.photodiode, cropped(photodiode, pair))


@pytest.mark.parametrize("black", [512, 2048])
def test_black_that_nobody_states_is_measured(tmp_path: Path, black: int) -> None:
    """LibRaw does not know this frame size and finds no margin: only the metadata shows one."""
    composite, photodiode = frames(black, black - 30)
    write_cr3(tmp_path / "a.cr3", composite, photodiode, camera=Cr3Camera(black=None))
    write_cr3(tmp_path / "b.cr3", composite, photodiode, camera=Cr3Camera(black=black))
    unstated, stated = opened(tmp_path / "a.cr3"), opened(tmp_path / "b.cr3")
    assert unstated.composite_black == pytest.approx([black] * 4, abs=0.5)
    assert unstated.photodiode_black == pytest.approx([black - 30] * 4, abs=0.5)
    assert unstated.warnings == ()
    first, second = (develop(pair, RawSettings()) for pair in (unstated, stated))
    height, width = min(first.size, second.size)
    np.testing.assert_allclose(
        first.left[: height - 16, : width - 16], second.left[: height - 16, : width - 16], atol=0.01
    )
    assert stated.composite_black == pytest.approx(unstated.composite_black, abs=0.2)


def test_lit_columns_left_of_the_crop_are_no_black(tmp_path: Path) -> None:
    """LibRaw's margin is the crop, at 144, where light begins at 132."""
    composite, photodiode = frames()
    write_cr3(tmp_path / "a.cr3", composite, photodiode)
    assert opened(tmp_path / "a.cr3").composite_black == pytest.approx([512] * 4, abs=0.5)
    write_cr3(tmp_path / "a.cr3", composite, photodiode, camera=Cr3Camera(active_origin=(144, 32)))
    pair = opened(tmp_path / "a.cr3")  # the metadata is wrong too
    assert pair.composite_black == pytest.approx([512] * 4, abs=0.5)
    assert pair.photodiode_black == pytest.approx([512] * 4, abs=0.5)


def test_black_that_cannot_be_measured_is_a_warning_or_an_error(tmp_path: Path) -> None:
    composite, photodiode = frames()
    composite[:, :LEFT] = photodiode[:, :LEFT] = 0  # never stored
    write_cr3(tmp_path / "a.cr3", composite, photodiode)
    pair = opened(tmp_path / "a.cr3")
    assert pair.composite_black.tolist() == [512] * 4
    assert [warning.split(" (")[0] for warning in pair.warnings] == [
        "composite black could not be measured",
        "photodiode black could not be measured",
    ]
    write_cr3(tmp_path / "a.cr3", composite, photodiode, camera=Cr3Camera(black=None))
    with pytest.raises(UnreadableError, match=r"a.cr3: no black level"):
        opened(tmp_path / "a.cr3")


def test_tags_of_both_formats(tmp_path: Path) -> None:
    composite, photodiode = frames()
    write_cr3(tmp_path / "a.cr3", composite, photodiode)
    assert read_canon_tags(tmp_path / "a.cr3", "cr3") == CanonTags(132, True, 1)
    write_test_dpraw(tmp_path / "a.cr2", 96, 256)
    assert read_canon_tags(tmp_path / "a.cr2", "cr2") == CanonTags(148, True, 1)


@pytest.mark.parametrize("kind", ["cr2", "cr3"])
def test_damaged_tags_are_unknown(tmp_path: Path, kind: str) -> None:
    composite, photodiode = frames()
    path = tmp_path / f"a.{kind}"
    if kind == "cr3":
        write_cr3(path, composite, photodiode)
    else:
        write_test_dpraw(path, 96, 128)
    good = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = good.copy()
        content[rng.integers(16, 4000, 12)] = rng.integers(0, 256, 12)
        path.write_bytes(content.tobytes())
        tags = read_canon_tags(path, kind)
        assert 0 <= tags.first_lit_column < 65536


def message(path: Path) -> str:
    with pytest.raises(NotDualPixelError) as caught:
        opened(path)
    return str(caught.value)


def test_a_burst_roll_says_so(tmp_path: Path) -> None:
    composite, _ = frames()
    write_cr3(tmp_path / "a.cr3", composite, roll=[composite, composite])
    assert message(tmp_path / "a.cr3").startswith("a.cr3: a burst roll of 3 pictures")


def test_a_single_cr3_is_not_dual_pixel(tmp_path: Path) -> None:
    write_cr3(tmp_path / "a.cr3", frames()[0])
    assert message(tmp_path / "a.cr3").endswith("switch on Dual Pixel RAW in the camera")


def test_a_second_frame_that_a_program_dropped_is_named(tmp_path: Path) -> None:
    composite, photodiode = frames()
    path = tmp_path / "a.cr2"
    write_cr2_frames(path, (composite, photodiode))
    content = bytearray(path.read_bytes())
    # As such a program leaves it: the chain of IFDs ends behind the first raw frame.
    place, seen = 16, 0
    while True:
        link = place + 2 + 12 * int.from_bytes(content[place : place + 2], "little")
        seen += 1
        if seen == 4:
            content[link : link + 4] = bytes(4)
            break
        place = int.from_bytes(content[link : link + 4], "little")
    path.write_bytes(content)
    assert probe(path).raw_frames == 1
    assert "DualPixelRaw = On" in message(path)
    assert "switch on" not in message(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("suffix", ["CR2", "CR3"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    os.mkfifo(path)
    with pytest.raises(UnreadableError, match="not a file"):
        opened(path)
    link = tmp_path / f"b.{suffix}"
    link.symlink_to("/dev/zero")
    with pytest.raises(UnreadableError, match="not a file"):
        opened(link)
