"""A photo's views read in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ldp.restore import photo_views
from ldp.restore.photo_views import RollingViews, read_window, whole
from ldp.types import ViewPair, as_float
from tests.helpers.photo import on_cpu

SIZE = (90, 130)
CPU = torch.device("cpu")


def random_views(dtype: type = np.float32, size: tuple[int, int] = SIZE) -> ViewPair:
    levels = np.random.default_rng(0).integers(0, 255, (2, *size, 3))
    left, right = levels.astype(dtype)
    return ViewPair(left, right)


class Counting:
    """Views that note how often each pixel was computed."""

    def __init__(self, views: ViewPair) -> None:
        self._views = on_cpu(views)
        self.size = views.size
        self.times = np.zeros(views.size, int)

    def pair(self, rows: slice, columns: slice) -> Tensor:
        self.times[rows, columns] += 1
        return self._views.pair(rows, columns)

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        return self._views.untouched(rows, columns)

    def reduced(self, pixels: int) -> ViewPair:
        return self._views.reduced(pixels)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photo_views.BLOCK_PX, "cpu", (16, 32))
    monkeypatch.setitem(photo_views.GRID_PX, "cpu", (16, 32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_part_has_left_before_right_and_white_at_1(dtype: type) -> None:
    views = random_views(dtype)
    part = on_cpu(views).pair(slice(3, 20), slice(7, 90))
    assert part.dtype == torch.float32
    for channels, view in ((part[:3], views.left), (part[3:], views.right)):
        expected = as_float(view[3:20, 7:90]).transpose(2, 0, 1)
        np.testing.assert_allclose(channels, expected, rtol=1e-6)
    mean = on_cpu(views).untouched(slice(3, 20), slice(7, 90))
    np.testing.assert_allclose(mean, (part[:3] + part[3:]) / 2, rtol=1e-6)


def test_windows_of_rolling_views_are_those_of_their_source_and_blocks_are_computed_once() -> None:
    source = Counting(random_views())
    rolling = RollingViews(source, CPU)
    rng = np.random.default_rng(1)
    for top in range(0, 60, 15):  # from the top downwards, as tiles are
        for _ in range(4):
            left, width = int(rng.integers(0, 100)), int(rng.integers(1, 30))
            area = slice(top, top + 30), slice(left, left + width)
            assert torch.equal(rolling.pair(*area), on_cpu(random_views()).pair(*area))
    assert source.times.max() == 1
    assert (source.times == 0).any()


def test_only_the_last_rows_are_kept_and_forgetting_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photo_views, "_KEPT_BYTES", {"cpu": 1})
    source = Counting(random_views())
    rolling = RollingViews(source, CPU)
    for rows in (slice(0, 20), slice(60, 90), slice(0, 20)):
        area = rows, slice(0, 40)
        assert torch.equal(rolling.pair(*area), on_cpu(random_views()).pair(*area))
    assert source.times[:20, :40].max() == 2


def test_windows_side_by_side_share_their_blocks_however_few_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photo_views, "_KEPT_BYTES", {"cpu": 1})
    source = Counting(random_views())
    rolling = RollingViews(source, CPU)
    for left in range(0, 100, 20):
        rolling.pair(slice(3, 80), slice(left, left + 30))
    assert source.times.max() == 1


@pytest.mark.parametrize("size", [(5, 7), (1, 1), SIZE])
def test_a_window_reflects_about_the_border_pixels(size: tuple[int, int]) -> None:
    """Also repeatedly: a window may be larger than the photo."""
    views = random_views(size=size)
    window = read_window(on_cpu(views), -11, -14, size[0] + 14, size[1] + 23)
    mode = "edge" if size == (1, 1) else "reflect"
    for channels, view in ((window[:3], views.left), (window[3:], views.right)):
        expected = np.pad(view, ((11, 3), (14, 9), (0, 0)), mode=mode)  # type: ignore[call-overload]
        np.testing.assert_array_equal(channels, expected.transpose(2, 0, 1))


def test_whole_views_are_their_parts_together() -> None:
    views = random_views()
    again = whole(RollingViews(on_cpu(views), CPU))
    np.testing.assert_array_equal(again.left, views.left)
    np.testing.assert_array_equal(again.right, views.right)
