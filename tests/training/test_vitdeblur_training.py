"""A training of ViTDeblur, in seconds: it learns, resumes, and its result restores pictures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import ldp
from ldp.models.vitdeblur import VITDEBLUR_SIZES, ViTDeblur, ViTDeblurConfig
from ldp.models.vitdeblur_weights import load_vitdeblur
from ldp.restore.windows import WindowSettings
from ldp.types import ViewPair
from tests.helpers.made_dpdd import made_scene
from tests.helpers.micro_run import ALONE, checkpoint, run, same
from training.data.single import CombinedCrops, find_single_scenes
from training.errors import RecipeError
from training.evaluation.metrics import psnr_db
from training.evaluation.protocols import load_restorer
from training.run import Run, TrainingInputs, prepare
from training.settings import TrainSettings, read_settings
from training.train import main, train
from training.validation import RealValidation

ROOT = Path(__file__).parents[2]
MICRO = ViTDeblurConfig(
    window_px=40, width=8, primary_heads=1, contextual_heads=2, decoder_width=8, decoder_heads=1
)


@pytest.fixture(autouse=True)
def _micro(monkeypatch) -> None:
    monkeypatch.setitem(VITDEBLUR_SIZES, "micro-vit", MICRO)


@pytest.fixture
def dpdd(tmp_path: Path) -> Path:
    """Two combined photos in DPDD's own layout."""
    folder = tmp_path / "dpdd"
    for index in range(2):
        blurred, _, sharp = made_scene(index, 48, 60)
        for part, number, picture in (("source", 10, blurred), ("target", 11, sharp)):
            path = folder / "train_c" / part / f"1P0A00{number + 2 * index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), picture[..., ::-1])
    return folder


def settings(**changes: Any) -> TrainSettings:
    recipe = TrainSettings(
        size="micro-vit",
        steps=4,
        batch=2,
        crop_px=40,
        learning_rate=1e-3,
        final_learning_rate=1e-3,
        warm_up_steps=1,
        workers=0,
        save_every=2,
    )
    return replace(recipe, **changes)


def test_crops_are_of_one_place_and_follow_from_the_position(dpdd: Path) -> None:
    scenes = find_single_scenes(dpdd, "train")
    crops, again = (CombinedCrops(scenes, 40, (1, 0)) for _ in range(2))
    flips = set()
    whole = [[made_scene(i, 48, 60)[k] / np.float32(65535) for k in (0, 2)] for i in range(2)]
    for position in range(12):
        views, nothing, sharp = crops[position]
        assert all(map(torch.equal, (views, nothing, sharp), again[position]))
        assert torch.equal(views[:3], views[3:])
        assert not nothing.any()
        found = [
            (index, top, left, flip)
            for index in range(2)
            for top in range(9)
            for left in range(21)
            for flip in (1, -1)
            if np.allclose(
                whole[index][0][top : top + 40, left : left + 40][:, ::flip],
                views[:3].permute(1, 2, 0),
            )
        ]
        ((index, top, left, flip),) = found
        flips.add(flip)
        truth = whole[index][1][top : top + 40, left : left + 40][:, ::flip]
        np.testing.assert_allclose(sharp.permute(1, 2, 0), truth, atol=1e-6)
    assert flips == {1, -1}


def test_on_one_batch_the_loss_falls_by_half(dpdd: Path, tmp_path: Path) -> None:
    recipe = settings(steps=40, learning_rate=4e-3, report_every=1, save_every=40, bf16=False)
    whole = prepare([recipe], TrainingInputs(dpdd=dpdd), tmp_path / "run", ALONE)
    batch = next(iter(whole.source(recipe, 0, 0, ALONE)))
    assert train(Run([recipe], lambda *_: repeat(batch), tmp_path / "run", ALONE))
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    for name in ("charbonnier", "token_distance", "sharpness"):
        assert lines[-1][name] < lines[0][name]
    assert "blur_weighting" not in lines[0]


def test_a_run_resumes_to_the_same_bits_and_its_weights_restore(dpdd: Path, tmp_path: Path) -> None:
    run([settings()], tmp_path / "whole", dpdd=dpdd)
    run([settings(steps=2)], tmp_path / "parts", dpdd=dpdd)
    run([settings()], tmp_path / "parts", dpdd=dpdd)
    same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    weights = tmp_path / "whole" / "weights.safetensors"
    assert load_vitdeblur(weights).config == MICRO
    model = ldp.load_single(str(weights), device="cpu", window_stride=30, padding="reflect")
    picture = made_scene(0, 48, 60)[0]
    assert model.restore(picture).shape == picture.shape
    # And a training goes on from them.
    run([settings(steps=1)], tmp_path / "next", dpdd=dpdd, init=str(weights))
    assert "weights" in checkpoint(tmp_path / "next")["started_from"]


