"""ViTDeblur's network: what it costs, where its features lie, its positions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ldp.models.cost import cost_of_size, cost_of_vitdeblur
from ldp.models.vitdeblur import (
    FEATURES,
    MARGIN_PX,
    ViTDeblur,
    ViTDeblurConfig,
    fixed_positions,
    interpolated_positions,
)
from ldp.models.vitdeblur_weights import from_published
from tests.helpers import vitdeblur_reference as reference

MICRO = ViTDeblurConfig(
    window_px=40, width=8, primary_heads=1, contextual_heads=2, decoder_width=8, decoder_heads=1
)


def test_the_published_network_costs_what_was_measured() -> None:
    cost = cost_of_vitdeblur(ViTDeblurConfig())
    assert str(cost) == str(cost_of_size("vitdeblur"))
    assert round(cost.parameters / 1e6, 1) == 121.6
    assert round(cost.used / 1e6) == 114
    assert round(cost.macs / 1e9, 1) == 126.3
    assert "121.6 M parameters" in str(cost)
    assert "126.3 GMACs a window of 320 px" in str(cost)


def test_the_published_windows() -> None:
    config = ViTDeblurConfig()
    assert (config.tokens, config.covered_px) == (31, 310)
    with torch.device("meta"):
        network = ViTDeblur(config)
        features = network.window_features(torch.empty(2, 3, 320, 320))
        assert features.shape == (2, FEATURES, 310, 310)
        assert network.skip_features(torch.empty(2, 3, 330, 340)).shape == (2, FEATURES, 320, 330)
    assert 2 * MARGIN_PX == 320 - 310


def test_in_double_precision_the_features_are_exactly_the_described_ones() -> None:
    found = reference.random_checkpoint(MICRO.width, MICRO.decoder_width)
    network = from_published(Path("v.pth"), found, MICRO)[0].double()
    window = np.random.default_rng(0).random((40, 40, 3))
    with torch.inference_mode():
        features = network.window_features(torch.from_numpy(window).permute(2, 0, 1)[None])
    weights = {name: value.double().numpy() for name, value in found.items()}
    expected = reference.window_features(window, weights, reference.Sizes(1, 2, 1, window=40))
    np.testing.assert_allclose(features[0].permute(1, 2, 0).numpy(), expected, atol=1e-11)


def test_training_restores_a_window_as_inference_does() -> None:
    torch.manual_seed(0)
    network = ViTDeblur(MICRO).eval()
    blurred, sharp = torch.rand(2, 2, 3, 40, 40)
    with torch.inference_mode():
        features = network.window_features(blurred) + network.skip_features(blurred)
        found = network(blurred, sharp)
        assert torch.equal(found.restored, network.assembled(features))
        same = network(blurred, blurred)
    assert found.predicted.shape == found.true.shape == (2, 1 + 9, 8)
    # An untrained blur_parameter is 1: the tokens of equal pictures are equal.
    assert torch.equal(same.predicted, same.true)
    assert torch.equal(same.blurred_logit, same.sharp_logit)
    assert not torch.equal(found.predicted, found.true)


@pytest.mark.parametrize(("grid", "tokens"), [(35, 31), (14, 35), (31, 31), (5, 3)])
def test_positions_are_interpolated_as_published(grid: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(1, 1 + grid**2, 4, generator=generator, dtype=torch.float64)
    found = interpolated_positions(stored, tokens)
    np.testing.assert_allclose(found[0].numpy(), reference.positions(stored.numpy(), tokens))


def test_random_positions_tell_rows_and_columns_apart() -> None:
    """Tokens of one row share one half of the values, those of one column the other."""
    planes = fixed_positions(14, 16)[0, 1:].view(14, 14, 16)
    assert torch.equal(planes[:, :, :8], planes[:1, :, :8].expand(14, -1, -1))
    assert torch.equal(planes[:, :, 8:], planes[:, :1, 8:].expand(-1, 14, -1))
    assert len(planes.reshape(-1, 16).unique(dim=0)) == 14 * 14


def test_random_weights_follow_the_seed() -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return ViTDeblur(MICRO).state_dict()

    first, same, other = made(1), made(1), made(2)
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["decoder.predict.weight"], other["decoder.predict.weight"])


@pytest.mark.parametrize(
    ("field", "value"), [("window_px", 45), ("window_px", 20), ("width", 10), ("decoder_heads", 3)]
)
def test_shapes_that_cannot_be_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=r"expected a (multiple|divisor)"):
        replace(MICRO, **{field: value})
