"""The layers: full size, upright, and the signed disparity readable from the file alone."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from dpbatch.errors import DiskFullError, OutputError
from dpbatch.output.color import apply_orientation
from dpbatch.output.layers import (
    disparity_scale,
    layer_planes,
    layer_values,
    write_darktable_mask,
    write_layers,
)
from dpbatch.output.metadata import ProcessingNote, Written, read_tags
from ldp.types import BlurMap

NOTE = ProcessingNote(version="0.1.0", source="IMG_1.CR2")
SIZE = (60, 90)


def blur_map(largest_px: float = 20.0, size: tuple[int, int] = SIZE) -> BlurMap:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    ramp = (x + 0.3 * y) / (size[1] + 0.3 * size[0])
    return BlurMap(amount=ramp, disparity_px=(2 * ramp - 1) * np.float32(largest_px))


def write(
    stem: Path,
    found: BlurMap,
    orientation: int,
    size: tuple[int, int],
    which: list[str],
    format: str = "tif",
) -> dict[Path, Written]:
    """Write layers of a map that follows the outlines of a plain picture already."""
    planes = layer_planes(found, found, np.zeros((*size, 3), np.uint16), which)
    return write_layers(stem, planes, orientation, NOTE, format=format)


def read(path: Path) -> tuple[npt.NDArray[np.uint16], dict[str, float]]:
    with tifffile.TiffFile(path) as tiff:
        (page,) = tiff.pages
        assert isinstance(page, tifffile.TiffPage)
        assert page.dtype == np.uint16
        return page.asarray(), json.loads(page.description)


@pytest.mark.parametrize("largest_px", [0.0, 20.0, 127.9, 128.1, 400.0])
def test_disparity_is_within_one_step_by_the_file_s_own_formula(
    tmp_path: Path, largest_px: float
) -> None:
    truth = blur_map(largest_px)
    (path,) = write(tmp_path / "IMG_1", truth, 1, SIZE, ["disparity"])
    values, description = read(path)
    disparity_px = (values.astype(np.float64) - description["offset"]) / description["scale"]
    assert truth.disparity_px is not None
    assert np.abs(disparity_px - truth.disparity_px).max() <= 1 / description["scale"]
    tags = read_tags(path)
    assert float(tags["Xmp.dpbatch.DisparityScale"]) == description["scale"]
    assert float(tags["Xmp.dpbatch.DisparityOffset"]) == description["offset"] == 32768


def test_scale_is_the_finest_that_holds_the_range() -> None:
    for largest_px, scale in ((0.0, 256), (127.9, 256), (128.1, 128), (-300.0, 64)):
        assert disparity_scale(np.full((2, 2), largest_px, np.float32)) == scale


def test_amount_spans_the_16_bits(tmp_path: Path) -> None:
    amount = np.array([[0.0, 1.0, 0.5, 1.2, -0.1]], np.float32)
    (path,) = write(tmp_path / "a", BlurMap(amount), 1, (1, 5), ["blur"])
    assert read(path)[0].tolist() == [[0, 65535, 32768, 65535, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_layers_are_upright_and_keep_their_sign(tmp_path: Path, orientation: int) -> None:
    stored = blur_map()
    paths = write(tmp_path / "IMG_1", stored, orientation, SIZE, ["blur", "disparity"])
    assert [path.name for path in paths] == ["IMG_1.blur.tif", "IMG_1.disparity.tif"]
    (blur, _), (disparity, description) = (read(path) for path in paths)
    np.testing.assert_allclose(
        blur / 65535, apply_orientation(stored.amount, orientation), atol=1e-4
    )
    assert stored.disparity_px is not None
    np.testing.assert_allclose(
        (disparity.astype(np.float64) - description["offset"]) / description["scale"],
        apply_orientation(stored.disparity_px, orientation),
        atol=1 / description["scale"],
    )
    assert read_tags(next(iter(paths)))["Exif.Image.Orientation"] == "top, left"


@pytest.mark.parametrize("orientation", [1, 6])
def test_png_layers_hold_what_tiff_layers_hold(tmp_path: Path, orientation: int) -> None:
    arguments = (tmp_path / "a", blur_map(), orientation, SIZE, ["blur", "disparity"])
    paths = write(*arguments), write(*arguments, format="png")
    for tif, png in zip(*paths, strict=True):
        values, description = read(tif)
        np.testing.assert_array_equal(cv2.imread(str(png), cv2.IMREAD_UNCHANGED), values)
        with Image.open(png) as opened:
            assert json.loads(opened.info["Description"]) == description
            assert "icc_profile" not in opened.info
        before, after = read_tags(tif), read_tags(png)
        ours = {key: text for key, text in before.items() if "dpbatch" in key}
        assert len(ours) > 2
        assert {key: text for key, text in after.items() if "dpbatch" in key} == ours


def test_coarse_map_is_enlarged_to_the_photo(tmp_path: Path) -> None:
    coarse, whole = blur_map(size=(15, 22)), (61, 90)
    assert coarse.disparity_px is not None
    (path,) = write(tmp_path / "a.b", coarse, 6, whole, ["disparity"])
    assert path.name == "a.b.disparity.tif"
    values, description = read(path)
    assert values.shape == (90, 61)
    enlarged = cv2.resize(coarse.disparity_px, whole[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(
        (values.astype(np.float64) - description["offset"]) / description["scale"],
        apply_orientation(enlarged, 6),
        atol=1.01 / description["scale"],
    )


def test_layer_without_sign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="signed disparity"):
        write(tmp_path / "a", BlurMap(np.zeros(SIZE, np.float32)), 1, SIZE, ["disparity"])
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError):
        write(tmp_path / "a", blur_map(), 1, SIZE, ["blur", "disparity"])
    assert list(tmp_path.iterdir()) == []


def test_near_is_white_in_the_depth_and_its_numbers_come_back() -> None:
    found = blur_map()
    assert found.disparity_px is not None
    plane = layer_planes(found, found, np.zeros((*SIZE, 3), np.uint16), ["depth"])["depth"]
    nearest, farthest = found.disparity_px.argmax(), found.disparity_px.argmin()
    assert plane.values.flat[nearest] == 65535
    assert plane.values.flat[farthest] == 0
    cut_off = np.percentile(found.disparity_px, [0.1, 99.9])
    np.testing.assert_allclose(layer_values(plane), found.disparity_px.clip(*cut_off), atol=1e-3)


def test_the_mask_for_darktable_is_rgb_in_the_geometry_of_the_sensor(tmp_path: Path) -> None:
    found = blur_map()
    planes = layer_planes(found, found, np.zeros((*SIZE, 3), np.uint16), ["depth", "blur"])
    write_darktable_mask(tmp_path / "a.mask.png", planes, NOTE)
    stored = cv2.imread(str(tmp_path / "a.mask.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored[..., 2], planes["depth"].values)
    np.testing.assert_array_equal(stored[..., 1], planes["blur"].values)
    assert not stored[..., 0].any()
