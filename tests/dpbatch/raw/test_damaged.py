"""A damaged Dual Pixel RAW file gives a clear error, never wrong pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dpbatch.errors import DamagedError, PhotoError
from dpbatch.raw.black import measure_masked_level
from dpbatch.raw.checks import check_pair
from dpbatch.raw.clipping import ClipLevels
from dpbatch.raw.container import Container, probe
from dpbatch.raw.reader import read_dual
from tests.helpers.raw_frames import whole_frame
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.writer import (
    BORDER_BOTTOM,
    BORDER_LEFT,
    BORDER_RIGHT,
    BORDER_TOP,
    write_cr2_frames,
)

HEIGHT, WIDTH = 256, 384
FULL = (HEIGHT + BORDER_TOP + BORDER_BOTTOM, WIDTH + BORDER_LEFT + BORDER_RIGHT)
DHT_AT = 7
"""Where the 16 code counts of the Huffman table lie in a frame's stream; the symbols follow."""
RGGB = np.array([[0, 1], [3, 2]], np.int8)


@dataclass(frozen=True)
class Good:
    """A good file and its truth: content, both mosaics, and where frame 0's and 1's streams and the
    raw IFDs' StripOffsets entries lie."""

    content: bytes
    composite: npt.NDArray[np.uint16]
    photodiode: npt.NDArray[np.uint16]
    streams: tuple[int, int]
    offset_entries: tuple[int, int]
    links: tuple[int, ...]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    path = tmp_path_factory.mktemp("raw") / "good.cr2"
    write_test_dpraw(path, HEIGHT, WIDTH, noise_dn=8)
    content = path.read_bytes()
    streams, entries, links, at = [], [], [], 16
    while at:
        (count,) = struct.unpack_from("<H", content, at)
        places = {
            struct.unpack_from("<H", content, at + 2 + 12 * n)[0]: at + 2 + 12 * n + 8
            for n in range(count)
        }
        if 0xC640 in places:
            entries.append(places[0x111])
            streams.append(struct.unpack_from("<I", content, places[0x111])[0])
        links.append(at + 2 + 12 * count)
        (at,) = struct.unpack_from("<I", content, links[-1])
    return Good(
        content,
        whole_frame(path, 0),
        whole_frame(path, 1),
        (streams[0], streams[1]),
        (entries[0], entries[1]),
        tuple(links),
    )


def outcome(folder: Path, content: bytes | bytearray, good: Good) -> str:
    """ "same" or the error's class name; anything else that decodes fails the test."""
    path = folder / "IMG_7.cr2"
    path.write_bytes(content)
    try:
        pair = read_dual(path)
        top, left, height, width = pair.active
        area = (slice(top, top + height), slice(left, left + width))
        same = np.array_equal(pair.composite, good.composite[area])
        assert same, "wrong pixels in frame 0, and no error"
        same = np.array_equal(pair.photodiode, good.photodiode[area])
        assert same, "wrong pixels in frame 1, and no error"
        return "same"
    except PhotoError as error:
        raised = error
    assert str(raised).startswith("IMG_7.cr2: ")
    return type(raised).__name__


@pytest.mark.parametrize(
    "keep", [0.999999, 0.99, 0.8, 0.6, 0.45, 0.2, 0.05, 0.03, 0.01, 0.001, 0.0001]
)
def test_a_truncated_file_is_damaged(tmp_path: Path, good: Good, keep: float) -> None:
    length = int(keep * len(good.content))
    assert outcome(tmp_path, good.content[:length], good) == "DamagedError"


def test_a_file_that_ends_before_a_later_ifd_is_said_to_be_cut_off(
    tmp_path: Path, good: Good
) -> None:
    path = tmp_path / "IMG_7.cr2"
    (following,) = struct.unpack_from("<I", good.content, good.links[0])
    for length in (good.links[0] + 4, following):
        path.write_bytes(good.content[:length])
        with pytest.raises(
            DamagedError, match=f"byte {following}, the file has {length}; it was cut"
        ):
            probe(path)
    looped = bytearray(good.content)
    struct.pack_into("<I", looped, good.links[0], 16)
    path.write_bytes(looped)
    with pytest.raises(DamagedError, match="the chain of IFDs is broken at byte 16"):
        probe(path)


