"""Ordinary photos in a run: beside dual-pixel ones, from any raw, from plain pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner, Result

from dpbatch.cli.main import main
from dpbatch.ordinary import change_map
from dpbatch.output.metadata import read_note, read_tags
from ldp.models.network import LDPNet
from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig
from ldp.models.weights import save_network
from tests.dpbatch.raw.test_ordinary import X_TRANS, smooth, write_dng
from tests.helpers.micro_run import MICRO
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags
from training.simulator.sensor import Sensor, write_ordinary_raw

SIZE = (96, 128)


@pytest.fixture(autouse=True)
def _no_processes(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slow") is None:
        request.getfixturevalue("inline")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Folder with pairs.safetensors and one.safetensors."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, config in (
        ("pairs", MICRO),
        ("one", replace(MICRO, views=1, attention=False)),
    ):
        torch.manual_seed(0)
        network = LDPNet(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        save_network(network, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    """A dual-pixel raw, an ordinary one, another maker's, a damaged one, a picture and a JPEG that
    the camera wrote beside the raw."""
    folder = tmp_path / "shoot"
    folder.mkdir()
    write_test_dpraw(folder / "dual.CR2", *SIZE)
    light = smooth(*SIZE)
    write_ordinary_raw(folder / "canon.CR2", light, Sensor(tags=CameraTags(orientation=6)))
    write_dng(folder / "other.dng", smooth(516, 516), X_TRANS)
    whole = (folder / "canon.CR2").read_bytes()
    (folder / "cut.CR2").write_bytes(whole[: len(whole) * 2 // 3])
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    assert cv2.imwrite(str(folder / "picture.png"), picture)
    assert cv2.imwrite(str(folder / "canon.jpg"), picture)
    return folder


def run(shoot: Path, weights: Path, *options: str) -> tuple[Result, dict[str, dict[str, Any]]]:
    """What `dpbatch run` did: its result, and by input name the lines of its log."""
    out = shoot.with_name("out")
    command = ["run", str(shoot), "--out", str(out), "--device", "cpu", "--json-log"]
    command += ["--model", str(weights / "pairs.safetensors"), *options]
    done = CliRunner().invoke(main, command)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done, {Path(line["input"]).name: line for line in lines if "input" in line}


def single(weights: Path) -> list[str]:
    return ["--ordinary", "single", "--single-weights", str(weights / "one.safetensors")]


def codes(lines: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: line.get("code") or line.get("status", "") for name, line in lines.items()}


def test_a_mixed_shoot_is_restored_in_one_run(shoot: Path, weights: Path) -> None:
    options = ["--layers", "blur,disparity", *single(weights), "--single"]
    done, lines = run(shoot, weights, *options)
    assert done.exit_code == 1, done.output
    assert codes(lines) == {
        "dual.CR2": "done",
        "canon.CR2": "done",
        "other.dng": "done",
        "cut.CR2": "damaged",
        "picture.png": "done",
        "canon.jpg": "raw-beside",
    }
    networks = {name: line["network"] for name, line in lines.items() if line["network"]}
    assert networks == {
        "dual.CR2": "pairs",
        "canon.CR2": "one",
        "other.dng": "one",
        "picture.png": "one",
    }
    assert "restored by: one 3, pairs 1" in done.stderr
    out = shoot.with_name("out")
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        *("canon.blur.tif", "canon.tif", "dual.blur.tif", "dual.disparity.tif", "dual.tif"),
        *("other.blur.tif", "other.tif", "picture.blur.tif", "picture.tif"),
    ]
    assert tifffile.imread(out / "canon.tif").shape == (*SIZE[::-1], 3)  # turned upright
    assert tifffile.imread(out / "canon.blur.tif").shape == SIZE[::-1]
    with tifffile.TiffFile(out / "canon.blur.tif") as file:
        layer = json.loads(file.pages.first.description)
    assert layer["layer"] == "change"
    assert read_tags(out / "canon.tif")["Exif.Image.Model"]
    note = read_note(out / "canon.tif")
    assert note is not None
    assert note.model == "one"
    journal = (out / ".dpbatch" / "journal.jsonl").read_text().splitlines()
    records = {r["target"]: r for r in map(json.loads, journal) if r.get("status") == "done"}
    assert records["canon.tif"]["network"] == "one"
    assert CliRunner().invoke(main, ["verify", str(out)]).exit_code == 0
    status = json.loads(CliRunner().invoke(main, ["status", str(out), "--json"]).stdout)
    assert status["latest_run"]["networks"] == {"one": 3, "pairs": 1}
    done, lines = run(shoot, weights, *options)
    assert {line["code"] for name, line in lines.items() if name in networks} == {"already-done"}


def test_without_the_option_ordinary_photos_are_left_out_as_before(
    shoot: Path, weights: Path
) -> None:
    _, lines = run(shoot, weights)
    assert codes(lines) == {
        "dual.CR2": "done",
        "canon.CR2": "not-dual-pixel",
        "cut.CR2": "damaged",
    }


def test_restoring_ordinary_photos_later_does_not_touch_what_is_done(
    shoot: Path, weights: Path
) -> None:
    run(shoot, weights)
    _, lines = run(shoot, weights, *single(weights))
    assert (lines["dual.CR2"]["code"], lines["canon.CR2"]["status"]) == ("already-done", "done")
    _, lines = run(shoot, weights, *single(weights), "--scale", "2")
    assert (lines["dual.CR2"]["status"], lines["canon.CR2"]["code"]) == ("done", "already-done")
    _, lines = run(shoot, weights, *single(weights), "--scale", "2", "--no-protect")
    assert codes(lines)["canon.CR2"] == "done"


def test_results_without_a_journal_are_known_by_their_metadata(shoot: Path, weights: Path) -> None:
    options = [*single(weights), "--layers", "blur,disparity"]
    run(shoot, weights, *options)
    (shoot.with_name("out") / ".dpbatch" / "journal.jsonl").unlink()
    for _ in range(2):
        _, lines = run(shoot, weights, *options)
        assert codes(lines)["canon.CR2"] == "already-done"


def test_a_dry_run_says_which_photos_are_ordinary(shoot: Path, weights: Path) -> None:
    done, lines = run(shoot, weights, *single(weights), "--dry-run")
    assert "canon.CR2 (ordinary) -> " in done.stderr
    kinds = {name: line.get("kind") for name, line in lines.items()}
    assert kinds["dual.CR2"] == "raw"
    assert kinds["other.dng"] == "ordinary"
    assert not shoot.with_name("out").exists()


def test_pictures_are_restored_by_the_shipped_network_unless_told_otherwise(
    shoot: Path, weights: Path
) -> None:
    done, lines = run(shoot, weights, "--single", "--dry-run")
    assert done.exit_code == 1, done.output  # the damaged file
    assert lines["picture.png"]["kind"] == "ordinary"
    done, _ = run(shoot, weights, "--single", "--ordinary", "skip")
    assert done.exit_code == 2
    assert "--single and --ordinary skip: give one of the two" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ordinary", "vitdeblur"], "no weights of this network come with dpbatch"),
        (["--ordinary", "vitdeblur", "--single-weights", "one"], "takes those of ViTDeblur"),
        (["--ordinary", "single", "--single-weights", "pairs"], "takes those of NAFNet"),
        (["--ordinary", "single", "--single-weights", "gone"], "no such file"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_anything_is_done(
    shoot: Path, weights: Path, options: list[str], message: str
) -> None:
    if "--single-weights" in options:
        options = [*options[:-1], str(weights / f"{options[-1]}.safetensors")]
    done, _ = run(shoot, weights, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not shoot.with_name("out").exists()


def test_look_and_exposure_hold_for_ordinary_photos(shoot: Path, weights: Path) -> None:
    for picture in ("other.dng", "cut.CR2", "picture.png", "canon.jpg"):
        (shoot / picture).unlink()
    means = []
    for options in (["--look", "neutral"], ["--look", "neutral", "--exposure", "1"]):
        run(shoot, weights, *single(weights), "--overwrite", *options)
        means.append(tifffile.imread(shoot.with_name("out") / "canon.tif").mean())
    assert means[1] > 1.05 * means[0]


def test_an_ordinary_photo_has_no_mosaic_to_write_as_dng(shoot: Path, weights: Path) -> None:
    for name in ("other.dng", "cut.CR2", "dual.CR2", "picture.png", "canon.jpg"):
        (shoot / name).unlink()
    _, lines = run(shoot, weights, *single(weights), "--format", "dng")
    assert "use --format tif" in lines["canon.CR2"]["message"]
    _, lines = run(shoot, weights, *single(weights), "--color-space", "display-p3")
    assert codes(lines) == {"canon.CR2": "done"}


@pytest.mark.parametrize("options", [["--strength", "0.5"], ["--refocus", "1"]])
def test_an_ordinary_photo_fails_before_it_is_restored_where_depths_are_chosen(
    shoot: Path, weights: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("other.dng", "cut.CR2"):
        (shoot / name).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(
            "dpbatch.ordinary.OrdinaryRestorer.__call__", lambda *_: pytest.fail("restored")
        )
        _, lines = run(shoot, weights, *single(weights), "--single", *options)
    assert lines["dual.CR2"]["status"] == "done"
    for name in ("canon.CR2", "picture.png"):
        line = lines[name]
        assert (line["status"], line["stage"], line["code"]) == ("failed", "load", "output")
        assert f"{name}: focus control and refocusing work on photos of two" in line["message"]


@pytest.mark.parametrize("form", ["alpha", "darktable", "photoshop"])
def test_an_ordinary_photo_has_no_layers_but_blur(shoot: Path, weights: Path, form: str) -> None:
    for name in ("other.dng", "cut.CR2", "dual.CR2", "picture.png", "canon.jpg"):
        (shoot / name).unlink()
    options = ["--layers", "depth", "--layers-in", form]
    _, lines = run(shoot, weights, *single(weights), *options)
    assert codes(lines) == {"canon.CR2": "done"}
    out = shoot.with_name("out")
    assert [path.name for path in out.iterdir() if path.is_file()] == ["canon.tif"]
    assert tifffile.imread(out / "canon.tif").shape == (*SIZE[::-1], 3)
    warnings = ["an ordinary photo, written as a plain TIFF without layers"]
    assert lines["canon.CR2"]["warnings"] == (warnings if form == "photoshop" else [])


def test_the_map_of_the_change_is_the_mean_of_cells() -> None:
    picture = np.full((24, 32, 3), 100, np.uint8)
    sharp = picture.astype(np.uint16) * 257
    sharp[:8, 8:16] += np.uint16(65535 // 20)
    sharp[8:16, :8] += np.uint16(65535 // 4)
    amount = change_map(picture, sharp).amount
    assert amount.shape == (3, 4)
    np.testing.assert_allclose(amount[:2, :2], np.array([[0, 0.5], [1, 0]]), atol=0.01)


@pytest.mark.slow
def test_both_engines_restore_a_mixed_shoot_to_the_same_pixels(shoot: Path, weights: Path) -> None:
    results = []
    for options in (["--engine", "local"], ["--engine", "ray", "--cpu-actors", "1"]):
        done, lines = run(shoot, weights, *single(weights), "--single", "--overwrite", *options)
        assert done.exit_code == 1, done.output
        statuses = {name: line["status"] for name, line in lines.items()}
        assert [name for name, status in statuses.items() if status == "failed"] == ["cut.CR2"]
        out = shoot.with_name("out")
        results.append({path.name: tifffile.imread(path) for path in sorted(out.glob("*.tif"))})
    assert results[0].keys() == {"canon.tif", "dual.tif", "other.tif", "picture.tif"}
    for name, picture in results[0].items():
        np.testing.assert_array_equal(picture, results[1][name])


@pytest.mark.slow
def test_an_ordinary_raw_is_restored_by_vitdeblur(shoot: Path, weights: Path) -> None:
    """A reduced network in the shape of the published one; two views stay with their own."""
    torch.manual_seed(0)
    config = ViTDeblurConfig(
        window_px=60,
        position_grid=7,
        width=24,
        primary_heads=2,
        primary_blocks=1,
        contextual_heads=2,
        contextual_blocks=1,
        decoder_width=16,
        decoder_heads=2,
    )
    save_network(ViTDeblur(config), weights / "vit.safetensors")
    options = ["--ordinary", "vitdeblur", "--single-weights", str(weights / "vit.safetensors")]
    done, lines = run(shoot, weights, *options, "--window-stride", "50")
    assert done.exit_code == 1, done.output
    networks = {name: line["network"] for name, line in lines.items() if line["network"]}
    assert networks == {"dual.CR2": "pairs", "canon.CR2": "vit", "other.dng": "vit"}
    _, lines = run(shoot, weights, *options, "--window-stride", "40")
    assert codes(lines)["canon.CR2"] == "done"
    assert codes(lines)["dual.CR2"] == "already-done"
