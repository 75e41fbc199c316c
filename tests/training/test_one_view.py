"""A network of ordinary photos is trained by the same command as one of two views."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ldp.models.network import LDPNet
from ldp.models.weights import load_network, save_network
from tests.helpers.made_dpdd import made_scene, write_dpdd
from tests.helpers.micro_run import MICRO, micro_settings, run, write_photo
from training.checkpoint import of_one_view
from training.settings import read_settings
from training.train import main

CONFIG = Path(__file__).parents[2] / "configs" / "train-single.toml"


@pytest.mark.parametrize("shuffle", [1, 2])
def test_a_network_of_one_view_begins_with_what_two_equal_views_give(shuffle: int) -> None:
    torch.manual_seed(0)
    config = replace(MICRO, map_channel=False, attention=False, shuffle=shuffle)
    pairs = LDPNet(config).eval()
    for parameter in pairs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    side = 2 * config.stride
    picture, level = torch.rand(2, 3, side, side), torch.full((2, 1, side, side), 0.01)
    expected = pairs(torch.cat([picture, picture], 1), level)
    assert (expected - picture).abs().max() > 1e-3
    torch.testing.assert_close(of_one_view(pairs)(picture, level), expected)


def test_the_recipe_of_single_runs_from_pair_weights_to_weights_of_one_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG.read_text()
    short = {"steps": 2, "batch": 2, "crop_px": 32, "start_scenes": 2, "validate_pairs": 2}
    for key, value in short.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1
    (tmp_path / "recipe.toml").write_text(text)
    (settings,) = read_settings(tmp_path / "recipe.toml")
    pairs = LDPNet(replace(settings.network, views=2, attention=True))
    save_network(pairs, tmp_path / "pairs.safetensors")
    real = tmp_path / "real"
    real.mkdir()
    for part, picture in zip(("L", "R", "gt"), made_scene(0, 64, 96), strict=True):
        assert cv2.imwrite(str(real / f"01_{part}.png"), picture[..., ::-1])
    command = ["--photos", write_photo(tmp_path / "photos"), "--validate", real]
    command += ["--init", tmp_path / "pairs.safetensors", "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "recipe.toml"), *map(str, command)])
    main()
    assert re.search(r"validation: rendered .* dB .*; real .* dB, fitted", capsys.readouterr().out)
    network = load_network(tmp_path / "run" / "weights-best.safetensors")
    assert network.config == settings.network
    assert (network.config.views, network.config.attention) == (1, False)


def test_one_view_learns_from_rendered_pairs_only(
    tmp_path: Path, micro: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="rendered pairs only"):
        run([micro_settings(views=1)], tmp_path / "run", dpdd=write_dpdd(tmp_path / "dpdd"))


def test_training_pairs_of_one_view_are_the_same_in_every_run(tmp_path: Path, micro: None) -> None:
    photos = write_photo(tmp_path / "photos")
    settings = micro_settings(views=1, steps=2, jpeg_share=0.5, noise_stops=2.0)
    scores = []
    for name in ("one", "two"):
        run([settings], tmp_path / name, photos=photos)
        weights = load_network(tmp_path / name / "weights.safetensors").state_dict()
        scores.append(np.concatenate([x.numpy().ravel() for x in weights.values()]))
    np.testing.assert_array_equal(scores[0], scores[1])
