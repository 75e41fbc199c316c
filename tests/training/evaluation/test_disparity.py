import sys
from dataclasses import astuple

import cv2
import numpy as np
import pytest

from ldp.blur.disparity import DisparityEstimator
from ldp.types import BlurMap
from training.evaluation import disparity as evaluate_disparity
from training.evaluation.disparity import main, score_rendered
from training.evaluation.synthetic import SEED, Level, sample_scene

MEASURED = DisparityEstimator(field_falloff=0.0)


@pytest.fixture(scope="module")
def photo():
    """Letters on blotches, linear light."""
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (8, 12, 3)).astype(np.uint8), (192, 128))
    for y in range(10, 128, 12):
        colour = rng.integers(0, 256, 3).tolist()
        cv2.putText(picture, "Xyz 0123 abc 456", (2, y), 0, 0.5, colour, 1, cv2.LINE_AA)
    return picture.astype(np.float32) / np.float32(255)


class Oracle:
    """Knows the truth but for an affine function."""

    def __init__(self, photo, radius_px, gain=1.0, offset=0.0):
        pair, _ = sample_scene(photo, radius_px, np.random.default_rng([SEED, 0]))
        self.map = BlurMap(
            (np.abs(pair.coc_px) / 20).astype(np.float32),
            (pair.disparity_px * gain + offset).astype(np.float32),
            np.ones_like(pair.coc_px),
        )

    def estimate(self, views):
        return self.map


def test_the_truth_scores_best_and_an_affine_function_of_it_loses_only_what_it_should(photo):
    assert astuple(score_rendered(photo, 0, 6.0, "none", Oracle(photo, 6.0))) == pytest.approx(
        (0, 0, 0, 1, 1, 0, 1), abs=1e-5
    )
    shifted = score_rendered(photo, 0, 6.0, "none", Oracle(photo, 6.0, gain=0.5, offset=3.0))
    assert shifted.affine_mae == pytest.approx(0, abs=1e-4)
    assert shifted.rank_error == pytest.approx(0, abs=1e-4)
    assert shifted.share_within_1 < 0.5
    assert shifted.in_focus_accuracy < 0.9


def test_the_estimator_is_better_than_a_map_that_knows_nothing(photo):
    found = score_rendered(photo, 0, 6.0, "none", MEASURED)
    assert found.rank_error < 0.3
    assert found.share_within_1 > 0.6


def test_the_command_prints_a_line_for_every_level_and_noise(photo, tmp_path, monkeypatch, capsys):
    assert cv2.imwrite(str(tmp_path / "a.png"), (photo * 255).astype(np.uint8))
    monkeypatch.setattr(evaluate_disparity, "LEVELS", (Level(2.0, 1.0, (0.01, 0.01)),))
    monkeypatch.setattr(sys, "argv", ["x", "--photos", str(tmp_path)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[-2:]] == ["2 px, none", "2 px, ISO 3200"]
    assert len(lines[-1][20:].split()) == 7


def test_real_scenes_can_be_scored_enlarged(tmp_path, monkeypatch, capsys):
    # A slanted plane: disparity and inverse depth both fall from left to right.
    folder = tmp_path / "box" / "001"
    folder.mkdir(parents=True)
    height, width = 64, 96
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.5).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for name, side in (("l", 0.5), ("r", -0.5)):
        view = cv2.remap(texture, x - side * (2 - 4 * x / width), y, cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"{name}.png"), view.clip(0, 255).astype(np.uint8))
    assert cv2.imwrite(str(folder / "d.png"), (20 + 2 * x).astype(np.uint8))
    for options in ([], ["--enlarge", "2"], ["--alone"]):
        monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), *options])
        main()
        header, _, mean = capsys.readouterr().out.splitlines()
        assert header.endswith("c > 0        s")
        assert float(mean.split()[2]) > 0.9
        assert float(mean.split()[6]) > 0.6


@pytest.mark.parametrize("arguments", [[], ["none"], ["--photos", "none"]])
def test_without_anything_to_score_it_ends_with_a_message(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert ("give ROOT" if not arguments else "none: no") in capsys.readouterr().err


def test_a_negative_count_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--photos", str(tmp_path), "--count", "-1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--count: expected 0 or more, found '-1'" in capsys.readouterr().err


def test_a_root_without_scenes_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{tmp_path}: no scenes; expected box/NNN" in capsys.readouterr().err


def test_a_map_without_disparity_is_scored_by_its_amount(photo):
    class Amount:
        def estimate(self, views):
            return BlurMap(Oracle(photo, 6.0).map.amount)

    score = score_rendered(photo, 0, 6.0, "none", Amount())
    assert np.isnan(score.affine_mae)
    assert score.blur_rank_error == pytest.approx(0, abs=1e-5)
    assert score.blur_accuracy > 0.95


def test_depth_of_another_type_is_refused(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "box" / "001"
    folder.mkdir(parents=True)
    view = np.random.default_rng(0).integers(0, 256, (128, 192, 3)).astype(np.uint8)
    for name in ("l", "r"):
        assert cv2.imwrite(str(folder / f"{name}.png"), view)
    assert cv2.imwrite(str(folder / "d.png"), np.full((128, 192), 1500, np.uint16))
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "d.png: uint16 samples, up to 1500; expected 8 bits, 255 at 10 m" in said
