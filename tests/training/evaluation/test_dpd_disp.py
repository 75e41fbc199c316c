import sys

import cv2
import numpy as np
import pytest

from ldp.types import BlurMap
from training.evaluation import dpd_disp
from training.evaluation.dpd_disp import (
    BORDER_PX,
    covered,
    evaluate_dpd_disp,
    main,
    score_disparity,
)


def test_the_area_is_the_authors():
    # Of their photos at half size, 1470 x 2590, counted from 1: 40 to 1425 and 40 to 2547.
    assert covered(1470) == slice(39 + BORDER_PX, 1425 - BORDER_PX)
    assert covered(2590) == slice(39 + BORDER_PX, 2547 - BORDER_PX)
    with pytest.raises(ValueError, match="too short to be scored"):
        covered(300)


def test_an_affine_function_of_the_truth_has_no_error():
    rows, columns = np.mgrid[:400, :500].astype(np.float32)
    truth = (rows + 2 * columns) / 1400
    half = cv2.resize(truth, (250, 200), interpolation=cv2.INTER_AREA)
    score = score_disparity(np.asarray(5 - 8 * half, np.float32), truth)
    assert score.affine_mae == pytest.approx(0, abs=1e-3)
    assert score.affine_rmse == pytest.approx(0, abs=1e-3)
    assert score.rank_error == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).random(half.shape, np.float32)
    assert score_disparity(noise, truth).rank_error > 0.9


class Ramp:
    """Return a ramp to the right, or a map without disparity."""

    def __init__(self, has_disparity=True):
        self.has_disparity = has_disparity

    def estimate(self, views):
        ramp = np.tile(np.linspace(-3, 3, 50, dtype=np.float32), (40, 1))
        amount = np.asarray(np.abs(ramp) / 3, np.float32)
        return BlurMap(amount, ramp if self.has_disparity else None)


@pytest.fixture
def folder(tmp_path):
    view = np.random.default_rng(0).integers(0, 256, (800, 1000, 3)).astype(np.uint8)
    depth = np.tile(np.linspace(255, 0, 1000).round().astype(np.uint8), (800, 1))
    for part in "LR":
        assert cv2.imwrite(str(tmp_path / f"001_{part}.jpg"), view)
    assert cv2.imwrite(str(tmp_path / "001_D.TIF"), depth)
    return tmp_path


def test_scenes_are_scored_at_half_size(folder):
    (score,) = evaluate_dpd_disp(folder, Ramp()).values()
    assert score.affine_mae < 0.005
    assert score.rank_error < 0.01


def test_the_command_scores_the_map_that_is_named(folder, monkeypatch, capsys):
    asked = []

    def load_estimator(name):
        asked.append(name)
        return Ramp()

    monkeypatch.setattr(dpd_disp, "load_estimator", load_estimator)
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--blur", "learned"])
    main()
    assert asked == ["learned"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("mean")


def test_what_cannot_be_scored_is_an_error(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no signed disparity to score"):
        evaluate_dpd_disp(folder, Ramp(has_disparity=False))
    assert cv2.imwrite(str(folder / "001_D.TIF"), np.zeros((800, 999), np.uint8))
    with pytest.raises(ValueError, match="views and truth of different sizes"):
        evaluate_dpd_disp(folder, Ramp())
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"no scenes; expected NNN_L\.jpg"):
        main()
