"""ViTDeblur's published checkpoint and a masked autoencoder's, written here and read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import ldp
from dpbatch.cli.main import main
from ldp.errors import WeightsError
from ldp.models.conversion import convert
from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig, interpolated_positions
from ldp.models.vitdeblur_weights import load_encoder, load_vitdeblur, published_name
from ldp.models.weights import read_header, save_network
from tests.helpers import vitdeblur_reference as reference

MICRO = ViTDeblurConfig(
    window_px=40, width=8, primary_heads=1, contextual_heads=2, decoder_width=8, decoder_heads=1
)
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def published() -> Tensors:
    return reference.random_checkpoint(MICRO.width, MICRO.decoder_width)


def written(folder: Path, tensors: Tensors, **also: Any) -> Path:
    """Write a checkpoint as training leaves it, with the states of optimizer and scheduler."""
    path = folder / "pretrained.pth"
    moments = {name: {"exp_avg": torch.zeros_like(x)} for name, x in tensors.items()}
    optimizers = [{"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}]
    schedulers = [{"milestones": {1: 2}, "last_epoch": 3}]
    content = {"epoch": 7, "optimizers": optimizers, "schedulers": schedulers, **also}
    torch.save({"state_dict": tensors, **content}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_checkpoint_becomes_a_file_that_restores(
    tmp_path: Path, published: Tensors, prefix: str
) -> None:
    named = {f"{prefix}{name}": value for name, value in published.items()}
    path, out = written(tmp_path, named), tmp_path / "vitdeblur.safetensors"
    converted = convert(path, out, vitdeblur=MICRO)
    assert len(converted.unused) == 1 + 12 + 2 + 2 + 8
    assert "primary_encoder.pretrain_mae.blocks.4.mlp.fc1.weight" in converted.unused
    header = read_header(out)
    assert (header.format, header.notes["source"]) == ("vitdeblur-1", "pretrained.pth")
    loaded = load_vitdeblur(out)
    assert loaded.config == MICRO
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, published[published_name(name)])
    named_here = {published_name(name) for name in loaded.state_dict()}
    assert named_here | set(converted.unused) == published.keys()
    model = ldp.load_single(str(out), device="cpu", window_stride=30, padding="reflect")
    assert (model.info.name, model.info.network) == ("vitdeblur", "ViTDeblur")
    assert "non-commercial" in model.info.licence
    assert model.info.settings["window_stride"] == "30"
    picture = np.random.default_rng(0).integers(0, 256, (45, 60, 3)).astype(np.uint8)
    sharp = model.restore(picture)
    assert sharp.shape == picture.shape
    assert sharp.std() > 0.01
    rounded = model.restore_uint16(picture)
    np.testing.assert_array_equal(rounded, (sharp * 65535 + np.float32(0.5)).astype(np.uint16))


def test_the_grid_of_positions_is_read_from_its_shape(tmp_path: Path) -> None:
    path = written(tmp_path, reference.random_checkpoint(8, 8, grid=31))
    convert(path, tmp_path / "first.safetensors", vitdeblur=MICRO)
    assert load_vitdeblur(tmp_path / "first.safetensors").config.position_grid == 31


def test_a_card_that_is_there_is_kept(tmp_path: Path, published: Tensors) -> None:
    (tmp_path / "own.md").write_text("Licence: by agreement")
    convert(written(tmp_path, published), tmp_path / "own.safetensors", vitdeblur=MICRO)
    card = tmp_path / "own.md"
    assert card.read_text() == "Licence: by agreement"


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {new if name == old else name: value for name, value in tensors.items()}


BLUR = "contextual_encoder.blur_parameter"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: renamed(x, BLUR, f"{BLUR}s"),
            rf"1 weights are missing \(first \['{BLUR}'\]\) and 1 are unknown .*'{BLUR}s'",
        ),
        (
            lambda x: {k: v for k, v in x.items() if "blocks.4.norm1.bias" not in k},
            r"1 weights are missing \(first \['primary_encoder.pretrain_mae.blocks.4.norm1.bias'",
        ),
        (
            lambda x: x | {"decoder.decoder_pred.bias": torch.zeros(300)},
            r"decoder.decoder_pred.bias is \(300,\), expected \(2400,\)",
        ),
        (
            lambda x: x | {"contextual_encoder.projector.3.weight": torch.zeros(9, 256)},
            r"contextual_encoder.projector.3.weight is \(9, 256\), expected \(128, 256\)",
        ),
        (lambda x: x | {BLUR: x[BLUR] / 0}, f"{BLUR} holds NaN"),
        (
            lambda x: x | {"primary_encoder.pretrain_mae.pos_embed": torch.zeros(1, 1000, 8)},
            r"pos_embed is \(1, 1000, 8\), expected \(1, 1 \+ N x N, width\)",
        ),
    ],
    ids=["renamed", "missing", "shape", "unused shape", "infinite", "grid"],
)
def test_what_was_tampered_with_is_refused_by_name(
    tmp_path: Path, published: Tensors, change: Any, message: str
) -> None:
    path = written(tmp_path, change(published))
    out = tmp_path / "out.safetensors"
    with pytest.raises(WeightsError, match=message):
        convert(path, out, vitdeblur=MICRO)
    assert not out.exists()


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, published: Tensors) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = written(tmp_path, published, schedulers=Trap())
    with pytest.raises(WeightsError, match=r"nothing of it was run: .*mkdir'"):
        convert(path, tmp_path / "out.safetensors", vitdeblur=MICRO)
    assert not (tmp_path / "sprung").exists()


def test_the_command_refuses_another_size_and_an_option_of_ldp(
    tmp_path: Path, published: Tensors
) -> None:
    path, out = written(tmp_path, published), tmp_path / "out.safetensors"

    def run(*options: str) -> Any:
        command = ["models", "convert", str(path), "--out", str(out), *options]
        return CliRunner().invoke(main, command)

    refused = run()
    assert refused.exit_code == 3
    assert "cls_token is (1, 1, 8), expected (1, 1, 768)" in refused.output
    assert run("--crop-px", "256").exit_code == 2
    assert not out.exists()


def test_a_network_of_one_picture_is_no_network_of_two_views(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    save_network(ViTDeblur(MICRO), path, half=False)
    with pytest.raises(WeightsError, match=r"single pictures .* ldp\.load_single"):
        ldp.load(str(path), device="cpu")


def test_a_masked_autoencoder_gives_the_first_blocks(tmp_path: Path, published: Tensors) -> None:
    prefix = "primary_encoder.pretrain_mae."
    encoder = {k.removeprefix(prefix): v for k, v in published.items() if k.startswith(prefix)}
    encoder["pos_embed"] = torch.randn(1, 1 + 14 * 14, 8)
    path = tmp_path / "mae.pth"
    torch.save({"model": encoder | {"decoder_pred.bias": torch.zeros(3)}}, path)
    network = ViTDeblur(MICRO)
    others = {k: v.clone() for k, v in network.state_dict().items() if "primary." not in k}
    load_encoder(path, network)
    found = network.state_dict()
    assert torch.equal(found["primary.blocks.3.mlp.fc2.bias"], encoder["blocks.3.mlp.fc2.bias"])
    assert torch.equal(found["primary.proj.weight"], encoder["patch_embed.proj.weight"])
    expected = interpolated_positions(encoder["pos_embed"], MICRO.position_grid)
    assert torch.equal(found["primary.pos_embed"], expected)
    assert all(torch.equal(found[name], value) for name, value in others.items())
    torch.save({"model": renamed(encoder, "cls_token", "token")}, path)
    with pytest.raises(WeightsError, match=r"1 weights are missing \(first \['cls_token'\]\)"):
        load_encoder(path, network)


@pytest.mark.slow
def test_the_command_converts_and_describes_the_published_size(tmp_path: Path) -> None:
    found = reference.random_checkpoint(768, 1024)
    path, out = tmp_path / "pretrained_clipvit_defocusv1.pth", tmp_path / "vitdeblur.safetensors"
    torch.save({"state_dict": found, "optimizers": [], "schedulers": [], "epoch": 1}, path)
    runner = CliRunner()
    result = runner.invoke(main, ["models", "convert", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "decoder.decoder_dnorm2.bias" in result.output
    described = runner.invoke(main, ["models", "describe", str(out)]).output
    assert "121.6 M parameters as published" in described
    assert "126.3 GMACs a window of 320 px" in described
    assert "non-commercial" in described
