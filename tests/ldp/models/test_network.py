from dataclasses import replace

import pytest
import torch

from ldp.models.nafnet import NAFBlock
from ldp.models.network import SIZES, LDPNet, NetworkConfig, parameter_count

MICRO = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), shuffle=2, crop_px=64)


def shaken(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("size", "millions", "tolerance"), [("tiny", 1.46, 0.01), ("small", 7.6, 0.03)]
)
def test_the_sizes_have_as_many_parameters_as_they_say(size, millions, tolerance):
    with torch.device("meta"):
        count = parameter_count(LDPNet(SIZES[size]))
    assert count == pytest.approx(millions * 1e6, rel=tolerance)


@pytest.mark.parametrize("shuffle", [1, 2])
def test_without_its_last_layer_the_network_gives_the_mean_view(shuffle):
    network = shaken(LDPNet(replace(MICRO, shuffle=shuffle)))
    for parameter in network.ending.parameters():
        torch.nn.init.zeros_(parameter)
    side = 3 * network.config.stride
    views, amount = torch.randn(2, 6, side, side), torch.rand(2, 1, side, side)
    torch.testing.assert_close(network(views, amount), (views[:, :3] + views[:, 3:]) / 2)


def test_the_map_decides_what_is_restored():
    network = shaken(LDPNet(MICRO))
    views = torch.rand(1, 6, 32, 32)
    sharp, blurred = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    assert (network(views, sharp) - network(views, blurred)).abs().max() > 1e-3


def test_windows_span_the_crop_at_every_level():
    network = LDPNet(MICRO)
    network.use_local_statistics(64)
    blocks = (*network.naf.encoders, network.naf.middle_blks, *network.naf.decoders)
    windows = [m.window for part in blocks for m in part.modules() if isinstance(m, NAFBlock)]
    assert windows == [32, 16, 8, 16, 32]
    network.use_local_statistics(None)
    assert {m.window for m in network.modules() if isinstance(m, NAFBlock)} == {None}


def test_local_statistics_do_not_change_a_picture_of_the_crops_size():
    network = shaken(LDPNet(MICRO))
    views, amount = torch.rand(1, 6, 64, 64), torch.rand(1, 1, 64, 64)
    whole = network(views, amount)
    network.use_local_statistics(64)
    torch.testing.assert_close(network(views, amount), whole)


def changes(network, plane):
    """Whether the result changes with a plane of the blur map."""
    views, blur = torch.rand(1, 6, 32, 32), torch.rand(1, 2, 32, 32)
    other = blur.clone()
    other[:, plane] = 1 - other[:, plane]
    return not torch.equal(network(views, blur), network(views, other))


def test_a_network_with_the_soft_prior_gives_its_attention_the_soft_plane_alone():
    amount, soft = 0, 1
    network = shaken(LDPNet(replace(MICRO, prior="soft", map_channel=False)))
    assert changes(network, soft)
    assert not changes(network, amount)
    network = shaken(LDPNet(replace(MICRO, prior="soft")))
    assert changes(network, soft)
    assert changes(network, amount)
    network = shaken(LDPNet(replace(MICRO, prior="soft", attention=False)))
    assert not changes(network, soft)


def test_the_soft_prior_needs_no_other_weights_and_is_not_the_default():
    plain, soft = shaken(LDPNet(MICRO)), LDPNet(replace(MICRO, prior="soft")).eval()
    assert MICRO.map_planes == ("amount",)
    assert soft.config.map_planes == ("amount", "soft")
    soft.load_state_dict(plain.state_dict())
    views, amount = torch.rand(1, 6, 32, 32), torch.rand(1, 1, 32, 32)
    assert torch.equal(soft(views, amount.repeat(1, 2, 1, 1)), plain(views, amount))


@pytest.mark.parametrize(("prior", "planes"), [("amount", 2), ("soft", 1)])
def test_a_map_of_other_planes_than_the_network_reads_is_refused(prior, planes):
    network = LDPNet(replace(MICRO, prior=prior))
    with pytest.raises(ValueError, match=f"has {planes} planes, expected {3 - planes}: amount"):
        network(torch.rand(1, 6, 32, 32), torch.rand(1, planes, 32, 32))


def test_an_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="prior 'hard': expected one of amount, soft"):
        LDPNet(replace(MICRO, prior="hard"))  # type: ignore[arg-type]


def test_a_network_of_one_view_reads_one_picture_and_its_noise_level():
    network = shaken(LDPNet(replace(MICRO, views=1, attention=False)))
    picture, level = torch.rand(1, 3, 32, 32), torch.full((1, 1, 32, 32), 0.01)
    alone = network(picture, level)
    assert torch.equal(network(torch.cat([picture, torch.rand_like(picture)], 1), level), alone)
    assert (network(picture, 3 * level) - alone).abs().max() > 1e-3
    for parameter in network.ending.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(network(picture, level), picture)


@pytest.mark.parametrize(
    ("change", "message"), [({"views": 3}, "3 views"), ({"views": 1}, "no blur map")]
)
def test_other_numbers_of_views_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LDPNet(replace(MICRO, **change))
