import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldp.errors import WeightsError
from ldp.models import weights
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.weights import load_network, read_header, resolve, save_network, sha256

MICRO = NetworkConfig(width=4, encoder=(1,), middle=1, decoder=(1,), attention_kernel=3)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = LDPNet(MICRO)
    path = tmp_path / "micro.safetensors"
    save_network(network, path, {"steps": "5"})
    return network, path


def rewritten(path, change, header=None):
    """The file with its tensors changed by a function, under the same header or another."""
    tensors = load_file(path)
    change(tensors)
    own = {"format": "ldp-1", "config": json.dumps(asdict(MICRO))}
    save_file(tensors, path, metadata=own if header is None else header)
    return path


def test_what_is_saved_comes_back_as_float32_to_half_precision(saved):
    network, path = saved
    loaded = load_network(path)
    assert loaded.config == MICRO
    assert not loaded.training
    for name, value in network.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32
        assert torch.equal(found, value.half().float())
    views, amount = torch.rand(1, 6, 8, 8), torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(loaded(views, amount), network(views, amount), atol=5e-3, rtol=0)


def test_a_file_of_before_attention_below_was_removed_is_read(saved):
    """tiny and small carry the field, empty."""
    network, path = saved
    config = {**asdict(MICRO), "attention_below": []}
    header = {"format": "ldp-1", "config": json.dumps(config)}
    loaded = load_network(rewritten(path, lambda tensors: None, header))
    assert loaded.config == network.config
    header["config"] = json.dumps({**config, "attention_below": [1]})
    with pytest.raises(WeightsError, match=r"attention_below\) is no longer supported"):
        load_network(rewritten(path, lambda tensors: None, header))


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_a_truncated_file_is_refused(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"micro.safetensors: not a readable safetensors"):
        load_network(path)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "sprung",))

    path = tmp_path / "weights.safetensors"
    torch.save({"params": Trap()}, path)
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_network(path)
    assert not (tmp_path / "sprung").exists()


def test_a_foreign_safetensors_file_is_refused(saved):
    _, path = saved
    with pytest.raises(WeightsError, match="format None, expected 'ldp-1'"):
        load_network(rewritten(path, lambda tensors: None, header={}))


@pytest.mark.parametrize(
    "config",
    ["", "[]", '{"width": "wide"}', '{"colour": 3}', '{"width": -4}', '{"encoder": [1, 1]}'],
)
def test_an_unusable_configuration_is_refused(saved, config):
    _, path = saved
    header = {"format": "ldp-1", "config": config}
    with pytest.raises(WeightsError, match=r"micro.safetensors: the network's configuration"):
        load_network(rewritten(path, lambda tensors: None, header))


@pytest.mark.parametrize("format_", ["ldp-1", "ldp-released-1"])
@pytest.mark.parametrize(
    "claimed",
    [
        {"middle": 10**9},
        {"encoder": [10**9, 1, 1, 1]},
        {"decoder": [10**400]},
        {"encoder": [0] * 100_000},
    ],
    ids=lambda claimed: next(iter(claimed)),
)
def test_a_header_that_claims_a_billion_blocks_is_refused_at_once(saved, format_, claimed):
    _, path = saved
    header = {"format": format_, "config": json.dumps(claimed)}
    damaged = rewritten(path, lambda tensors: None, header)
    for read in (read_header, load_network):
        with pytest.raises(
            WeightsError, match=r"levels and blocks, and the file has only \d+ tensors"
        ):
            read(damaged)


@pytest.mark.parametrize("claimed", [{"width": 10**12}, {"shuffle": 10**6}, {"middle": "many"}])
def test_a_network_of_absurd_size_is_refused(saved, claimed):
    _, path = saved
    header = {"format": "ldp-1", "config": json.dumps(asdict(MICRO) | claimed)}
    with pytest.raises(WeightsError):
        load_network(rewritten(path, lambda tensors: None, header))


def test_missing_and_unknown_keys_are_named(saved):
    _, path = saved

    def rename(tensors):
        tensors["beginning.weight"] = tensors.pop("intro.weight")

    with pytest.raises(WeightsError, match=r"1 .*'intro.weight'.* 1 .*'beginning.weight'"):
        load_network(rewritten(path, rename))


def test_a_wrong_shape_is_named(saved):
    _, path = saved

    def shorten(tensors):
        tensors["intro.bias"] = tensors["intro.bias"][:3]

    with pytest.raises(WeightsError, match=r"intro.bias is \(3,\), expected \(4,\)"):
        load_network(rewritten(path, shorten))


def test_weights_that_are_no_numbers_are_refused(saved):
    _, path = saved

    def spoil(tensors):
        tensors["ending.bias"][0] = float("nan")

    with pytest.raises(WeightsError, match=r"ending\.bias holds NaN"):
        load_network(rewritten(path, spoil))


def test_resolve_knows_shipped_names_and_paths(saved, monkeypatch):
    _, path = saved
    monkeypatch.setattr(weights, "SHIPPED", path.parent)
    assert resolve("micro") == path
    assert resolve(str(path)) == path
    with pytest.raises(WeightsError, match=r"huge: no such network .* shipped networks: micro"):
        resolve("huge")
    monkeypatch.setattr(weights, "SHIPPED", path.parent / "none")
    with pytest.raises(WeightsError, match="shipped networks: none"):
        resolve("micro")


def test_sha256_is_of_the_content(saved):
    import hashlib

    _, path = saved
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