def test_an_empty_file_and_random_bytes_are_unreadable(tmp_path: Path, good: Good) -> None:
    noise = np.random.default_rng(0).bytes(100_000)
    assert outcome(tmp_path, b"", good) == "UnreadableError"
    assert outcome(tmp_path, noise, good) == "UnreadableError"
    assert outcome(tmp_path, noise[:16], good) == "UnreadableError"


@pytest.mark.parametrize("frame", [0, 1])
def test_zeroed_pixels_are_damaged(tmp_path: Path, good: Good, frame: int) -> None:
    content = bytearray(good.content)
    start = good.streams[frame] + 2000
    content[start : start + 20_000] = bytes(20_000)
    assert outcome(tmp_path, content, good) == "DamagedError"


def test_a_garbled_huffman_table_of_frame_1_is_never_wrong_pixels(
    tmp_path: Path, good: Good
) -> None:
    """LibRaw itself decodes some of these to garbage without an error."""
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(60):
        content = bytearray(good.content)
        place = good.streams[1] + DHT_AT + int(rng.integers(0, 28))
        content[place] ^= 1 << int(rng.integers(0, 4))
        outcomes.append(outcome(tmp_path, content, good))
    assert outcomes.count("DamagedError") > 30
    assert set(outcomes) <= {"DamagedError", "same"}


def test_swapped_huffman_symbols_are_damaged(tmp_path: Path, good: Good) -> None:
    """A valid table for another file: every code decodes, to another difference."""
    content = bytearray(good.content)
    symbols = good.streams[1] + DHT_AT + 16
    content[symbols], content[symbols + 1] = content[symbols + 1], content[symbols]
    assert outcome(tmp_path, content, good) == "DamagedError"


def test_frame_1_at_the_place_of_frame_0_is_damaged(tmp_path: Path, good: Good) -> None:
    content = bytearray(good.content)
    first, second = good.offset_entries
    content[second : second + 4] = content[first : first + 4]
    assert outcome(tmp_path, content, good) == "DamagedError"


def test_a_copy_of_frame_0_as_frame_1_is_damaged(tmp_path: Path, good: Good) -> None:
    write_cr2_frames(tmp_path / "a.cr2", [good.composite, good.composite])
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


