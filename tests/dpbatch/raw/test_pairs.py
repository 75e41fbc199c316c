import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from dpbatch.errors import DamagedError, PairMismatchError, UnreadableError
from dpbatch.raw.pairs import find_pairs, read_pair_views

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (20, 30, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (20, 30, 3), np.uint16)


def save(path: Path, picture: np.ndarray) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, picture, compression="adobe_deflate", predictor=True)
    else:
        stored = picture[..., ::-1] if picture.ndim == 3 and picture.shape[2] == 3 else picture
        assert cv2.imwrite(str(path), stored)
    return path


def names(found):
    return [(str(p.left), str(p.right), p.name, str(p.folder)) for p in found.pairs]


def test_pairs_are_found_by_every_naming_scheme():
    files = [
        *("a/IMG_1_L.tif", "a/IMG_1_R.tif", "a/img_2_l.PNG", "a/img_2_r.png"),
        *("a/IMG_3_L.JPG", "a/IMG_3_R.jpeg"),
        *("b/inputL/0001.png", "b/inputR/0001.png", "b/inputC/0001.png"),
        *("c/test_l/source/1P0A0917_L.png", "c/test_r/source/1P0A0917_R.png"),
        *("c/test_c/source/1P0A0917.png", "c/val_l/source/7.png", "c/val_r/source/7.png"),
    ]
    found = find_pairs(Path(f) for f in reversed(files))
    expected = [
        ("a/IMG_1_L.tif", "a/IMG_1_R.tif", "IMG_1", "a"),
        ("a/IMG_3_L.JPG", "a/IMG_3_R.jpeg", "IMG_3", "a"),
        ("a/img_2_l.PNG", "a/img_2_r.png", "img_2", "a"),
        ("b/inputL/0001.png", "b/inputR/0001.png", "0001", "b"),
        (
            "c/test_l/source/1P0A0917_L.png",
            "c/test_r/source/1P0A0917_R.png",
            "1P0A0917",
            "c/test",
        ),
        ("c/val_l/source/7.png", "c/val_r/source/7.png", "7", "c/val"),
    ]
    assert names(found) == [tuple(str(Path(text)) for text in row) for row in expected]
    assert found.lone == ()


def test_lone_halves_are_told_and_other_files_are_not_touched():
    halves = ["x/A_L.tif", "x/B_R.png", "x/inputL/9.png", "y/A_R.tif"]
    files = [*halves, "x/photo.jpg", "x/raw_L.cr2", "x/_L.png"]
    found = find_pairs(map(Path, files))
    assert found.pairs == ()
    assert [p.as_posix() for p in found.lone] == halves


def test_halves_of_one_format_go_together_first():
    files = ["A_L.png", "A_L.tif", "A_R.jpg", "A_R.tif"]
    found = find_pairs(map(Path, files))
    assert [(p.left.name, p.right.name) for p in found.pairs] == [
        ("A_L.png", "A_R.jpg"),
        ("A_L.tif", "A_R.tif"),
    ]


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("picture", [RGB8, RGB16], ids=["8 bit", "16 bit"])
def test_lossless_pictures_come_back_exactly(tmp_path, suffix, picture):
    left = save(tmp_path / f"a_L{suffix}", picture)
    right = save(tmp_path / f"a_R{suffix}", np.ascontiguousarray(picture[:, ::-1]))
    views = read_pair_views(left, right)
    assert views.left.dtype == picture.dtype
    np.testing.assert_array_equal(views.left, picture)
    np.testing.assert_array_equal(views.right, picture[:, ::-1])
    assert views.orientation == 1


def test_grey_becomes_rgb_and_alpha_is_dropped(tmp_path):
    grey = save(tmp_path / "grey.png", RGB16[..., 0])
    alpha = tmp_path / "alpha.tif"
    tifffile.imwrite(
        alpha, np.dstack([RGB16, RGB16[..., 0]]), photometric="rgb", extrasamples=["unassalpha"]
    )
    planar = tmp_path / "planar.tif"
    tifffile.imwrite(planar, RGB16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    views = read_pair_views(grey, alpha)
    np.testing.assert_array_equal(views.left, np.dstack([RGB16[..., 0]] * 3))
    np.testing.assert_array_equal(views.right, RGB16)
    np.testing.assert_array_equal(read_pair_views(grey, planar).right, RGB16)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_handed_on_and_not_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x112] = 6
    smooth = cv2.GaussianBlur(RGB8, (0, 0), 4)
    for side in "LR":
        Image.fromarray(smooth).save(tmp_path / f"a_{side}.{suffix}", exif=exif, quality=95)
    views = read_pair_views(tmp_path / f"a_L.{suffix}", tmp_path / f"a_R.{suffix}")
    assert views.orientation == 6
    assert np.abs(views.left.astype(int) - smooth).max() < 12


@pytest.mark.parametrize("size", [(1, 1), (20, 1), (300, 2), (1, 30)])
def test_views_of_a_few_pixels_are_read_like_others(tmp_path, size):
    picture = RNG.integers(0, 65536, (*size, 3), np.uint16)
    left, right = (save(tmp_path / f"a_{side}.png", picture) for side in "LR")
    views = read_pair_views(left, right)
    assert np.array_equal(views.left, picture)
    assert np.array_equal(views.right, picture)


def test_views_that_do_not_fit_are_refused(tmp_path):
    left = save(tmp_path / "a_L.png", RGB8)
    small = save(tmp_path / "small.png", RGB8[:10])
    deep = save(tmp_path / "deep.png", RGB16)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x112] = 8
    Image.fromarray(RGB8).save(turned, exif=exif)
    link = tmp_path / "link_R.png"
    os.link(left, link)
    for other, message in (
        (small, "size 30x20, small.png 30x10"),
        (deep, "depth 8 bit, deep.png 16 bit"),
        (turned, "orientation 1, turned.png 8"),
        (link, "one and the same file"),
    ):
        with pytest.raises(PairMismatchError, match=message):
            read_pair_views(left, other)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, suffix, kept):
    whole = save(tmp_path / f"a_L{suffix}", RNG.integers(0, 256, (200, 300, 3), np.uint8))
    cut = tmp_path / f"a_R{suffix}"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DamagedError, match="a_R"):
        read_pair_views(whole, cut)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_changed_bytes_are_damage(tmp_path, suffix):
    whole = save(tmp_path / f"a_L{suffix}", RNG.integers(0, 256, (200, 300, 3), np.uint8))
    content = bytearray(whole.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 40):
        content[place] ^= 0x5A
    broken = tmp_path / f"a_R{suffix}"
    broken.write_bytes(content)
    with pytest.raises(DamagedError, match="a_R"):
        read_pair_views(whole, broken)


def test_what_is_no_picture_of_integers_is_unreadable(tmp_path):
    left = save(tmp_path / "a_L.png", RGB8)
    empty, text, floats = (tmp_path / n for n in ("empty.png", "text.png", "float.tif"))
    empty.write_bytes(b"")
    text.write_text("hello, this is no picture")
    tifffile.imwrite(floats, RGB8.astype(np.float32), photometric="rgb")
    cmyk = tmp_path / "cmyk.jpg"
    Image.fromarray(RGB8).convert("CMYK").save(cmyk)
    for path, message in (
        (tmp_path / "none.png", "No such file"),
        (tmp_path, "directory"),
        (empty, "is empty"),
        (text, "expected a TIFF, PNG or JPEG"),
        (floats, "float32 samples"),
        (cmyk, "CMYK"),
    ):
        with pytest.raises(UnreadableError, match=message):
            read_pair_views(left, path)
