"""The three promises of a training: it learns, it resumes exactly, and users can run the result."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from dpbatch.cli.main import main as dpbatch
from ldp.models.network import SIZES
from tests.helpers.made_dpdd import made_scene, write_dpdd
from tests.helpers.micro_run import (
    ALONE,
    MICRO,
    checkpoint,
    micro_settings,
    run,
    same,
    weights,
    write_photo,
)
from training.evaluation import dpdd as evaluate_dpdd
from training.run import Run, TrainingInputs, prepare
from training.train import main as training_main
from training.train import train
from training.validation import RealValidation

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _wider(micro, monkeypatch):
    monkeypatch.setitem(SIZES, "micro", replace(MICRO, width=16))


@pytest.fixture(params=["photos", pytest.param("dpdd", marks=pytest.mark.slow)])
def source(request, tmp_path):
    """What run() is given: a folder of photographs, or of DPDD's layout."""
    folder = tmp_path / request.param
    made = write_photo(folder) if request.param == "photos" else write_dpdd(folder)
    return {request.param: made}


def test_on_one_batch_the_loss_falls_by_half(source, tmp_path):
    settings = micro_settings(
        steps=100, learning_rate=1e-2, report_every=1, save_every=100, bf16=False
    )
    inputs = TrainingInputs((source["photos"],) if "photos" in source else (), source.get("dpdd"))
    whole = prepare([settings], inputs, tmp_path / "run", ALONE)
    batch = next(iter(whole.source(settings, 0, 0, ALONE)))
    assert train(Run([settings], lambda *_: repeat(batch), tmp_path / "run", ALONE))
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    losses = [line["loss"] for line in lines]
    assert len(losses) == 100
    assert losses[-1] < losses[0] / 2
    assert lines[-1]["gain_db"] > 3 > 0.1 > abs(lines[0]["gain_db"])


KILLED = """
import os, signal, sys
from dataclasses import replace
import torch
from ldp.models.network import SIZES
from tests.helpers.micro_run import MICRO
from training import train
for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):  # float32, as in the tests
    setattr(torch.cpu, name, lambda: False)
SIZES["micro"] = replace(MICRO, width=16)
update, steps = train.update_average, []
def killing(*arguments):
    steps.append(0)
    if len(steps) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    update(*arguments)
train.update_average = killing
train.main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(source, tmp_path):
    settings = micro_settings(steps=8, save_every=2, validate_every=4, validate_pairs=2, workers=1)
    real = tmp_path / "real"
    write_real(real)
    run([settings], tmp_path / "whole", **source, validation=RealValidation(real))

    recipe = tmp_path / "recipe.toml"
    values = {name: value for name, value in vars(settings).items() if value != ""}
    recipe.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    (kind, folder), out = next(iter(source.items())), tmp_path / "killed"
    options = [f"--{kind}", folder, "--out", out, "--validate", real]
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(recipe), *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        timeout=300,
    )
    assert ran.returncode == -signal.SIGKILL
    assert checkpoint(out)["step"] == 4
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    run([settings], out, **source, validation=RealValidation(real))

    same(checkpoint(out), checkpoint(tmp_path / "whole"))
    for name in ("weights.safetensors", "weights-best.safetensors"):
        same(weights(out / name), weights(tmp_path / "whole" / name))


def write_real(folder):
    """A scene as cameras give it, for --validate and for dpbatch run."""
    folder.mkdir()
    for part, picture in zip(("L", "R", "gt"), made_scene(0, 64, 96), strict=True):
        assert cv2.imwrite(str(folder / f"01_{part}.png"), picture[..., ::-1])


@pytest.mark.usefixtures("inline")
def test_dpbatch_restores_photos_with_the_result(source, tmp_path):
    run([micro_settings(crop_px=32)], tmp_path / "run", **source)
    scenes = tmp_path / "scenes"
    write_real(scenes)
    (scenes / "01_gt.png").unlink()
    model, out = tmp_path / "run" / "weights.safetensors", tmp_path / "out"
    done = CliRunner().invoke(
        dpbatch, ["run", str(scenes), "--out", str(out), "--model", str(model), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    restored = tifffile.imread(out / "01.tif")
    left, right, _ = made_scene(0, 64, 96)
    # Barely trained, but it is the mean view to which the network adds.
    error = restored.astype(np.float64) - (left.astype(np.float64) + right) / 2
    assert 0 < np.abs(error).mean() < 0.05 * 65535


def test_dpdd_is_trained_on_and_evaluated_by_the_documented_commands(tmp_path, monkeypatch, capsys):
    folder = write_dpdd(tmp_path / "dpdd", repack=True)
    for split in ("val", "test"):
        shutil.copytree(folder / "train", folder / split)
    np.save(folder / "test" / "indoor_labels.npy", np.array([1, 3]))
    np.save(folder / "test" / "outdoor_labels.npy", np.array([2]))
    text = (ROOT / "configs" / "train-tiny.toml").read_text()
    for key, value in {"steps": 2, "batch": 2, "crop_px": 32, "compile": "false"}.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1
    (tmp_path / "recipe.toml").write_text(f"{text}workers = 0\npatch_px = 64\ndrop_patches = 2\n")

    def command(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    out = tmp_path / "run"
    said = command(
        training_main,
        tmp_path / "recipe.toml",
        "--dpdd",
        folder,
        "--validate",
        folder,
        "--out",
        out,
    )
    assert "validation: real" in said
    best = out / "weights-best.safetensors"
    figures = tmp_path / "scores.json"
    table = command(evaluate_dpdd.main, folder, "--model", best, "--json", figures)
    for kind in ("all (3)", "indoor (2)", "outdoor (1)"):
        assert re.search(rf"(?m)^{re.escape(kind)} +weights-best +\d+\.\d\d ", table)
    averages = json.loads(figures.read_text())["averages"]
    assert averages[0]["average"].keys() >= {"psnr_db", "ssim", "mae", "rmse", "lpips_alex"}
