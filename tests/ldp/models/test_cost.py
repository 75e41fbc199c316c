from dataclasses import replace
from typing import Any

import pytest
import torch

from ldp.models.cost import PAPER_SIZE, cost_of, cost_of_config, cost_of_size
from ldp.models.network import NetworkConfig

MICRO = NetworkConfig(width=4, encoder=(1,), middle=1, decoder=(1,), attention_kernel=3)


@pytest.mark.parametrize(
    ("size", "millions", "tolerance", "giga_macs"),
    [("small", 7.6, 0.03, 270), ("large", 19.6, 0.06, 686)],
)
def test_the_papers_networks_cost_what_the_paper_says(size, millions, tolerance, giga_macs):
    cost = cost_of_size(size)
    assert cost.parameters == pytest.approx(millions * 1e6, rel=tolerance)
    assert cost.macs == pytest.approx(giga_macs * 1e9, rel=0.1)


def test_a_convolution_costs_its_taps():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = MICRO
            self.conv = torch.nn.Conv2d(6, 3, 5, padding=2)

        def forward(self, views, blur):
            return self.conv(views)

    with torch.device("meta"):
        plain: Any = Plain()
        cost = cost_of(plain)
    assert cost.parameters == 6 * 3 * 25 + 3
    assert cost.macs == 6 * 3 * 25 * PAPER_SIZE[0] * PAPER_SIZE[1]


@pytest.mark.parametrize(("map_channel", "attention"), [(True, True), (False, True), (True, False)])
def test_the_soft_prior_costs_nothing(map_channel, attention):
    config = replace(MICRO, map_channel=map_channel, attention=attention)
    plain, soft = (cost_of_config(replace(config, prior=x)) for x in ("amount", "soft"))
    assert plain == soft


@pytest.mark.parametrize("size", ["huge", "Small", ""])
def test_an_unknown_size_is_refused(size):
    known = "tiny, small, large, released, vitdeblur, restormer"
    with pytest.raises(ValueError, match=f"expected one of {known}"):
        cost_of_size(size)
