import json
import sys

import cv2
import numpy as np
import pytest

from tests.helpers.made_dpdd import made_scene
from training.data.single import find_single_scenes
from training.evaluation.metrics import psnr_db
from training.evaluation.single import evaluate_single, main


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1])


@pytest.fixture
def realdof(tmp_path):
    for index in range(2):
        blurred, _, sharp = made_scene(index, 64, 96)
        write(tmp_path / "source" / f"{index}.png", blurred)
        write(tmp_path / "target" / f"{index}.png", sharp)
    return tmp_path


@pytest.mark.parametrize("outer", ["", "test_data"])
def test_lfdof_has_several_pictures_of_a_ground_truth(tmp_path, outer):
    blurred, _, sharp = made_scene(0, 64, 96)
    folder = tmp_path / outer
    write(folder / "ground_truth" / "ID_1.png", sharp)
    write(folder / "ground_truth" / "ID_2.png", sharp)
    for name in ("ID_1/a.png", "ID_1/b.png", "ID_2.png"):
        write(folder / "input" / name, blurred)
    found = find_single_scenes(tmp_path)
    assert [scene.left.name for scene in found] == ["a.png", "b.png", "ID_2.png"]
    assert [scene.sharp.stem for scene in found] == ["ID_1", "ID_1", "ID_2"]
    assert all(scene.left == scene.right for scene in found)


def test_both_views_are_the_picture_and_its_scores_the_inputs(realdof):
    seen = []

    def restore(views):
        np.testing.assert_array_equal(views.left, views.right)
        seen.append(views.size)
        return views.left

    results, summaries = evaluate_single(realdof, {"same": restore})
    assert seen == [(64, 96)] * 2
    blurred, _, sharp = (picture / 65535 for picture in made_scene(1, 64, 96))
    for score in results[1].scores.values():
        assert score.psnr_db == pytest.approx(psnr_db(blurred, sharp))
    assert [(s.scenes, s.count) for s in summaries] == [("all", 2)] * 2


def test_folders_that_cannot_be_scored_are_errors(realdof):
    with pytest.raises(ValueError, match="expected source and target"):
        find_single_scenes(realdof / "source")
    (realdof / "target" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png: no 1 and no source in"):
        find_single_scenes(realdof)


def test_the_command_writes_its_figures(realdof, monkeypatch, capsys):
    figures = realdof / "figures.json"
    monkeypatch.setattr(sys, "argv", ["x", str(realdof), "--measure", "--json", str(figures)])
    main()
    assert "all (2)" in capsys.readouterr().out
    written = json.loads(figures.read_text())
    assert len(written["scenes"]) == 2
    assert written["averages"][0]["average"]["fsim"] is None
