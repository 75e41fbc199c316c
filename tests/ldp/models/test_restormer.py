import sys
from importlib.util import find_spec

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ldp
from ldp.errors import RestormerUnavailableError, WeightsError
from ldp.models.cost import cost_of_size
from ldp.models.network import parameter_count
from ldp.models.restormer import Restormer, RestormerConfig
from ldp.models.weights import load_network, read_header, save_network

MICRO = RestormerConfig(
    width=4, blocks=(1, 1, 1, 1), refinement=1, heads=(1, 1, 2, 2), expansion=2.0, crop_px=32
)
library = pytest.mark.skipif(
    find_spec("deepinv") is None,
    reason="needs deepinv: pip install 'dpbatch[restormer]'",
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Restormer(MICRO).eval()


@library
def test_the_published_network_costs_what_its_paper_says():
    with torch.device("meta"):
        published = Restormer(RestormerConfig())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            published(torch.empty(1, 6, 256, 256), torch.empty(0))
    assert parameter_count(published) == pytest.approx(26.13e6, rel=1e-3)
    # The paper's 141 G leave the products of the attention out.
    flops = counter.get_flop_counts()["Global"]
    assert flops[torch.ops.aten.convolution] / 2 == pytest.approx(141e9, rel=0.01)
    whole = cost_of_size("restormer").macs
    assert whole == pytest.approx(sum(flops.values()) / 2 * 1680 * 1120 / 256**2, rel=1e-3)


@library
def test_it_reads_both_views_and_no_map(network):
    views = torch.rand(1, 6, 16, 24)
    with torch.inference_mode():
        found = network(views, torch.zeros(1, 1, 16, 24))
        assert found.shape == (1, 3, 16, 24)
        assert torch.equal(network(views, torch.ones(1, 1, 16, 24)), found)
        assert not torch.equal(network(views.flip(1), torch.zeros(1, 1, 16, 24)), found)


@library
def test_what_is_saved_is_loaded_and_restores_a_whole_picture(network, tmp_path):
    path = tmp_path / "restormer.safetensors"
    save_network(network, path, half=False)
    header = read_header(path)
    assert (header.network, header.views, header.blur_map) == ("Restormer", 2, "disparity")
    assert header.is_third_party
    loaded = load_network(path)
    assert loaded.config == MICRO
    assert parameter_count(loaded) == parameter_count(network)

    left, right = torch.rand(2, 3, 20, 27)
    restored = ldp.load(str(path), whole=True, device="cpu").restore(left, right).sharp
    padded = torch.nn.functional.pad(torch.cat([left, right])[None], (0, 5, 0, 4))
    with torch.inference_mode():
        expected = network(padded, torch.zeros(1))[0, :, :20, :27]
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=0)


@library
def test_more_blocks_than_a_file_can_have_are_refused(network, tmp_path):
    path = tmp_path / "many.safetensors"
    network.config = RestormerConfig(blocks=(10**9, 1, 1, 1))
    save_network(network, path)
    with pytest.raises(WeightsError, match="levels and blocks"):
        load_network(path)


def test_without_its_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.setitem(sys.modules, "deepinv.models", None)
    with pytest.raises(RestormerUnavailableError, match=r"needs the library deepinv .*pip install"):
        Restormer(MICRO)
    with pytest.raises(RestormerUnavailableError):
        cost_of_size("restormer")
