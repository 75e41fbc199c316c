import sys

import cv2
import numpy as np
import pytest

from training.evaluate import evaluate, formatted, main, read_picture, scores
from training.metrics import psnr_db


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
    scenes, _ = folders
    table = evaluate(*folders, beside=("other",))
    assert list(table) == ["01", "02"]
    truth = read_picture(scenes / "01_gt.png")
    assert table["01"]["mean"].psnr_db == psnr_db(read_picture(scenes / "01_L.png"), truth)
    assert table["01"]["restored"].psnr_db > 90
    assert table["02"]["restored"].psnr_db == pytest.approx(table["02"]["mean"].psnr_db, abs=0.1)
    assert table["02"]["other"].psnr_db == pytest.approx(40, abs=0.1)
    assert table["02"]["other"].fitted_psnr_db > 90
    text = formatted(table)
    assert text.splitlines()[0].split() == ["mean", "restored", "other"]
    assert f"{table['02']['mean'].psnr_db:.2f}" in text
    assert text.endswith("dB (02)")


def test_rows_that_are_left_out_do_not_count():
    truth = np.random.default_rng(0).random((24, 32, 3))
    spoiled = truth + 0.1
    spoiled[:5] = 0
    assert scores(spoiled.clip(0, 1), truth, 5) == scores(np.clip(truth + 0.1, 0, 1), truth, 5)
    assert scores(spoiled, truth, 0).psnr_db < scores(spoiled, truth, 5).psnr_db


def test_colours_are_rgb_of_either_depth(tmp_path):
    red = np.zeros((4, 4, 3))
    red[..., 0] = 1
    for dtype in (np.uint8, np.uint16):
        write(tmp_path / "red.png", red, dtype)
        np.testing.assert_array_equal(read_picture(tmp_path / "red.png"), red)


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


def test_the_command_prints_the_table(folders, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, folders), "--skip-rows", "2"])
    main()
    assert "smallest gain over the mean of the views" in capsys.readouterr().out
