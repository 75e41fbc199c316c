import json
import re
import sys

import cv2
import numpy as np
import pytest

from training.evaluation.metrics import psnr_db
from training.evaluation.perceptual import Perceptual
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.scenes import averages, evaluate, formatted, main, scores
from training.pictures import read_float64


def write(path, picture, dtype=np.uint16):
    levels = np.round(np.clip(picture, 0, 1) * np.iinfo(dtype).max).astype(dtype)
    assert cv2.imwrite(str(path), levels[..., ::-1])


@pytest.fixture
def folders(tmp_path):
    """Two scenes: one that was restored perfectly, and one that only has its mean."""
    scenes, restored = tmp_path / "scenes", tmp_path / "restored"
    scenes.mkdir()
    restored.mkdir()
    rng = np.random.default_rng(0)
    for stem, ending in (("01", ".png"), ("02", ".tif")):
        truth = 0.2 + 0.6 * rng.random((24, 32, 3))
        shift = 0.05 * rng.standard_normal((24, 32, 3))
        write(scenes / f"{stem}_gt.png", truth)
        write(scenes / f"{stem}_L.png", truth + shift, np.uint8)
        write(scenes / f"{stem}_R.png", truth + shift, np.uint8)
        write(scenes / f"{stem}_other.png", truth + 0.01)
        write(restored / f"{stem}{ending}", truth if stem == "01" else truth + shift)
    return scenes, restored


def test_every_scene_is_scored_against_its_truth(folders):
    scenes, restored = folders
    table = evaluate(scenes, restored, beside=("other",))
    assert list(table) == ["01", "02"]
    truth = read_float64(scenes / "01_gt.png")
    assert table["01"]["mean"].psnr_db == psnr_db(read_float64(scenes / "01_L.png"), truth)
    assert table["01"]["restored"].psnr_db > 90
    assert table["02"]["restored"].psnr_db == pytest.approx(table["02"]["mean"].psnr_db, abs=0.1)
    assert table["02"]["other"].psnr_db == pytest.approx(40, abs=0.1)
    assert table["02"]["other"].fitted_psnr_db > 90
    text = formatted(table)
    assert text.splitlines()[0].split() == ["mean", "restored", "other"]
    assert f"{table['02']['mean'].psnr_db:.2f}" in text
    assert text.splitlines()[-2].startswith("restored ")
    gains = [
        table["02"]["restored"].psnr_db - table["02"]["mean"].psnr_db,
        table["02"]["restored"].fitted_psnr_db - table["02"]["mean"].fitted_psnr_db,
    ]
    told = re.findall(r"([+-]\S+) dB \(02\)", text.splitlines()[-2])
    assert told == [f"{gain:+.2f}" for gain in gains]
    assert table["02"]["other"].rmse == pytest.approx(0.01, abs=1e-4)
    assert table["02"]["other"].registered_psnr_db > 90
    assert table["02"]["other"].mae == pytest.approx(0.01, abs=1e-4)
    assert table["02"]["other"].lpips_alex is None


def test_rows_that_are_left_out_do_not_count():
    truth = np.random.default_rng(0).random((24, 32, 3))
    spoiled = truth + 0.1
    spoiled[:5] = 0
    assert scores(spoiled, truth, spoiled, 5) == scores(truth + 0.1, truth, truth + 0.1, 5)
    assert scores(spoiled, truth, truth).psnr_db < scores(spoiled, truth, truth, 5).psnr_db


def test_the_protocol_says_what_is_compared():
    truth = np.full((16, 16, 3), 100 / 255)
    picture = truth + 0.6 / 255
    eight = scores(picture, truth, picture, protocol=PROTOCOLS["8bit"])
    assert eight.mae == pytest.approx(1 / 255)  # rounded to a level each
    sixteen = scores(picture, truth, picture, protocol=PROTOCOLS["restormer"])
    assert sixteen.mae == pytest.approx(0.6 / 255)
    beyond = np.full((16, 16, 3), 1.5)
    white = np.ones((16, 16, 3))
    assert scores(beyond, white, white, protocol=PROTOCOLS["restormer"]).mae == 0
    assert scores(beyond, white, white, protocol=PROTOCOLS["dpdnet"]).mae == 0.5


def test_colours_are_rgb_of_either_depth(tmp_path):
    red = np.zeros((4, 4, 3))
    red[..., 0] = 1
    for dtype in (np.uint8, np.uint16):
        write(tmp_path / "red.png", red, dtype)
        np.testing.assert_array_equal(read_float64(tmp_path / "red.png"), red)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda scenes, restored: (restored / "02.tif").unlink(), "neither 02.tif nor 02.png"),
        (lambda scenes, restored: (scenes / "01_gt.png").unlink(), "01_gt.png: missing, or not"),
        (lambda scenes, restored: (scenes / "01_R.png").write_bytes(b"?"), "01_R.png: missing, or"),
        (lambda scenes, restored: write(restored / "01.png", np.ones((9, 32, 3))), "01, restored"),
        (lambda scenes, restored: [p.unlink() for p in scenes.glob("*_L.png")], "no scenes"),
    ],
)
def test_what_is_missing_is_named(folders, spoil, message):
    spoil(*folders)
    with pytest.raises(ValueError, match=message):
        evaluate(*folders)


def left_view(views):
    """A method that gives the left view back."""
    return views.left.astype(np.uint16) * np.uint16(257)


def distance(picture, truth):
    return float(np.abs(picture - truth).max())


def test_networks_restore_the_views_themselves(folders):
    scenes, _ = folders
    table = evaluate(
        scenes, restorers={"left": left_view}, perceptual=Perceptual(lpips_alex=distance)
    )
    assert list(table["01"]) == ["mean", "left"]
    for stem, row in table.items():
        left, truth = (read_float64(scenes / f"{stem}_{part}.png") for part in ("L", "gt"))
        assert row["left"].psnr_db == pytest.approx(psnr_db(left, truth), abs=1e-3)
        assert row["left"].lpips_alex == pytest.approx(distance(left, truth), abs=1e-4)
    mean = np.mean([row["left"].lpips_alex for row in table.values()])
    assert averages(table)["left"].lpips_alex == pytest.approx(mean)
    assert f"{mean:.3f}" in formatted(table).splitlines()[-1]


def test_the_command_prints_the_table_and_writes_json(folders, capsys, monkeypatch, tmp_path):
    figures = tmp_path / "scores.json"
    options = ["--skip-rows", "2", "--protocol", "8bit", "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, folders), *options])
    main()
    printed = capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert (found["protocol"], found["skip_rows"]) == ("8bit", 2)
    assert list(found["scenes"]) == ["01", "02"]
    assert f"{found['averages']['mean']['fitted_psnr_db']:.2f}" in printed
    assert found["averages"]["mean"]["lpips_alex"] is None


@pytest.mark.slow
def test_a_shipped_network_is_scored_by_its_name(folders, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate", str(folders[0]), "--model", "tiny"])
    main()
    assert capsys.readouterr().out.split()[:2] == ["mean", "tiny"]
