import hashlib
from dataclasses import asdict

import pytest
import torch
from click.testing import CliRunner

from dpbatch.cli.main import main
from dpbatch.tools import models
from dpbatch.tools.models import describe, network_file
from ldp.errors import WeightsError
from ldp.models import weights
from ldp.models.cost import cost_of_config
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.restormer import Restormer, RestormerConfig
from ldp.models.weights import save_network
from tests.helpers import released_reference as reference

MICRO = NetworkConfig(width=4, encoder=(1,), middle=1, decoder=(1,), attention_kernel=3)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped networks with one in it, and its card."""
    folder = tmp_path / "weights"
    folder.mkdir()
    save_network(LDPNet(MICRO), folder / "micro.safetensors", {"steps": "5", "blur_map": "clip"})
    (folder / "micro.md").write_text("# micro\n\n- Data: none\n- Licence: CC0-1.0\n")
    monkeypatch.setattr(weights, "SHIPPED", folder)
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


def test_describe_needs_no_weights_for_a_size():
    result = run("describe", "--size", "released")
    assert result.exit_code == 0
    assert "7.62 M parameters, 300 GMACs at 1680x1120" in result.output
    result = run("describe", "--size", "huge")
    assert result.exit_code == 2
    assert "expected one of tiny, small, large, released, vitdeblur" in result.output
    assert run("describe").exit_code == 2
    assert run("describe", "micro", "--size", "tiny").exit_code == 2


def test_describe_says_what_file_header_and_card_say(shipped):
    path = shipped / "micro.safetensors"
    lines = dict(line.split(maxsplit=1) for line in describe("micro").splitlines())
    assert lines["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (lines["blur"], lines["licence"], lines["steps"]) == ("map       clip", "CC0-1.0", "5")
    assert lines["cost"] == str(cost_of_config(MICRO))


def test_a_restormer_is_described_as_one_without_a_blur_map(tmp_path):
    pytest.importorskip("deepinv", reason="needs deepinv: pip install 'dpbatch[restormer]'")
    config = RestormerConfig(width=4, blocks=(1, 1, 1, 1), refinement=1, heads=(1, 1, 1, 1))
    path = tmp_path / "restormer.safetensors"
    save_network(Restormer(config), path)
    assert "Restormer, no blur map, licence not stated" in network_file(str(path)).to_line()
    lines = dict(line.split(maxsplit=1) for line in describe(str(path)).splitlines())
    assert lines["reads"] == "two views and no blur map"
    assert lines["cost"] == str(cost_of_config(config))


def test_the_list_names_networks_and_clips(shipped, tmp_path, monkeypatch):
    clip = pytest.importorskip("ldp.blur.clip_model")
    monkeypatch.setattr(clip, "cached_clip_weights", lambda name: None)
    result = run()
    assert result.exit_code == 0
    network, *clips = result.output.splitlines()
    assert network.split()[:1] == ["micro"]
    assert network.endswith("blur map clip, licence CC0-1.0")
    assert [line.split()[2] for line in clips] == ["clip,", "clip-patch,"]
    assert all(line.endswith("not in the cache") for line in clips)
    held = tmp_path / "clip.safetensors"
    held.write_bytes(bytes(2_000_000))
    monkeypatch.setattr(clip, "cached_clip_weights", lambda name: held)
    assert f"2 MB, {held}" in run().output


def test_a_fetched_clip_is_verified_against_the_name_that_the_cache_gives_it(tmp_path, monkeypatch):
    clip = pytest.importorskip("ldp.blur.clip_model")
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    blob, link = tmp_path / digest, tmp_path / "open_clip_model.safetensors"
    blob.write_bytes(content)
    link.symlink_to(blob)
    monkeypatch.setattr(clip, "clip_weights_file", lambda *_: link)
    result = run("fetch", "clip-patch")
    assert result.exit_code == 0
    assert "ViT-B-16" in result.output
    assert digest in result.output
    blob.write_bytes(b"wrights")
    with pytest.raises(WeightsError, match=f"expected {digest}; delete"):
        models.fetch_clip("clip-patch")


def test_fetching_without_internet_is_an_error_and_not_a_crash(monkeypatch):
    pytest.importorskip("open_clip")
    import huggingface_hub
    import open_clip

    def unreachable(entry):
        raise FileNotFoundError("no route")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    result = run("fetch", "clip")
    assert result.exit_code == 3
    assert "no route" in result.output
    assert "  dpbatch models fetch clip\n" in result.output


def test_nothing_is_in_an_empty_cache(monkeypatch):
    clip = pytest.importorskip("ldp.blur.clip_model")
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *file: asked.append(file))
    assert clip.cached_clip_weights(clip.VIT_B_32) is None
    assert asked[0] == ("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")


def test_converting_from_the_command_line(tmp_path):
    found = reference.random_weights()
    path, out = tmp_path / "model.pth", tmp_path / "ldp-released.safetensors"
    torch.save({"params": {name: torch.tensor(x).float() for name, x in found.items()}}, path)
    result = run("convert", path, "--out", out)
    assert result.exit_code == 0
    assert "not used by the network: ca.qkv_dwconv.weight" in result.output
    described = run("describe", out).output
    assert "7.62 M parameters" in described
    assert "clip-patch" in described
    path.write_text("no checkpoint")
    result = run("convert", path, "--out", out)
    assert result.exit_code == 3
    assert "not a PyTorch checkpoint" in result.output


def test_the_configuration_is_described_whole(shipped):
    text = describe("micro")
    assert all(f'"{name}"' in text for name in asdict(MICRO))
