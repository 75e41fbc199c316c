"""The paper's CLIP map: as a naive re-statement has it, in windows, at any size, with gradients."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ldp.blur.clip_dense import BLUR_AWARE, DP_AWARE, ClipEstimator, in_windows
from ldp.blur.clip_model import Clip, frozen
from ldp.restore.tiling import Span
from ldp.types import ViewPair, as_float
from tests.helpers import clip_reference as naive
from tests.helpers.peak_memory import peak_memory_gib

PATCH_PX = 8


@pytest.fixture(scope="module")
def clip() -> Clip:
    return frozen(naive.tiny_clip(PATCH_PX), torch.device("cpu"))


def pair(height: int, width: int, seed: int = 0) -> ViewPair:
    """Smooth 16-bit noise; the views differ."""
    noise = np.random.default_rng(seed).random((2, height, width, 3), np.float32)
    left, right = (cv2.GaussianBlur(view, (0, 0), 1.5) for view in noise)
    stretched = (np.clip(4 * view - 1.5, 0, 1) * 65535 for view in (left, right))
    return ViewPair(*(view.reshape(height, width, 3).astype(np.uint16) for view in stretched))


def batch(views: list[ViewPair]) -> tuple[torch.Tensor, torch.Tensor]:
    """left, right: (n, 3, H, W)"""
    sides = ([view.left for view in views], [view.right for view in views])
    left, right = (np.stack([as_float(picture) for picture in side]) for side in sides)
    return torch.from_numpy(left).permute(0, 3, 1, 2), torch.from_numpy(right).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 5), (1, 1), (9, 2)])
@pytest.mark.parametrize("groups", [(True, True), (True, False), (False, True)])
def test_it_agrees_with_the_naive_equations(
    clip: Clip, rows: int, columns: int, groups: tuple[bool, bool]
) -> None:
    views = pair(rows * PATCH_PX, columns * PATCH_PX)
    found = ClipEstimator.of(clip, *groups).estimate(views).soft
    assert found is not None
    expected = naive.soft_map(
        clip.network,
        views.left / 65535,
        views.right / 65535,
        BLUR_AWARE if groups[0] else (),
        DP_AWARE if groups[1] else (),
    )
    assert found.shape == (rows, columns)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert rows * columns == 1 or np.ptp(found) > 1e-3  # else the comparison says little


def test_no_group_at_all_is_refused(clip: Clip) -> None:
    with pytest.raises(ValueError, match="prompts"):
        ClipEstimator.of(clip, blur_aware=False, dp_aware=False)


def test_a_large_photo_is_read_in_windows_that_agree_with_the_naive_equations(clip: Clip) -> None:
    """57 columns do not fit into one window: two of 33, of which 9 are shared."""
    views = pair(2 * PATCH_PX, 57 * PATCH_PX)
    found = ClipEstimator.of(clip, dp_aware=False).soft_map(views)
    left, right = views.left / 65535, views.right / 65535
    first, second = (
        naive.soft_map(clip.network, left[:, where], right[:, where], BLUR_AWARE, ())
        for where in (slice(0, 33 * PATCH_PX), slice(25 * PATCH_PX, 57 * PATCH_PX))
    )
    np.testing.assert_allclose(found[:, :25], first[:, :25], atol=1e-5)
    np.testing.assert_allclose(found[:, 33:], second[:, 8:], atol=1e-5)
    share = (1 - np.cos(np.pi * (np.arange(8) + 0.5) / 8)) / 2
    blended = first[:, 25:] * (1 - share) + second[:, :8] * share
    np.testing.assert_allclose(found[:, 25:33], blended, atol=1e-5)


@pytest.mark.parametrize("cells", [(1, 1), (56, 56), (57, 120), (171, 256), (1, 1000)])
def test_windows_leave_no_step_and_cover_everything(cells: tuple[int, int]) -> None:
    """Each window gives another constant; in the map, neighbours differ by a part of it only."""
    given: list[tuple[Span, Span]] = []

    def read(rows: Span, columns: Span) -> np.ndarray:
        given.append((rows, columns))
        return np.full((rows.length, columns.length), len(given) % 2, np.float32)

    blended = in_windows(cells, read)
    assert blended.shape == cells
    assert max(side.length for window in given for side in window) <= 56
    assert min(side.length for window in given for side in window) >= min(24, *cells)
    for axis in (0, 1):
        assert np.abs(np.diff(blended, axis=axis)).max(initial=0) <= np.pi / 2 / 8 + 1e-6
    plane = np.random.default_rng(0).random(cells, np.float32)
    again = in_windows(cells, lambda y, x: plane[y.start : y.stop, x.start : x.stop])
    np.testing.assert_allclose(again, plane, atol=1e-6)


def test_the_batch_does_not_change_a_map(clip: Clip) -> None:
    estimator = ClipEstimator.of(clip)
    views = [pair(32, 48, seed) for seed in range(3)]
    together = estimator.soft_values(*batch(views)).numpy()
    for one, view in zip(together, views, strict=True):
        np.testing.assert_allclose(one, estimator.soft_map(view), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (7, 9), (33, 47), (64, 8)])
def test_any_size_gives_a_finite_map_of_the_whole_view(clip: Clip, size: tuple[int, int]) -> None:
    amount = ClipEstimator.of(clip).estimate(pair(*size)).amount
    assert amount.shape == tuple(-(-side // PATCH_PX) for side in size)
    assert amount.dtype == np.float32
    assert np.isfinite(amount).all()
    assert amount.min() == 0
    assert amount.max() <= 1


def test_amounts_are_the_soft_map_stretched_over_its_range(clip: Clip) -> None:
    estimator = ClipEstimator.of(clip)
    views = pair(48, 64)
    soft, found = estimator.soft_map(views), estimator.estimate(views)
    np.testing.assert_allclose(found.amount, (soft - soft.min()) / np.ptp(soft), atol=1e-5)
    assert found.disparity_px is None
    # Below the least contrast a map stays flat in proportion.
    calm = replace(estimator, least_contrast=10 * float(np.ptp(soft))).estimate(views).amount
    np.testing.assert_allclose(calm, found.amount / 10, atol=1e-5)


def test_a_constant_map_is_sharp_everywhere(clip: Clip) -> None:
    """Without positions the patches of an even picture are all alike."""
    network = naive.tiny_clip(PATCH_PX)
    torch.nn.init.zeros_(network.visual.positional_embedding)
    grey = np.full((40, 64, 3), 30000, np.uint16)
    estimator = ClipEstimator.of(frozen(network, torch.device("cpu")))
    assert estimator.estimate(ViewPair(grey, grey)).amount.max() < 1e-3


@pytest.mark.parametrize("pixels", [64 * 96, 100 * 150])
def test_a_larger_photo_is_reduced_to_what_is_read(clip: Clip, pixels: int) -> None:
    estimator = replace(ClipEstimator.of(clip), read_pixels=pixels)
    shape = estimator.soft_map(pair(256, 384)).shape
    scale = (pixels / (256 * 384)) ** 0.5
    assert shape == (np.ceil(256 * scale / PATCH_PX), np.ceil(384 * scale / PATCH_PX))


def test_a_camera_s_photo_has_at_least_the_paper_s_resolution() -> None:
    """35 x 53 values for 1120 x 1680, of ViT-B/32's patches."""
    clip = frozen(naive.tiny_clip(32), torch.device("cpu"))
    grey = np.zeros((1, 1, 3), np.uint8)
    for height, width in ((1120, 1680), (4480, 6720), (5464, 8192)):
        view = np.broadcast_to(grey, (height, width, 3))
        rows, columns = ClipEstimator.of(clip, dp_aware=False).soft_map(ViewPair(view, view)).shape
        assert (rows, columns) in ((35, 53), (36, 53))


