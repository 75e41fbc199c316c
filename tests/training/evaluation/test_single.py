"""Single pictures: layouts of data sets, the padding of the published code, the command."""

import json
import sys

import cv2
import numpy as np
import pytest

from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import as_float, to_uint16
from tests.helpers.made_dpdd import made_scene
from training.data.single import find_single_scenes
from training.evaluation.metrics import psnr_db
from training.evaluation.scoring import Methods
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


@pytest.mark.parametrize("repack", [False, True])
def test_of_dpdd_the_combined_photos_are_taken(tmp_path, repack):
    blurred, _, sharp = made_scene(0, 64, 96)
    names = ("test_c/source/1P0A0917.png", "test_c/target/1P0A0918.png")
    if repack:
        names = ("test/inputC/1P0A0917.png", "test/target/1P0A0917.png")
    for name, picture in zip(names, (blurred, sharp), strict=True):
        write(tmp_path / name, picture)
    (found,) = find_single_scenes(tmp_path, "test")
    assert [found.left, found.right, found.sharp] == [tmp_path / names[i] for i in (0, 0, 1)]
    with pytest.raises(ValueError, match="train_c/source"):
        find_single_scenes(tmp_path, "train")


def test_a_folder_of_inputs_and_truths(tmp_path):
    blurred, _, sharp = made_scene(0, 64, 96)
    write(tmp_path / "input" / "a.png", blurred)
    write(tmp_path / "gt" / "a.png", sharp)
    (found,) = find_single_scenes(tmp_path)
    assert (found.left.parent.name, found.sharp.parent.name) == ("input", "gt")


def test_an_input_beside_its_truth_goes_before_views(tmp_path):
    left, right, sharp = made_scene(0, 64, 96)
    for part, picture in (("L", left), ("R", right), ("input", right), ("gt", sharp)):
        write(tmp_path / f"01_{part}.png", picture)
    (result,), _ = evaluate_single(tmp_path, Methods({}))
    assert result.name == "01"
    expected = psnr_db(right / 65535, sharp / 65535)
    assert result.scores["input"].psnr_db == pytest.approx(expected)


def test_of_views_the_composite_is_restored_and_scored(tmp_path):
    """It is what the camera makes of both views: the mean of their light."""
    left, right, sharp = made_scene(0, 64, 96)
    for part, picture in (("L", left), ("R", right), ("gt", sharp)):
        write(tmp_path / f"01_{part}.png", picture)
    light = decode_srgb(as_float(left).copy()) + decode_srgb(as_float(right).copy())
    light /= 2

    def restore(views):
        np.testing.assert_array_equal(views.left, views.right)
        np.testing.assert_allclose(decode_srgb(views.left.copy()), light, atol=1e-5)
        return to_uint16(views.left)

    (result,), _ = evaluate_single(tmp_path, Methods({"same": restore}))
    assert result.name == "01"
    expected = psnr_db(encode_srgb(light).astype(np.float64), sharp / 65535)
    assert result.scores["same"].psnr_db == pytest.approx(expected, abs=1e-3)
    assert result.scores["input"].psnr_db == pytest.approx(expected, abs=1e-3)


def test_as_published_pictures_and_truth_are_padded_and_scored_whole(tmp_path):
    """Below and beside, the padding has an error of its own, which the published figures count."""
    blurred, _, sharp = made_scene(0, 324, 336)
    sharp[-4:] = 65535 - blurred[-4:]
    write(tmp_path / "source" / "a.png", blurred)
    write(tmp_path / "target" / "a.png", sharp)
    seen = []

    def restore(views):
        seen.append(views.size)
        return views.left

    methods = Methods({"same": restore})
    (padded,), _ = evaluate_single(tmp_path, methods, as_published=True)
    (plain,), _ = evaluate_single(tmp_path, methods)
    assert seen == [(336, 336), (324, 336)]
    grown = [
        cv2.copyMakeBorder(x, 0, 12, 0, 0, cv2.BORDER_REFLECT) / 65535 for x in (blurred, sharp)
    ]
    assert padded.scores["same"].psnr_db == pytest.approx(psnr_db(*grown))
    assert padded.scores["same"].psnr_db < plain.scores["same"].psnr_db


def test_as_published_short_sides_are_enlarged_to_a_window(realdof):
    seen = []

    def restore(views):
        seen.append((views.size, views.left.dtype))
        return np.zeros((*views.size, 3), np.uint16)

    (first, _), _ = evaluate_single(realdof, Methods({"black": restore}), as_published=True)
    assert seen == [((320, 320), np.float32)] * 2
    blurred, sharp = (
        cv2.resize(x / np.float32(65535), (320, 320), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        for x in made_scene(0, 64, 96)[::2]
    )
    assert first.scores["input"].psnr_db == pytest.approx(psnr_db(blurred, sharp), abs=1e-3)


def test_both_views_are_the_picture_and_its_scores_the_inputs(realdof):
    seen = []

    def restore(views):
        np.testing.assert_array_equal(views.left, views.right)
        seen.append(views.size)
        return views.left

    results, summaries = evaluate_single(realdof, Methods({"same": restore}))
    assert seen == [(64, 96)] * 2
    blurred, _, sharp = (picture / 65535 for picture in made_scene(1, 64, 96))
    for score in results[1].scores.values():
        assert score.psnr_db == pytest.approx(psnr_db(blurred, sharp))
    assert [(s.scenes, s.count) for s in summaries] == [("all", 2)] * 2


def test_rows_at_the_top_can_be_left_out(realdof):
    methods = Methods({"same": lambda views: to_uint16(as_float(views.left))}, skip_rows=50)
    results, _ = evaluate_single(realdof, methods)
    blurred, _, sharp = (picture[50:] / 65535 for picture in made_scene(1, 64, 96))
    assert results[1].scores["same"].psnr_db == pytest.approx(psnr_db(blurred, sharp))


def test_folders_that_cannot_be_scored_are_errors(realdof):
    with pytest.raises(ValueError, match=r"source: expected .* or NAME_L\.png, NAME_R\.png and"):
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
    assert (written["protocol"], written["window_stride"]) == ("restormer", 94)
    assert written["padding"] == "none"
