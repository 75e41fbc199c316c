"""LDP's losses on a second network (its supplement, Table 3): Restormer, by the same trainer."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import ldp
from ldp.errors import RestormerUnavailableError
from ldp.models.restormer import RESTORMER_SIZES, Restormer, RestormerConfig
from ldp.models.weights import load_network, read_header
from tests.helpers.made_dpdd import made_scene, write_dpdd
from tests.helpers.micro_run import micro_settings, run, same, weights
from training.checkpoint import BEST, WEIGHTS, load_initial_weights
from training.errors import RecipeError
from training.evaluation.metrics import psnr_db
from training.pictures import as_float64
from training.settings import TrainSettings, read_settings
from training.validation import RealScene, ValidationSet, validate

MICRO = RestormerConfig(
    width=4, blocks=(1, 1, 1, 1), refinement=1, heads=(1, 1, 2, 2), expansion=2.0
)
CONFIGS = Path(__file__).parents[2] / "configs"
library = pytest.mark.skipif(
    find_spec("deepinv") is None, reason="needs deepinv: pip install 'dpbatch[restormer]'"
)


@pytest.fixture
def micro_restormer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESTORMER_SIZES, "micro", MICRO)


@pytest.fixture
def dpdd(tmp_path: Path) -> Path:
    return write_dpdd(tmp_path / "data", count=1)


@library
@pytest.mark.usefixtures("micro_restormer")
def test_it_is_trained_with_the_losses_and_without(dpdd: Path, tmp_path: Path) -> None:
    found = {}
    for name, weight in (("with", 0.2), ("without", 0.0)):
        stages = [micro_settings(), micro_settings(blur_weighting_weight=weight)]
        assert run(stages, tmp_path / name, dpdd=dpdd, cache=tmp_path / "cache")
        found[name] = weights(tmp_path / name / "weights.safetensors")
    assert all(value.isfinite().all() for value in found["with"].values())
    name = "body.output.weight"
    assert not torch.equal(found["with"][name], found["without"][name])
    lines = (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["blur_weighting"] > 0

    network = load_network(tmp_path / "with" / "weights.safetensors")
    assert network.config == RestormerConfig(**{**vars(MICRO), "crop_px": 16})
    assert read_header(tmp_path / "with" / "weights.safetensors").blur_map == "disparity"


@library
@pytest.mark.usefixtures("micro_restormer")
def test_it_is_validated_and_resumes(photos: Path, tmp_path: Path) -> None:
    settings = micro_settings(validate_every=2)
    for out, stop_at in (("whole", math.inf), ("parts", 0.0), ("parts", math.inf)):
        ended = run([settings], tmp_path / out, photos=photos, stop_at=stop_at)
        assert ended == (stop_at > 0)
    same(weights(tmp_path / "parts" / WEIGHTS), weights(tmp_path / "whole" / WEIGHTS))

    validated = replace(settings, validate_pairs=1)
    assert run([validated], tmp_path / "scored", photos=photos)
    assert "rendered pairs" in read_header(tmp_path / "scored" / BEST).notes["score"]

    left, right, sharp = made_scene(0, 48, 64)
    scene = RealScene("01", ldp.ViewPair(left, right), ldp.BlurMap(np.zeros((1, 1), "f4")), sharp)
    network = load_network(tmp_path / "whole" / WEIGHTS)
    assert isinstance(network, Restormer)
    scores = validate(network, ValidationSet(real=(scene,)), torch.device("cpu")).scores
    model = ldp.Model(network, device="cpu")
    restored = model.restore_uint16(scene.views, blur_map=scene.blur_map).sharp
    expected = psnr_db(as_float64(restored), as_float64(sharp))
    assert scores.real_psnr_db == pytest.approx(expected, abs=1e-4)


@library
@pytest.mark.usefixtures("micro_restormer")
def test_it_begins_with_weights_of_its_own_shape_alone(photos: Path, tmp_path: Path) -> None:
    first = micro_settings(steps=1)
    assert run([first], tmp_path / "a", photos=photos)
    init = str(tmp_path / "a" / WEIGHTS)
    frozen = micro_settings(steps=1, learning_rate=0.0, final_learning_rate=0.0, weight_decay=0.0)
    assert run([frozen], tmp_path / "b", photos=photos, init=init)
    same(weights(tmp_path / "b" / WEIGHTS), weights(tmp_path / "a" / WEIGHTS))
    with pytest.raises(RecipeError, match=r"weights of NetworkConfig.* trains RestormerConfig"):
        load_initial_weights("tiny", first)
    with pytest.raises(RecipeError, match=r"weights of RestormerConfig.* trains NetworkConfig"):
        load_initial_weights(init, TrainSettings())


def test_the_recipe_is_that_of_ldp_with_another_network() -> None:
    stages = read_settings(CONFIGS / "ldp-dpdd.toml")
    expected = [replace(stage, size="restormer", prior="amount") for stage in stages]
    assert read_settings(CONFIGS / "restormer-dpdd.toml") == expected
    with pytest.raises(RecipeError, match="views 1: restormer restores pairs of views only"):
        TrainSettings(size="restormer", views=1)


def test_training_without_the_library_says_what_to_install(
    dpdd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.setitem(sys.modules, "deepinv.models", None)
    settings = TrainSettings(size="restormer", crop_px=32, patch_px=64, workers=0)
    with pytest.raises(RestormerUnavailableError, match="pip install deepinv"):
        run([settings], tmp_path / "run", dpdd=dpdd)