@pytest.mark.parametrize(
    "shape",
    [(FULL[0] // 2, FULL[1] * 2), (FULL[0] + 64, FULL[1]), (FULL[0], FULL[1] - 8)],
    ids=["same area", "larger", "smaller"],
)
def test_frame_1_of_another_shape_is_damaged(
    tmp_path: Path, good: Good, shape: tuple[int, int]
) -> None:
    other = np.random.default_rng(0).integers(300, 2000, shape, np.uint16)
    write_cr2_frames(tmp_path / "a.cr2", [good.composite, other])
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


def test_frames_of_different_slices_are_damaged(tmp_path: Path, good: Good) -> None:
    half = FULL[1] // 2
    write_cr2_frames(
        tmp_path / "a.cr2",
        [good.composite, good.photodiode],
        slice_widths_px=[half - 20, half + 20],
    )
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


def test_frames_in_the_wrong_order_are_damaged(tmp_path: Path, good: Good) -> None:
    write_cr2_frames(tmp_path / "a.cr2", [good.photodiode, good.composite])
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


def test_three_frames_are_damaged(tmp_path: Path, good: Good) -> None:
    write_cr2_frames(tmp_path / "a.cr2", [good.composite, good.photodiode, good.photodiode])
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


@pytest.mark.parametrize("ifd", range(5))
def test_a_loop_in_the_ifd_chain_is_damaged(tmp_path: Path, good: Good, ifd: int) -> None:
    content = bytearray(good.content)
    struct.pack_into("<I", content, good.links[ifd], 16)
    assert outcome(tmp_path, content, good) == "DamagedError"


def test_an_absurd_frame_size_is_damaged(tmp_path: Path, good: Good) -> None:
    """65535 x 65535 in both headers: refused, and no memory taken for it."""
    content = bytearray(good.content)
    for stream in good.streams:
        place = content.index(b"\xff\xc3", stream) + 5
        struct.pack_into(">HH", content, place, 65535, 65535)
    assert outcome(tmp_path, content, good) == "DamagedError"


def test_frame_1_of_another_photo_is_damaged(tmp_path: Path, good: Good) -> None:
    other = good.photodiode.copy()
    other[BORDER_TOP:-BORDER_BOTTOM] = other[BORDER_TOP:-BORDER_BOTTOM][::-1] // 5 + 240
    write_cr2_frames(tmp_path / "a.cr2", [good.composite, other])
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


@pytest.mark.parametrize("damage", ["one frame", "same area", "larger", "slices", "copy", "order"])
def test_decoding_finds_what_the_structure_does_not_tell(
    tmp_path: Path, good: Good, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a CR3, whose structure names no sizes: the look at the container passes everything."""
    monkeypatch.setattr("dpbatch.raw.reader.probe", lambda path: Container("cr3", 2))
    rng = np.random.default_rng(0)
    half = FULL[1] // 2
    seconds = {
        "same area": rng.integers(300, 2000, (FULL[0] // 2, FULL[1] * 2), np.uint16),
        "larger": rng.integers(300, 2000, (FULL[0] + 64, FULL[1]), np.uint16),
        "slices": good.photodiode,
        "copy": good.composite,
        "order": good.composite,
    }
    first = good.photodiode if damage == "order" else good.composite
    frames = [first, seconds[damage]] if damage in seconds else [first]
    widths = [half - 20, half + 20] if damage == "slices" else None
    write_cr2_frames(tmp_path / "a.cr2", frames, slice_widths_px=widths)
    assert outcome(tmp_path, (tmp_path / "a.cr2").read_bytes(), good) == "DamagedError"


def test_masked_columns_that_tell_nothing_are_not_used() -> None:
    rng = np.random.default_rng(0)
    visible = (10, 60, 100, 80)
    masked = rng.normal(400, 3, (120, 150)).astype(np.uint16)
    level = measure_masked_level(masked, RGGB, visible)
    assert level is not None
    assert level.black == pytest.approx([399.5] * 4, abs=0.3)

    never_stored = np.zeros((120, 150), np.uint16)
    picture = rng.integers(0, 16383, (120, 150), np.uint16)
    assert measure_masked_level(never_stored, RGGB, visible) is None
    assert measure_masked_level(picture, RGGB, visible) is None
    assert measure_masked_level(masked, RGGB, (10, 12, 100, 80)) is None


def test_hot_pixels_do_not_move_the_black() -> None:
    rng = np.random.default_rng(0)
    masked = np.rint(rng.normal(400, 3, (400, 150))).astype(np.uint16)
    hot = rng.random(masked.shape) < 0.01
    level = measure_masked_level(
        np.where(hot, 16000, masked).astype(np.uint16), RGGB, (0, 60, 400, 80)
    )
    assert level is not None
    assert level.black == pytest.approx([400] * 4, abs=0.2)


@pytest.mark.parametrize(("share", "refused"), [(0.05, True), (0.01, False)])
def test_a_few_per_cent_of_impossible_photosites_are_refused(share: float, refused: bool) -> None:
    rng = np.random.default_rng(0)
    composite = (500 + rng.integers(2000, 2050, (200, 200))).astype(np.uint16)
    photodiode = (500 + (composite - 500) // 2).astype(np.uint16)
    photodiode[rng.random((200, 200)) < share] = 9000

    def check() -> None:
        check_pair(
            composite,
            photodiode,
            cfa=RGGB,
            composite_black=np.full(4, 500.0),
            photodiode_black=np.full(4, 500.0),
            clipping=(ClipLevels.at(16383), ClipLevels.at(16383)),
            noise_dn=4.0,
            name="IMG_7.cr2",
        )

    if refused:
        with pytest.raises(DamagedError, match=r"IMG_7.cr2: \d% of the second frame"):
            check()
    else:
        check()


@pytest.mark.parametrize("level_dn", [50.0, 400.0, 3000.0])
@pytest.mark.parametrize("noise_dn", [40.0, 160.0])
def test_noise_is_no_damage_however_little_light_there_is(
    tmp_path: Path, level_dn: float, noise_dn: float
) -> None:
    """The masked columns of these files have no noise, so it is known from the photo alone."""
    path = tmp_path / "IMG_1.CR2"
    write_test_dpraw(path, level_dn=level_dn, noise_dn=noise_dn)
    pair = read_dual(path)
    assert pair.composite.shape == pair.photodiode.shape
