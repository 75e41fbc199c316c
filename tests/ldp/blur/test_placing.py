"""Depths are placed at the outlines of the restored picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ldp.blur.falloff import evening
from ldp.blur.outline_net import (
    COARSE_PLANES,
    FINE_PLANES,
    LEVELS,
    OutlineNet,
    OutlineNetConfig,
    mixed,
)
from ldp.blur.outline_planes import OutlinePlanes, outline_planes
from ldp.blur.outline_weights import (
    load_outline_network,
    save_outline_network,
    shipped_placer,
)
from ldp.blur.placing import OutlinePlacer
from ldp.errors import WeightsError
from ldp.types import BlurMap, FloatArray, Plane, ViewPair

SMALL = OutlineNetConfig((4, 6, 8, 8, 8))
SIZE = (226, 314)
FAR_PX, NEAR_PX = -3.0, 3.0
SCALE_PX = 4.0
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
FROM_OUTLINE_PX = 75 - np.hypot(X - 150, Y - 110)
"""Positive within something near and round."""
AWAY = np.abs(FROM_OUTLINE_PX) > 12


class _Says(OutlineNet):
    """A network that is sure of one level everywhere."""

    def __init__(self, level: int) -> None:
        super().__init__(SMALL)
        self.level = level

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        found = torch.zeros(len(fine), LEVELS + 1, *fine.shape[2:])
        found[:, self.level] = 1
        return found


def _texture(seed: int) -> FloatArray:
    noise = np.random.default_rng(seed).normal(0, 1, (*SIZE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2)
    return np.asarray((0.45 + 0.15 * smooth / smooth.std()).clip(0, 1), np.float32)


def _moved(plane: FloatArray, shift_px: float) -> FloatArray:
    matrix = np.array([[1, 0, shift_px], [0, 1, 0]], np.float32)
    return np.asarray(
        cv2.warpAffine(plane, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT), np.float32
    )


def _scene() -> tuple[ViewPair, FloatArray]:
    """Two textures of like brightness, one before the other, and the sharp picture."""
    far, near = _texture(1), _texture(2)
    alpha = (FROM_OUTLINE_PX + 0.5).clip(0, 1).astype(np.float32)

    def view(side: float) -> FloatArray:
        behind, before = (
            cv2.GaussianBlur(_moved(each, side * px / 2), (0, 0), 2.0)
            for each, px in ((far, FAR_PX), (near * alpha[..., None], NEAR_PX))
        )
        cover = cv2.GaussianBlur(_moved(alpha, side * NEAR_PX / 2), (0, 0), 2.0)[..., None]
        return np.asarray(behind * (1 - cover) + before, np.float32)

    sharp = far + alpha[..., None] * (near - far)
    return ViewPair(view(1), view(-1)), np.asarray(sharp, np.float32)


VIEWS, SHARP = _scene()


def _map(shrunk_px: float, falloff: float = 0.0) -> BlurMap:
    """A map in which what is near is too small."""
    disparity_px = np.where(shrunk_px < FROM_OUTLINE_PX, NEAR_PX, FAR_PX).astype(np.float32)
    disparity_px = disparity_px * evening(SIZE[1], falloff)
    confidence = np.full(SIZE, 0.6, np.float32)
    amount = -np.expm1(-np.abs(disparity_px) / np.float32(SCALE_PX))
    return BlurMap(amount, disparity_px, confidence, falloff=falloff)


def _at_size(plane: FloatArray | None) -> FloatArray:
    assert plane is not None
    return np.asarray(cv2.resize(plane, SIZE[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _wrong(placed_px: FloatArray | None) -> float:
    return float(((_at_size(placed_px) > 0) != (FROM_OUTLINE_PX > 0)).mean())


def test_the_rim_of_what_is_near_is_found() -> None:
    for too_small_px in (8, 12):
        before = _map(too_small_px)
        found = shipped_placer().placed(before, VIEWS, SHARP, SCALE_PX)
        assert _wrong(found.placed_px) < 0.6 * _wrong(before.disparity_px)


def test_a_map_that_is_right_stays_so() -> None:
    assert _wrong(shipped_placer().placed(_map(0), VIEWS, SHARP, SCALE_PX).placed_px) < 0.01


@pytest.fixture
def _all_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(planes: OutlinePlanes, found: Plane) -> tuple[Plane, Plane]:
        return found, np.ones_like(found)

    monkeypatch.setattr("ldp.blur.placing.believed", whole)


@pytest.mark.usefixtures("_all_is_believed")
@pytest.mark.parametrize("falloff", [0.0, 0.4])
def test_levels_are_disparities_of_the_full_size_view(falloff: float) -> None:
    """They lie between the depths of the map and somewhat beyond, as the views show them."""
    large = [cv2.resize(view, (SIZE[1] * 4, SIZE[0] * 4)) for view in (VIEWS.left, VIEWS.right)]
    views = ViewPair(np.asarray(large[0], np.float32), np.asarray(large[1], np.float32))
    evened = evening(SIZE[1], falloff)
    step_px = 1.3 * (NEAR_PX - FAR_PX) / (LEVELS - 1)
    for level in (LEVELS // 2 - 1, LEVELS // 2 + 1):
        found = OutlinePlacer(_Says(level)).placed(_map(0, falloff), views, SHARP, SCALE_PX)
        placed_px = _at_size(found.placed_px) / evened
        np.testing.assert_allclose(
            placed_px[AWAY], step_px * (level - LEVELS // 2), atol=0.15 * step_px
        )


def test_where_the_network_keeps_the_map_nothing_changes() -> None:
    planes = outline_planes(_map(3), VIEWS, SHARP)
    found = OutlinePlacer(_Says(LEVELS)).placed(_map(3), VIEWS, SHARP, SCALE_PX).placed_px
    assert planes is not None
    assert found is not None
    np.testing.assert_allclose(found, planes.disparity_px(planes.own), atol=1e-4)


@pytest.mark.usefixtures("_all_is_believed")
def test_the_amount_follows_the_disparity_that_was_placed() -> None:
    for level in (LEVELS // 2, LEVELS // 2 + 1, LEVELS):
        found = OutlinePlacer(_Says(level)).placed(_map(0), VIEWS, SHARP, SCALE_PX)
        amount = 1 - np.exp(-np.abs(_at_size(found.placed_px)) / SCALE_PX)
        np.testing.assert_allclose(_at_size(found.placed_amount)[AWAY], amount[AWAY], atol=0.03)


class _Wavers(OutlineNet):
    """A network that has the farthest and the nearest level for equally likely."""

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        found = torch.zeros(len(fine), LEVELS + 1, *fine.shape[2:])
        found[:, [0, LEVELS - 1]] = 0.5
        return found


@pytest.mark.usefixtures("_all_is_believed")
def test_between_near_and_far_nothing_is_in_focus() -> None:
    found = OutlinePlacer(_Wavers(SMALL)).placed(_map(0), VIEWS, SHARP, SCALE_PX)
    np.testing.assert_allclose(_at_size(found.placed_px), 0, atol=0.1)
    largest_px = 1.3 * (NEAR_PX - FAR_PX) / 2
    amount = 1 - np.exp(-largest_px / SCALE_PX)
    np.testing.assert_allclose(_at_size(found.placed_amount)[AWAY], amount, atol=0.03)


def test_what_has_no_outlines_comes_back_as_it_is() -> None:
    placer = OutlinePlacer(_Says(0))
    ones = np.ones(SIZE, np.float32)
    for blur_map in (
        BlurMap(ones),
        BlurMap(ones, ones),
        BlurMap(ones, ones, ones),
        replace(_map(0), confidence=None),
    ):
        assert placer.placed(blur_map, VIEWS, SHARP, SCALE_PX) is blur_map
    few = slice(0, 40)
    small = ViewPair(VIEWS.left[few], VIEWS.right[few])
    assert placer.placed(_map(0), small, SHARP[few], SCALE_PX).placed_px is None


def test_the_network_gives_every_pixel_its_shares() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        found = OutlineNet(SMALL)(
            torch.randn(2, FINE_PLANES, 64, 96), torch.randn(2, COARSE_PLANES, 32, 48)
        )
    assert found.shape == (2, LEVELS + 1, 64, 96)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    own = torch.rand(2, 1, 64, 96)
    only_own = torch.zeros_like(found)
    only_own[:, LEVELS:] = 1
    np.testing.assert_allclose(mixed(only_own, own), own)
    assert 0 <= mixed(found, own).min() <= mixed(found, own).max() <= 1


def test_weights_go_through_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = OutlineNet(SMALL).eval()
    path = tmp_path / "outlines.safetensors"
    save_outline_network(network, path, {"steps": "7"})
    planes = torch.rand(1, FINE_PLANES, 32, 64), torch.rand(1, COARSE_PLANES, 16, 32)
    with torch.inference_mode():
        np.testing.assert_allclose(load_outline_network(path)(*planes), network(*planes), atol=0.01)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"outlines\.safetensors: not the weights of the outl"):
        load_outline_network(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """They would give places that are no numbers, far from the file that they come from."""
    network, path = OutlineNet(SMALL), tmp_path / "outlines.safetensors"
    with torch.no_grad():
        network.ending.weight[0] = float("nan")
    save_outline_network(network, path)
    with pytest.raises(WeightsError, match=r"outlines\.safetensors: .* not finite"):
        load_outline_network(path)
