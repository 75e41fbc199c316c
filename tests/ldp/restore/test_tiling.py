import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import from_numpy

from ldp.restore.tiles import store
from ldp.restore.tiling import (
    RowBlender,
    WeightCells,
    blend_weights,
    map_cells,
    pool_map,
    read_map_window,
    read_window,
    spans,
)

SIZES = [1, 2, 15, 16, 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 257, 1000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "overlap"), [(32, 16), (64, 16), (64, 32), (48, 0)])
def test_blend_weights_sum_to_one_everywhere(size, tile, overlap):
    total = np.zeros(size)
    tiles_here = np.zeros(size, int)
    found = spans(size, tile, overlap, 16)
    for span in found:
        assert 1 <= span.length <= tile
        assert span.start % 16 == 0
        total[span.start : span.stop] += blend_weights(span)
        tiles_here[span.start : span.stop] += 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert tiles_here.max() <= 2
    assert (found[0].start, found[-1].stop) == (0, size)


@pytest.mark.parametrize(("tile", "overlap"), [(48, 32), (0, 0), (72, 16), (64, 8)])
def test_tiles_that_would_overlap_thrice_or_leave_the_grid_are_refused(tile, overlap):
    with pytest.raises(ValueError, match="multiples of 16"):
        spans(100, tile, overlap, 16)


def test_weights_rise_without_a_step():
    first, second, *_ = spans(100, 64, 32, 16)
    falling, rising = blend_weights(first)[-32:], blend_weights(second)[:32]
    assert np.all(np.diff(rising) > 0)
    assert rising[0] < 0.01
    np.testing.assert_allclose(falling, rising[::-1], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_window_reflects_about_the_border_pixels(dtype):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (5, 7, 3)).astype(dtype)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    # 11 rows above and 14 columns to the left are more than the picture has: reflected repeatedly.
    expected = np.pad(picture, ((11, 3), (14, 9), (0, 0)), mode="reflect") / white
    window = read_window(picture, -11, -14, 5 + 14, 7 + 23)
    assert window.dtype == np.float32
    np.testing.assert_allclose(window, expected.transpose(2, 0, 1), rtol=1e-6)


def test_a_picture_of_one_pixel_fills_any_window():
    pixel = np.full((1, 1, 3), 51, np.uint8)
    np.testing.assert_allclose(read_window(pixel, -4, -4, 9, 9), 0.2, rtol=1e-6)


@pytest.mark.parametrize("map_size", [(11, 17), (60, 90), (1, 1)])
def test_a_map_is_sampled_as_by_bilinear_resizing(map_size):
    plane = np.random.default_rng(1).random(map_size, np.float32)
    size = (60, 90)
    resized = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
    expected = np.pad(resized, ((20, 20), (13, 13)), mode="reflect")
    window = read_map_window(plane, size, -20, -13, 100, 116)
    np.testing.assert_allclose(window, expected, atol=1e-5)
    np.testing.assert_array_equal(window[33:44, 20:29], read_map_window(plane, size, 13, 7, 11, 9))


def test_a_map_finer_than_the_picture_is_sampled_at_the_pixels_centres():
    plane = np.repeat(np.arange(120, dtype=np.float32)[:, None], 30, axis=1)
    rows = read_map_window(plane, (60, 90), 0, 0, 60, 90)[:, 45]
    np.testing.assert_allclose(rows, np.arange(0, 120, 2) + 0.5, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (63, 130), (97, 33)])
def test_tiles_of_a_picture_blend_back_to_it(size):
    picture = np.random.default_rng(2).random((*size, 3), np.float32)
    rows, columns = (spans(side, 48, 16, 16) for side in size)
    blender = RowBlender(size[1])
    bands = []
    for row in rows:
        for column in columns:
            tile = picture[row.start : row.stop, column.start : column.stop]
            blender.add(row, column, tile)
        assert blender.held_rows <= 48
        bands.append(blender.take(row))
    np.testing.assert_allclose(np.concatenate(bands), picture, atol=1e-6)
    assert blender.held_rows == 0


@pytest.mark.parametrize("size", [(60, 90), (33, 7), (1, 1), (200, 64)])
@pytest.mark.parametrize("map_size", [(11, 17), (60, 90), (1, 1)])
def test_a_pooled_map_is_the_adaptive_pooling_of_the_interpolated_one(size, map_size):
    plane = np.random.default_rng(2).random(map_size, np.float32)
    whole = read_map_window(plane, size, 0, 0, *size)
    expected = F.adaptive_avg_pool2d(from_numpy(whole)[None], 8)[0]
    np.testing.assert_allclose(pool_map(plane, size, 8), expected, atol=1e-6)


def test_weights_of_a_part_are_told_as_by_looking_at_its_cells() -> None:
    rng = np.random.default_rng(3)
    size = (97, 141)
    for shape in ((1, 1), (13, 29), size):
        plane = np.clip(rng.normal(0.5, 1.0, shape), 0, 1).astype(np.float32)
        plane[: shape[0] // 2, shape[1] // 2 :] = 0
        plane[shape[0] // 2 :, : shape[1] // 2] = 1
        told = WeightCells(plane, size)
        seen = set()
        for _ in range(400):
            rows, columns = (
                slice(*sorted(rng.choice(side + 1, 2, replace=False))) for side in size
            )
            cells = plane[map_cells(shape, size, rows, columns)]
            any_above, all_1 = bool(cells.any()), bool(cells.min() == 1)
            assert (told.any(rows, columns), told.all_1(rows, columns)) == (any_above, all_1)
            seen.add((any_above, all_1))
        assert len(seen) == (1 if shape == (1, 1) else 3)


@pytest.mark.parametrize("kind", [torch.uint16, torch.float32])
def test_planes_are_stored_in_a_part_of_a_picture(kind: torch.dtype) -> None:
    for height, width in ((1, 1), (1, 5), (7, 1), (6, 9)):
        picture = torch.zeros((11, 14, 3), dtype=kind)
        planes = torch.arange(3 * (height + 2) * (width + 1)).reshape(3, height + 2, -1).to(kind)
        for part in (planes[:, 1 : 1 + height, :width], planes[:, :height, 1:].contiguous()):
            last = part.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # channels last in memory
            for given in (part, last):
                store(given, picture[3 : 3 + height, 4 : 4 + width])
                expected = np.zeros((11, 14, 3), np.float32)
                expected[3 : 3 + height, 4 : 4 + width] = part.permute(1, 2, 0).numpy()
                np.testing.assert_array_equal(picture.numpy(), expected)
