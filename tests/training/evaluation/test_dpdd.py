import json
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from ldp.types import as_float
from tests.helpers.made_dpdd import made_scene, write_dpdd
from training.evaluation.dpdd import MEAN_VIEW, evaluate_dpdd, find_labels, main
from training.evaluation.metrics import psnr_db
from training.evaluation.scoring import Methods, formatted


def left_view(views):
    """A method that gives the left view back."""
    return views.left


@pytest.mark.parametrize("repack", [False, True])
def test_every_scene_of_either_layout_is_scored(tmp_path, repack):
    seen: list[Any] = []
    results, summaries = evaluate_dpdd(
        write_dpdd(tmp_path, repack=repack),
        Methods({"left": left_view}, report=seen.append),
        "train",
    )
    assert [result.name for result in results] == ["1P0A0917", "1P0A0919", "1P0A0921"]
    assert seen == results
    left, right, sharp = (as_float(p).astype(np.float64) for p in made_scene(1, 96, 128))
    found = results[1].scores
    assert found["left"].psnr_db == pytest.approx(psnr_db(left, sharp), abs=1e-3)
    assert found[MEAN_VIEW].psnr_db == pytest.approx(psnr_db((left + right) / 2, sharp), abs=1e-3)
    assert found[MEAN_VIEW].rmse < found["left"].rmse
    assert [(s.method, s.scenes, s.count) for s in summaries] == [
        (MEAN_VIEW, "all", 3),
        ("left", "all", 3),
    ]
    mean = np.mean([result.scores["left"].psnr_db for result in results])
    assert summaries[1].average.psnr_db == pytest.approx(mean)
    assert f"{mean:.2f}" in formatted(summaries).splitlines()[2]


def test_indoor_and_outdoor_are_numbered_from_one(tmp_path):
    folder = write_dpdd(tmp_path, repack=True)
    np.save(folder / "train" / "indoor_labels.npy", np.array([1, 3]))
    np.save(folder / "outdoor_labels.npy", np.array([2]))
    results, summaries = evaluate_dpdd(folder, Methods({}), "train")
    by_kind = {summary.scenes: summary for summary in summaries}
    assert asdict(by_kind["outdoor"].average) == pytest.approx(asdict(results[1].scores[MEAN_VIEW]))
    assert by_kind["indoor"].count == 2
    indoor = (results[0].scores[MEAN_VIEW].mae + results[2].scores[MEAN_VIEW].mae) / 2
    assert by_kind["indoor"].average.mae == pytest.approx(indoor)


@pytest.mark.parametrize("labels", [[0, 1], [4], []])
def test_labels_of_scenes_that_are_not_there_are_an_error(tmp_path, labels):
    np.save(tmp_path / "indoor_labels.npy", np.array(labels, np.int64))
    with pytest.raises(ValueError, match="expected numbers from 1 to 3"):
        find_labels(tmp_path, "test", 3)


def test_the_command_prints_a_table_and_writes_json(tmp_path, monkeypatch, capsys):
    folder = write_dpdd(tmp_path / "dpdd", count=2)
    arguments = [str(folder), "--split", "train", "--json", str(tmp_path / "scores.json")]
    monkeypatch.setattr(sys, "argv", ["evaluate_dpdd", *arguments])
    main()
    figures = json.loads((tmp_path / "scores.json").read_text())
    assert figures["protocol"] == "restormer"
    assert len(figures["scenes"]) == 2
    average = figures["averages"][0]["average"]
    assert f"all (2)       {MEAN_VIEW}" in capsys.readouterr().out
    assert average["rmse"] == pytest.approx(10 ** (-average["psnr_db"] / 20))
    assert average["psnr_db"] > 10


def test_a_folder_without_the_set_ends_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate_dpdd", str(tmp_path)])
    with pytest.raises(SystemExit, match="no DPDD; expected test_l/source"):
        main()
