"""Formats and frames are told apart from the structure alone."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.raw.container import Container, probe
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags
from training.simulator.cr2.writer import write_single_cr2

CANON_UUID = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def cr3(tracks: int, pixels: bytes = b"pixels") -> bytes:
    """The skeleton of a CR3 file with so many lines in Canon's track table."""
    lines = b"".join(box(b"CCDT", struct.pack(">QII", 0, 0, n + 1)) for n in range(tracks))
    cctp = box(b"CCTP", struct.pack(">III", 0, 1, tracks) + lines)
    ascii_entry = struct.Struct("<HHII").pack
    cmt1 = b"II*\0\x08\0\0\0" + struct.pack("<H", 2)
    cmt1 += ascii_entry(0x10F, 2, 6, 38) + ascii_entry(0x110, 2, 13, 44) + bytes(4)
    canon = box(b"uuid", CANON_UUID + cctp + box(b"CMT1", cmt1 + b"Canon\0Canon EOS R7\0"))
    head = box(b"ftyp", b"crx \0\0\0\1crx isom")
    return head + box(b"moov", canon + box(b"mvhd", bytes(20))) + box(b"mdat", pixels)


def test_a_dual_pixel_cr2_has_two_frames(tmp_path: Path) -> None:
    write_test_dpraw(tmp_path / "a.cr2", 96, 128)
    container = probe(tmp_path / "a.cr2")
    assert container == Container("cr2", 2, "Canon", "Canon EOS 5D Mark IV")
    assert container.is_dual_pixel


def test_an_ordinary_cr2_has_one_frame(tmp_path: Path) -> None:
    write_single_cr2(tmp_path / "a.cr2", np.zeros((96, 128)), tags=CameraTags(model="Canon EOS X"))
    container = probe(tmp_path / "a.cr2")
    assert container == Container("cr2", 1, "Canon", "Canon EOS X")
    assert not container.is_dual_pixel


@pytest.mark.parametrize(("tracks", "frames"), [(3, 1), (4, 2)])
def test_cr3_frames_are_counted_by_the_track_table(
    tmp_path: Path, tracks: int, frames: int
) -> None:
    (tmp_path / "a.cr3").write_bytes(cr3(tracks))
    assert probe(tmp_path / "a.cr3") == Container("cr3", frames, "Canon", "Canon EOS R7")


def test_a_crw_has_one_frame(tmp_path: Path) -> None:
    (tmp_path / "a.crw").write_bytes(b"II\x1a\0\0\0HEAPCCDR" + bytes(100))
    assert probe(tmp_path / "a.crw").raw_frames == 1


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.cr2").write_bytes(cr3(4))
    assert probe(tmp_path / "a.cr2").format == "cr3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 a JPEG picture", "not a Canon raw"),
        (b"II*\0\x08\0\0\0 an ordinary TIFF", "not a Canon raw"),
        (b"II", "not a Canon raw"),
    ],
)
def test_other_content_is_unreadable(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "IMG_1.cr2").write_bytes(content)
    with pytest.raises(UnreadableError, match=rf"^IMG_1.cr2: .*{message}"):
        probe(tmp_path / "IMG_1.cr2")


def test_missing_files_and_folders_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"^none.cr2: there is no such file"):
        probe(tmp_path / "none.cr2")
    with pytest.raises(UnreadableError, match="not a file"):
        probe(tmp_path)
    with pytest.raises(UnreadableError, match="cannot be read"):
        probe(tmp_path / ("n" * 5000 + ".cr2"))


@pytest.mark.parametrize("tracks", [0, 2, 5])
def test_a_cr3_with_another_number_of_tracks_is_damaged(tmp_path: Path, tracks: int) -> None:
    (tmp_path / "a.cr3").write_bytes(cr3(tracks))
    with pytest.raises(DamagedError, match=f"{tracks} tracks"):
        probe(tmp_path / "a.cr3")


def test_a_cr3_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    whole = cr3(4, bytes(300))
    for length in range(12, len(whole) - 1, 3):
        (tmp_path / "a.cr3").write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            probe(tmp_path / "a.cr3")


def test_endless_boxes_and_absurd_lengths_end(tmp_path: Path) -> None:
    head = box(b"ftyp", b"crx \0\0\0\1crx isom")
    hostile = {
        "no length": head + struct.pack(">I4s", 4, b"moov") * 50,
        "64 bits": head + struct.pack(">I4sQ", 1, b"moov", 2**64 - 1),
        "many": head + box(b"free", b"") * 100_000 + cr3(4),
    }
    for content in hostile.values():
        (tmp_path / "a.cr3").write_bytes(content)
        with pytest.raises(DamagedError):
            probe(tmp_path / "a.cr3")


def first_ifd(content: bytes | bytearray) -> tuple[int, int]:
    """Where IFD0 starts, and where its link to the next IFD stands."""
    (count,) = struct.unpack_from("<H", content, 16)
    return 16, 16 + 2 + 12 * count


@pytest.mark.parametrize("link", ["itself", "past the end", "inside the header"])
def test_a_broken_ifd_chain_is_damaged(tmp_path: Path, link: str) -> None:
    write_test_dpraw(tmp_path / "a.cr2", 96, 128)
    content = bytearray((tmp_path / "a.cr2").read_bytes())
    start, place = first_ifd(content)
    target = {"itself": start, "past the end": 2**32 - 1, "inside the header": 2}[link]
    struct.pack_into("<I", content, place, target)
    (tmp_path / "a.cr2").write_bytes(content)
    with pytest.raises(DamagedError, match="chain of IFDs"):
        probe(tmp_path / "a.cr2")


def test_an_ifd_that_claims_too_many_entries_is_damaged(tmp_path: Path) -> None:
    write_test_dpraw(tmp_path / "a.cr2", 96, 128)
    content = bytearray((tmp_path / "a.cr2").read_bytes())
    struct.pack_into("<H", content, 16, 60_000)
    (tmp_path / "a.cr2").write_bytes(content)
    with pytest.raises(DamagedError, match="60000 entries"):
        probe(tmp_path / "a.cr2")


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    """Every outcome is a Container, a DamagedError or an UnreadableError."""
    write_test_dpraw(tmp_path / "a.cr2", 96, 128)
    originals = ((tmp_path / "a.cr2").read_bytes(), cr3(4))
    rng = np.random.default_rng(0)
    outcomes: set[type] = set()
    for trial in range(400):
        content = np.frombuffer(originals[trial % 2], np.uint8).copy()
        places = rng.integers(0, min(len(content), 4000), 8)
        content[places] = rng.integers(0, 256, 8)
        (tmp_path / "b").write_bytes(content.tobytes())
        try:
            outcomes.add(type(probe(tmp_path / "b")))
        except (DamagedError, UnreadableError) as error:
            outcomes.add(type(error))
    assert outcomes == {Container, DamagedError, UnreadableError}
