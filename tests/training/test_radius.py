"""The patches that the radius network is trained on, and its training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ldp.blur.learned import load_radius_network
from ldp.blur.radius_net import RadiusNet, RadiusNetConfig
from training.radius import PATCH_PX, PatchMaker, loss_of, train


@pytest.fixture(scope="module")
def maker() -> PatchMaker:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    photo = np.asarray(cv2.resize(noise, (480, 360), interpolation=cv2.INTER_NEAREST), np.uint8)
    return PatchMaker([photo], seed=1, kernels=20)


def test_patches_are_views_and_their_radii(maker: PatchMaker) -> None:
    patches = maker.draw(12)
    assert patches.lightness.shape == (12, 2, PATCH_PX, PATCH_PX)
    assert patches.radius_px.shape == (12, 1, PATCH_PX // 4, PATCH_PX // 4)
    assert patches.radius_px.abs().max() <= 36
    assert len(patches.radius_px.unique()) > 6


def test_more_blur_leaves_less_detail(maker: PatchMaker) -> None:
    patches = maker.draw(60)
    detail = patches.lightness.diff(dim=3).abs().mean((1, 2, 3))
    radius = patches.radius_px.abs().mean((1, 2, 3))
    sharpest, softest = detail[radius < 1.5], detail[radius > 8]
    assert sharpest.mean() > 2 * softest.mean()


def test_the_loss_is_least_for_the_truth() -> None:
    radius = torch.full((1, 1, 8, 8), -4.0)
    truth = torch.stack([torch.full((8, 8), v) for v in (2.0, -3.0, -5.0)])[None]
    best = loss_of(truth, radius)
    for channel, change in ((0, 0.5), (0, -0.5), (2, 10.0)):
        other = truth.clone()
        other[:, channel] += change
        assert loss_of(other, radius) > best
    # Where it is wrong, it had better not be sure.
    wrong = truth.clone()
    wrong[:, 0] += 2
    unsure = wrong.clone()
    unsure[:, 1] = 0.7
    assert loss_of(unsure, radius) < loss_of(wrong, radius)


def test_a_training_saves_what_can_be_loaded(maker: PatchMaker, tmp_path: Path) -> None:
    out = tmp_path / "radius.safetensors"
    train(RadiusNet(RadiusNetConfig((4, 6, 8))), maker, out, seconds=0.2, rate=1e-3, batch=2)
    assert load_radius_network(out).config.channels == (4, 6, 8)
