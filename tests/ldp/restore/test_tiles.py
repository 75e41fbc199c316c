"""What is kept of a restored photo, what is computed for it, and what happens without memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ldp.errors import DeviceMemoryError
from ldp.restore.deblur import first_that_fits
from ldp.restore.photo_views import StoredViews
from ldp.restore.protect import Kept, Protection
from ldp.types import BlurMap, FloatArray, Plane, ViewPair, to_uint16
from tests.helpers.photo import on_cpu
from tests.helpers.scale_networks import Adding, deblurrer_of

SIZE = (300, 500)
MAP = BlurMap(np.full((4, 6), 0.5, np.float32))
CHANGE = 0.1


def noisy_views(noise: float = 0.02) -> ViewPair:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    light = (0.4 + 0.1 * np.sin(x / 30) * np.cos(y / 40))[..., None].repeat(3, 2)
    left, right = (
        (light + noise * rng.standard_normal(light.shape)).astype(np.float32) for _ in range(2)
    )
    return ViewPair(left, right)


class WithComposite(StoredViews):
    """Views of a photo whose composite is not their mean: a little brighter, without noise."""

    def __init__(self, views: ViewPair) -> None:
        super().__init__(views, torch.device("cpu"))
        self.composite = torch.full((3, *views.size), 0.45)

    def untouched(self, rows: slice, columns: slice) -> Tensor:
        return self.composite[:, rows, columns]


def half_in_focus() -> Plane:
    """0 on the left, 1 on the right, with a slope between."""
    return np.repeat(np.clip((np.arange(100) - 45) / 10, 0, 1)[None], 60, 0).astype(np.float32)


def restored(views: WithComposite, weight: Plane) -> tuple[FloatArray, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    deblurrer = deblurrer_of(Adding(CHANGE, seen))
    return deblurrer.restore(views, MAP, kept=Kept(views, weight)), seen


def test_what_is_in_focus_is_the_composite_and_no_network_sees_it() -> None:
    views = WithComposite(noisy_views())
    sharp, seen = restored(views, half_in_focus())
    _, all_tiles = restored(views, np.ones((1, 1), np.float32))
    assert 0 < len(seen) < 0.65 * len(all_tiles)
    assert (sharp[:, :220] == np.float32(0.45)).all()
    changed = noisy_views()
    expected = (changed.left + changed.right) / 2 + CHANGE
    np.testing.assert_allclose(sharp[:, 290:], expected[:, 290:], atol=1e-6)
    nothing, seen = restored(views, np.zeros((1, 1), np.float32))
    assert not seen
    assert (nothing == np.float32(0.45)).all()


def test_there_is_no_step_where_restored_and_untouched_meet() -> None:
    """Neither across tiles nor along the slope of the weight: it is followed everywhere."""
    sharp, _ = restored(WithComposite(noisy_views(noise=0)), half_in_focus())
    inside = np.abs(np.diff(sharp, axis=1)).max()
    slope_px = 50
    assert inside < 2 * (CHANGE + 0.1) / slope_px
    assert np.abs(np.diff(sharp, axis=0)).max() < 0.005


def test_rounding_part_by_part_is_rounding_the_whole() -> None:
    views = WithComposite(noisy_views())
    kept = Kept(views, half_in_focus())
    deblurrer = deblurrer_of(Adding(CHANGE))
    levels = deblurrer.restore_uint16(views, MAP, kept=kept)
    np.testing.assert_array_equal(levels, to_uint16(deblurrer.restore(views, MAP, kept=kept)))


def test_only_tiles_that_are_computed_count() -> None:
    views = WithComposite(noisy_views())
    counted: list[tuple[int, int]] = []
    deblurrer_of(Adding(CHANGE)).restore(
        views, MAP, lambda done, total: counted.append((done, total)), Kept(views, half_in_focus())
    )
    _, seen = restored(views, half_in_focus())
    assert counted == [(done, len(seen)) for done in range(1, len(seen) + 1)]


def test_strong_noise_comes_back_with_a_share_of_the_change() -> None:
    views = noisy_views(noise=0.04)
    protection = Protection.of(on_cpu(views))
    far = np.full((60, 100), -3, np.float32)
    kept = protection.kept(BlurMap(np.abs(far), far))
    sharp = deblurrer_of(Adding(CHANGE)).restore(protection.shown, MAP, kept=kept)
    change = sharp - (views.left + views.right) / 2
    np.testing.assert_allclose(change, CHANGE * kept.strength, atol=1e-5)
    assert 0 < kept.strength < 1


class SmallMemory(StoredViews):
    """A photo whose larger parts do not fit the memory."""

    def __init__(self, views: ViewPair, largest_px: int) -> None:
        super().__init__(views, torch.device("cpu"))
        self._largest_px = largest_px

    def pair(self, rows: slice, columns: slice) -> Tensor:
        if (rows.stop - rows.start) * (columns.stop - columns.start) > self._largest_px:
            raise MemoryError("Unable to allocate")
        return super().pair(rows, columns)


def test_a_photo_that_no_tile_of_fits_is_an_error_with_a_remedy() -> None:
    views = SmallMemory(noisy_views(), 10)
    with pytest.raises(DeviceMemoryError, match="restore on the CPU"):
        deblurrer_of(Adding(CHANGE), tile_px=512).restore(views, MAP)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"),
        DeviceMemoryError("no tile"),
    ],
)
def test_what_does_not_fit_a_gpu_is_done_on_the_cpu(error: Exception) -> None:
    tried: list[str] = []

    def attempt(device: torch.device) -> str:
        tried.append(device.type)
        if device.type == "cuda":
            raise error
        return device.type

    assert first_that_fits([torch.device("cuda:0"), torch.device("cpu")], attempt) == "cpu"
    assert tried == ["cuda", "cpu"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DeviceMemoryError("no tile"), "no tile"),
        (MemoryError("Unable to allocate 9 GiB"), "of cpu does not hold the photo: Unable to"),
    ],
)
def test_what_does_not_fit_the_cpu_is_not_tried_again(error: Exception, text: str) -> None:
    tried: list[str] = []

    def attempt(device: torch.device) -> str:
        tried.append(device.type)
        raise error

    with pytest.raises(DeviceMemoryError, match=text):
        first_that_fits([torch.device("cpu"), torch.device("cpu")], attempt)
    assert tried == ["cpu"]


def test_an_error_on_a_gpu_that_is_no_lack_of_memory_is_not_hidden() -> None:
    def attempt(device: torch.device) -> str:
        assert device.type == "cuda"
        raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        first_that_fits([torch.device("cuda:0"), torch.device("cpu")], attempt)


def test_a_finish_changes_the_rounded_picture() -> None:
    views = noisy_views()
    deblurrer = deblurrer_of(Adding(CHANGE))
    plain = deblurrer.restore_uint16(views, MAP)
    half = deblurrer.restore_uint16(
        views, MAP, finish=lambda rows: (rows.int() // 2).to(torch.uint16)
    )
    np.testing.assert_array_equal(half, plain // 2)
