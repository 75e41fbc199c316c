import cv2
import numpy as np
import pytest
import torch.nn.functional as F
from torch import from_numpy

from ldp.restore.tiling import (
    RowBlender,
    blend_weights,
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