def test_it_is_validated_on_composites(dpdd: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for part, picture in zip(("L", "R", "gt"), made_scene(7, 64, 96), strict=True):
        assert cv2.imwrite(str(real / f"01_{part}.png"), picture[..., ::-1])
    run([settings()], tmp_path / "run", dpdd=dpdd, validation=RealValidation(real))
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = next(line for line in lines if line["kind"] == "validation")
    assert checkpoint(tmp_path / "run")["best"]["score_db"] == found["real_fitted_psnr_db"]
    best = load_restorer(
        str(tmp_path / "run" / "weights-best.safetensors"),
        "cpu",
        windows=WindowSettings(stride_px=MICRO.covered_px),
    )
    left, right, sharp = made_scene(7, 64, 96)
    restored = best(ViewPair(left, right)) / 65535
    # The file holds halves.
    assert psnr_db(restored, sharp / 65535) == pytest.approx(found["real_psnr_db"], abs=0.1)


def test_a_masked_autoencoder_begins_it_and_stays_frozen(dpdd: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    own = ViTDeblur(MICRO).primary.state_dict()
    named = {
        name.replace("proj.", "patch_embed.proj.", 1) if name.startswith("proj") else name: x
        for name, x in own.items()
    }
    torch.save({"model": named}, tmp_path / "mae.pth")
    frozen = settings(steps=3, learning_rate=1e-2, freeze_encoder=True)
    run([frozen], tmp_path / "run", dpdd=dpdd, encoder=tmp_path / "mae.pth")
    found = checkpoint(tmp_path / "run")["network"]
    for name, value in own.items():
        assert torch.equal(found[f"primary.{name}"], value)
    free = replace(frozen, freeze_encoder=False)
    run([free], tmp_path / "free", dpdd=dpdd, encoder=tmp_path / "mae.pth")
    moved = checkpoint(tmp_path / "free")["network"]["primary.blocks.0.mlp.fc1.weight"]
    assert not torch.equal(moved, own["blocks.0.mlp.fc1.weight"])


def test_a_random_encoder_is_not_frozen(dpdd: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a random encoder would stay random; give --encoder"):
        run([settings(steps=3, freeze_encoder=True)], tmp_path / "run", dpdd=dpdd)
    assert not (tmp_path / "run").exists()


def test_the_published_recipe_runs_on_smoke_data(
    dpdd: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    text = (ROOT / "configs" / "vitdeblur-dpdd.toml").read_text()
    (published,) = read_settings(ROOT / "configs" / "vitdeblur-dpdd.toml")
    assert (published.size, published.crop_px, published.vitdeblur) == (
        "vitdeblur",
        320,
        ViTDeblurConfig(),
    )
    for old, new in (
        ('"vitdeblur"', '"micro-vit"'),
        ("300_000", "2"),
        ("crop_px = 320", "crop_px = 40"),
        ("workers = 8", "workers = 0"),
        ("\nfreeze_encoder = true", "\nfreeze_encoder = false"),  # no --encoder here
    ):
        assert old in text
        text = text.replace(old, new)
    recipe = tmp_path / "smoke.toml"
    recipe.write_text(text)
    arguments = [recipe, "--dpdd", dpdd, "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    main()
    assert "micro-vit" in capsys.readouterr().out
    assert checkpoint(tmp_path / "run")["step"] == 2


@pytest.mark.parametrize(
    ("changes", "inputs", "message"),
    [
        ({}, {"photos": (Path("a"),)}, "trained on DPDD's combined photos"),
        ({}, {"init": "a", "encoder": Path("b")}, "init and encoder: expected one"),
        ({"crop_px": 50}, {}, "crop_px 50: micro-vit needs its window, 40"),
    ],
)
def test_what_does_not_fit_is_refused(
    dpdd: Path, tmp_path: Path, changes: dict, inputs: dict, message: str
) -> None:
    files: dict[str, Any] = {"dpdd": None if "photos" in inputs else dpdd, **inputs}
    with pytest.raises(RecipeError, match=message):
        prepare([settings(**changes)], TrainingInputs(**files), tmp_path, ALONE)


def test_an_encoder_is_for_vitdeblur(dpdd: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mae\.pth: size 'tiny' has no encoder"):
        prepare(
            [TrainSettings()],
            TrainingInputs(dpdd=dpdd, encoder=tmp_path / "mae.pth"),
            tmp_path,
            ALONE,
        )
