"""The losses behind one protocol: ViTDeblur's is the same as its naive loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ldp.models.vitdeblur import Compared
from training.losses import charbonnier
from training.objectives import ViTDeblurObjective, sharpness_error, token_distance


def test_token_distance_is_the_mean_of_its_loop() -> None:
    predicted, true = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    distances = []
    for one, other in zip(predicted.reshape(-1, 8), true.reshape(-1, 8), strict=True):
        product = sum(x * y for x, y in zip(one.tolist(), other.tolist(), strict=True))
        norms = math.sqrt(sum(x * x for x in one.tolist()) * sum(y * y for y in other.tolist()))
        distances.append(1 - product / norms)
    assert token_distance(predicted, true).item() == pytest.approx(np.mean(distances), abs=1e-6)
    assert token_distance(3 * true, true).item() == pytest.approx(0, abs=1e-6)
    assert token_distance(-true, true).item() == pytest.approx(2)


def test_sharpness_error_wants_blurred_pictures_low_and_sharp_ones_high() -> None:
    blurred, sharp = torch.tensor([[-1.0], [0.5]]), torch.tensor([[2.0], [-0.3]])
    expected = np.mean([math.log1p(math.exp(x)) for x in blurred.ravel().tolist()])
    expected += np.mean([math.log1p(math.exp(-x)) for x in sharp.ravel().tolist()])
    assert sharpness_error(blurred, sharp).item() == pytest.approx(expected, abs=1e-6)
    confident = torch.full((2, 1), 20.0)
    assert (
        sharpness_error(-confident, confident) < 1e-6 < 30 < sharpness_error(confident, -confident)
    )


def test_the_terms_are_weighted_as_published_and_channels_are_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    views, sharp = torch.rand(2, 6, 8, 8, generator=generator), torch.rand(2, 3, 8, 8)
    batch = (views, torch.zeros(2, 1, 1, 1), sharp)
    objective = ViTDeblurObjective(charbonnier_eps=1e-3, token_weight=0.2, sharpness_weight=0.3)
    blurred_bgr, sharp_bgr = objective.inputs(batch)
    for bgr, rgb in ((blurred_bgr, views[:, :3]), (sharp_bgr, sharp)):
        assert torch.equal(bgr[:, 0], rgb[:, 2])
        assert torch.equal(bgr[:, 2], rgb[:, 0])
    tokens, logit = torch.randn(2, 4, 6), torch.randn(2, 1)
    found = Compared(blurred_bgr, tokens, tokens.flip(0), logit, -logit)
    restored, terms = objective.terms(found, batch)
    assert torch.equal(restored, views[:, :3])
    assert terms.token_distance is not None
    assert terms.sharpness is not None
    assert torch.equal(terms.charbonnier, charbonnier(views[:, :3], sharp, 1e-3))
    expected = terms.charbonnier + 0.2 * (terms.token_distance + 0.3 * terms.sharpness)
    torch.testing.assert_close(terms.loss, expected)
    assert (terms.blur_weighting, terms.blur_aware) == (None, None)
