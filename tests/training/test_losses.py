"""The loss's terms: the same as naive loops, the guard, and what their gradients reach."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from training.losses import (
    LEAST_BLUR_ERROR,
    LossWeights,
    blur_aware,
    blur_weighting,
    charbonnier,
    total,
)

STAGE_TWO = LossWeights(charbonnier_eps=1e-4, blur_aware=0.1, blur_weighting=0.2)


def example(seed=0):
    """restored, sharp, views, amount of two pictures of 16 x 24."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((2, 3, 16, 24), (2, 3, 16, 24), (2, 6, 16, 24), (2, 1, 16, 24))
    return [torch.rand(size, generator=generator) for size in sizes]


def test_charbonnier_is_smooth_at_zero_and_the_error_far_from_it():
    zero, far = torch.zeros(4), torch.full((4,), 0.5)
    assert charbonnier(zero, zero).item() == pytest.approx(1e-4)
    assert charbonnier(zero, zero, 1e-3).item() == pytest.approx(1e-3)
    assert charbonnier(far, zero).item() == pytest.approx(0.5, rel=1e-4)
    restored = torch.zeros(4, requires_grad=True)
    charbonnier(restored, zero).backward()
    assert restored.grad is not None
    assert torch.equal(restored.grad, zero)


def test_charbonnier_is_the_mean_of_its_loop():
    restored, sharp, _, _ = example()
    values = [
        math.sqrt((x - y) ** 2 + 1e-8)
        for x, y in zip(restored.flatten().tolist(), sharp.flatten().tolist(), strict=True)
    ]
    assert charbonnier(restored, sharp).item() == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_charbonnier_per_pixel_is_equation_11():
    restored, sharp, _, _ = example()
    squares = ((restored - sharp) ** 2).sum(1).flatten().tolist()
    expected = sum(math.sqrt(x + 1e-8) for x in squares) / len(squares)
    found = charbonnier(restored, sharp, per_pixel=True).item()
    assert found == pytest.approx(expected, rel=1e-5)
    # Equal errors of the three colours: the square root of 3 times that per channel.
    grey = sharp + 0.1
    ratio = charbonnier(grey, sharp, per_pixel=True) / charbonnier(grey, sharp)
    assert ratio.item() == pytest.approx(math.sqrt(3), rel=1e-5)
    weights = replace(STAGE_TWO, blur_aware=0.0, blur_weighting=0.0, per_pixel=True)
    views, amount = example()[2:]
    assert total(restored, sharp, views, amount, weights).loss.item() == pytest.approx(found)


def test_blur_weighting_is_the_mean_of_its_loop():
    restored, sharp, views, amount = example()
    values = []
    for n in range(2):
        for y in range(16):
            for x in range(24):
                error = error_before = 0.0
                for colour in range(3):
                    wanted = sharp[n, colour, y, x].item()
                    mean = (views[n, colour, y, x].item() + views[n, colour + 3, y, x].item()) / 2
                    error += (wanted - restored[n, colour, y, x].item()) ** 2
                    error_before += (wanted - mean) ** 2
                # The guard is on the mean over the three colours.
                ratio = error / max(error_before, 3 * LEAST_BLUR_ERROR)
                values.append(ratio * amount[n, 0, y, x].item())
    found = blur_weighting(restored, sharp, views, amount).item()
    assert found == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_where_the_views_are_right_already_blur_weighting_stays_finite():
    restored, sharp, _, amount = example()
    restored.requires_grad_()
    exact = torch.cat([sharp, sharp], 1)
    loss = blur_weighting(restored, sharp, exact, amount)
    loss.backward()
    expected = ((restored - sharp).square().mean(1, keepdim=True) * amount).mean()
    assert loss.item() == pytest.approx(expected.item() / LEAST_BLUR_ERROR, rel=1e-5)
    assert torch.isfinite(restored.grad).all()
    assert blur_weighting(sharp, sharp, exact, amount).item() == 0


def test_blur_weighting_looks_at_blurred_places_only():
    restored, sharp, views, _ = example()
    amount = torch.zeros(2, 1, 16, 24)
    amount[..., :12] = 1
    restored.requires_grad_()
    blur_weighting(restored, sharp, views, amount).backward()
    assert restored.grad[..., :12].abs().min() > 0
    assert restored.grad[..., 12:].abs().max() == 0


def test_the_total_is_the_weighted_sum():
    restored, sharp, views, amount = example()

    def map_of(pictures):
        assert pictures.min() >= 0
        assert pictures.max() <= 1
        return pictures.mean(1)[:, ::4, ::4]

    restored = restored * 1.4 - 0.2
    found = total(restored, sharp, views, amount, STAGE_TWO, map_of).loss.item()
    expected = (
        charbonnier(restored, sharp, 1e-4)
        + 0.1 * map_of(restored.clamp(0, 1)).mean()
        + 0.2 * blur_weighting(restored, sharp, views, amount)
    )
    assert found == pytest.approx(expected.item(), rel=1e-6)
    alone = total(restored, sharp, views, amount, LossWeights(1e-4, 0, 0)).loss.item()
    assert alone == charbonnier(restored, sharp, 1e-4).item()


def test_without_a_clip_the_blur_aware_term_is_refused():
    restored, sharp, views, amount = example()
    with pytest.raises(ValueError, match="no CLIP"):
        total(restored, sharp, views, amount, STAGE_TWO)


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("open_clip")
    from ldp.blur.clip_dense import ClipEstimator
    from ldp.blur.clip_model import frozen
    from tests.helpers import clip_reference

    return ClipEstimator.of(frozen(clip_reference.tiny_clip(), torch.device("cpu")))


@pytest.mark.parametrize("term", ["charbonnier", "blur_aware", "blur_weighting"])
def test_every_term_of_stage_two_has_a_gradient_of_its_own(clip, term):
    def gradient(weights, sharp):
        restored, _, views, amount = example()
        restored.requires_grad_()
        total(restored, sharp, views, amount, weights, clip.blur_aware_map).loss.backward()
        return restored.grad

    sharp = example()[1]
    whole = gradient(STAGE_TWO, sharp)
    if term == "charbonnier":
        # It has no weight; with a huge eps its gradient vanishes.
        without = gradient(replace(STAGE_TWO, charbonnier_eps=1e9), sharp)
    else:
        none: dict[str, Any] = {term: 0.0}
        without = gradient(replace(STAGE_TWO, **none), sharp)
    # blur-aware is the weakest by far: a random CLIP hardly cares.
    assert (whole - without).abs().max() > 1e-8
    assert (whole - without).norm() > 1e-4 * whole.norm()


def test_the_blur_aware_loss_reaches_the_picture_and_not_clip_s_weights(clip):
    restored = example()[0].requires_grad_()
    loss = blur_aware(restored, clip.blur_aware_map)
    loss.backward()
    expected = clip.blur_aware_map(restored.detach()).mean()
    assert loss.item() == pytest.approx(expected.item())
    assert 0.27 < loss.item() < 0.73  # the sigmoid of a cosine, not stretched
    assert restored.grad.abs().max() > 0
    assert all(weight.grad is None for weight in clip.clip.network.parameters())
    # A step against the gradient makes the picture look less blurred to CLIP.
    moved = restored.detach() - 0.05 * restored.grad / restored.grad.abs().max()
    assert blur_aware(moved, clip.blur_aware_map).item() < loss.item()