def test_the_type_of_the_views_does_not_matter_and_what_is_out_of_range_is_clipped(
    clip: Clip,
) -> None:
    estimator = ClipEstimator.of(clip)
    views = pair(32, 40)
    expected = estimator.soft_map(views)
    left, right = (np.where(view == 0, -0.3, as_float(view)) for view in (views.left, views.right))
    left, right = (np.where(view == 1, 1.4, view).astype(np.float32) for view in (left, right))
    assert left.min() < 0
    assert left.max() > 1
    np.testing.assert_allclose(estimator.soft_map(ViewPair(left, right)), expected, atol=1e-6)
    low, high = ((view // 256).astype(np.uint8) for view in (views.left, views.right))
    eight = ViewPair(low, high)
    np.testing.assert_allclose(estimator.soft_map(eight), expected, atol=3e-3)


def test_gradients_reach_the_pictures_and_never_the_weights(clip: Clip) -> None:
    estimator = ClipEstimator.of(clip)
    left, right = (view.clone().requires_grad_() for view in batch([pair(16, 24), pair(16, 24, 1)]))
    estimator.soft_values(left, right).sum().backward()
    for view in (left, right):
        assert view.grad is not None
        assert (view.grad.abs().sum((1, 2, 3)) > 0).all()
    assert all(value.grad is None for value in clip.network.parameters())


def test_the_gradient_of_the_blur_aware_map_is_its_slope(clip: Clip) -> None:
    """Also at a size that is resized first."""
    estimator = ClipEstimator.of(clip)
    picture, _ = batch([pair(21, 30)])
    picture = (0.1 + 0.8 * picture).requires_grad_()
    direction = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    estimator.blur_aware_map(picture).mean().backward()
    assert picture.grad is not None
    slope = float((picture.grad * direction).sum())
    with torch.no_grad():
        ahead, back = (
            float(estimator.blur_aware_map(picture + step * direction).double().mean())
            for step in (1e-2, -1e-2)
        )
    assert slope == pytest.approx((ahead - back) / 2e-2, rel=0.02)


def test_the_blur_aware_map_is_equation_4(clip: Clip) -> None:
    views = pair(24, 40)
    left, _ = batch([views])
    picture = views.left / 65535
    expected = naive.soft_map(clip.network, picture, picture, BLUR_AWARE, ())
    found = ClipEstimator.of(clip).blur_aware_map(left)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_view_that_is_resized_may_be_of_any_type(clip: Clip) -> None:
    estimator = ClipEstimator.of(clip)
    views = pair(33, 47)
    as_floats = ViewPair(as_float(views.left), as_float(views.right))
    np.testing.assert_allclose(estimator.soft_map(as_floats), estimator.soft_map(views), atol=1e-5)


_FIRST_WINDOW = """
import numpy as np, open_clip, torch
from dataclasses import replace
from ldp.blur import clip_dense
from ldp.blur.clip_model import VIT_B_32, frozen
from ldp.types import ViewPair

left, right = (np.full((5464, 8192, 3), value, np.float32) for value in (0.2, 0.4))
network = frozen(open_clip.create_model(VIT_B_32, load_weights=False), torch.device("cpu"))
transformer = network.network.visual.transformer
blocks = transformer.resblocks  # all in memory; two of them compute, and their peaks are alike
transformer.resblocks = blocks[:1].append(blocks[-1])
estimator = replace(clip_dense.ClipEstimator.of(network), read_pixels=left.size)
in_windows, sizes = clip_dense.in_windows, []

def first_alone(cells, read):
    def some(rows, columns):
        sizes.append((rows.length, columns.length))
        if len(sizes) == 1:
            return read(rows, columns)
        return np.zeros(sizes[-1], np.float32)
    return in_windows(cells, some)

clip_dense.in_windows = first_alone
assert estimator.estimate(ViewPair(left, right)).soft.shape == (171, 256)
assert len(sizes) == 24 and max(sizes) == sizes[0], sizes
"""


@pytest.mark.slow
def test_45_megapixels_at_native_size_take_less_than_4_gib() -> None:
    """With a network of ViT-B/32's size, as float views: the first of 24 windows, and the largest,
    has what a whole map needs."""
    assert 2 < peak_memory_gib(_FIRST_WINDOW) < 4


@pytest.mark.slow
def test_all_windows_of_45_megapixels_take_less_than_4_gib() -> None:
    """With a small network: the memory of everything around it."""
    script = (
        "import numpy as np, torch\n"
        "from dataclasses import replace\n"
        "from ldp.blur.clip_dense import ClipEstimator\n"
        "from ldp.blur.clip_model import frozen\n"
        "from ldp.types import ViewPair\n"
        "from tests.helpers.clip_reference import tiny_clip\n"
        "view = np.zeros((5464, 8192, 3), np.uint16) + np.arange(8192, dtype=np.uint16)[:, None]\n"
        "estimator = ClipEstimator.of(frozen(tiny_clip(32), torch.device('cpu')))\n"
        "estimator = replace(estimator, read_pixels=view.size)\n"
        "assert estimator.estimate(ViewPair(view, view[::-1])).amount.shape == (171, 256)\n"
    )
    assert 0.2 < peak_memory_gib(script) < 4
