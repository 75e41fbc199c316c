import json
import re
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import ldp
from ldp.blur.disparity import DisparityEstimator
from ldp.models.network import SIZES, LDPNet
from ldp.models.weights import load_network, read_header
from ldp.types import as_float
from tests.helpers.made_dpdd import made_scene, write_dpdd
from tests.helpers.micro_run import MICRO, checkpoint, micro_settings, run, same, weights
from training import train as training_loop
from training.checkpoint import update_average
from training.evaluation.scenes import evaluate
from training.validation import (
    RealValidation,
    ValidationScores,
    ValidationSet,
    read_real_scenes,
    validate,
)

CPU = torch.device("cpu")
SCORES = ValidationScores(30.0, 1.0, None, None, None, 0.1)

pytestmark = pytest.mark.usefixtures("micro")


@pytest.fixture
def real(tmp_path):
    """Three scenes; the true photos have an exposure of their own."""
    folder = tmp_path / "real"
    folder.mkdir()
    for index in range(3):
        pictures = list(made_scene(index, 64, 96))
        pictures[2] = (pictures[2] * 0.8).astype(np.uint16)
        for part, picture in zip(("L", "R", "gt"), pictures, strict=True):
            assert cv2.imwrite(str(folder / f"{index:02d}_{part}.png"), picture[..., ::-1])
    return folder


def moved_network():
    """A network that changes its input."""
    torch.manual_seed(0)
    return LDPNet(replace(MICRO, crop_px=32))


def example(seed=0):
    rng = np.random.default_rng(seed)
    views, amount, sharp = (rng.random((c, 32, 32), np.float32) for c in (6, 1, 3))
    return tuple(map(torch.from_numpy, (views, amount, sharp)))


def test_real_scenes_score_as_the_evaluation_of_what_users_get(real, tmp_path):
    scenes = read_real_scenes(real, 16, DisparityEstimator())
    assert [scene.name for scene in scenes] == ["00", "01", "02"]
    network = moved_network()
    found = validate(network, ValidationSet(real=scenes, skip_rows=5), CPU).scores
    model = ldp.Model(moved_network(), device="cpu")
    for scene in scenes:
        restored = model.restore_uint16(scene.views, blur_map=scene.blur_map).sharp
        assert cv2.imwrite(str(tmp_path / f"{scene.name}.png"), restored[..., ::-1])
    table = evaluate(real, tmp_path, skip_rows=5)
    rows = [(row["restored"], row["mean"]) for row in table.values()]
    assert found.real_psnr_db == pytest.approx(np.mean([r.psnr_db for r, _ in rows]))
    assert found.real_fitted_psnr_db == pytest.approx(np.mean([r.fitted_psnr_db for r, _ in rows]))
    gains = [r.fitted_psnr_db - mean.fitted_psnr_db for r, mean in rows]
    assert found.real_least_gain_db == pytest.approx(min(gains), abs=1e-3)
    assert found.score_db == found.real_fitted_psnr_db
    assert found.rendered_psnr_db is None


def test_validation_changes_neither_weights_nor_random_state():
    network = moved_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    one = validate(network, ValidationSet((example(),)), CPU).scores
    same(network.state_dict(), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in network.parameters())
    two = validate(network, ValidationSet((example(),)), CPU).scores
    assert replace(one, seconds=0) == replace(two, seconds=0)


def test_rendered_pairs_score_by_their_distance_to_the_truth():
    views, amount, _ = example()
    network = moved_network()
    for parameter in network.ending.parameters():
        parameter.data.zero_()  # gives the mean view back
    truth = ((views[:3] + views[3:]) / 2 - 0.1).clamp(0.2, 0.6)
    found = validate(network, ValidationSet(((views, amount, truth),)), CPU)
    error = float((((views[:3] + views[3:]) / 2 - truth) ** 2).mean())
    # bfloat16 where the processor multiplies it.
    assert found.scores.rendered_psnr_db == pytest.approx(-10 * np.log10(error), abs=0.05)
    assert found.scores.rendered_gain_db == pytest.approx(0, abs=0.05)
    assert found.scores.score_db == found.scores.rendered_psnr_db
    ((name, strip),) = found.samples
    assert name == "rendered"
    assert strip.shape == (32, 4 * 32, 3)
    shown = np.rint(truth.permute(1, 2, 0).numpy() * 255)
    np.testing.assert_array_equal(strip[:, 64:96], shown)
    np.testing.assert_array_equal(strip[:, 96:, 1], np.rint(amount[0].numpy() * 255))


def test_real_samples_stand_side_by_side(real):
    scenes = read_real_scenes(real, 16, DisparityEstimator())
    found = validate(moved_network(), ValidationSet(real=scenes), CPU)
    ((name, strip),) = found.samples
    assert name == "real"
    assert strip.shape == (3 * 64, 4 * 96, 3)
    truth = np.rint(as_float(scenes[1].truth) * 255)
    np.testing.assert_array_equal(strip[64:128, 2 * 96 : 3 * 96], truth)


def test_of_many_scenes_some_from_all_over_are_taken(real):
    names = [scene.name for scene in read_real_scenes(real, 2, DisparityEstimator())]
    assert names == ["00", "02"]


def test_dpdd_s_validation_split_is_taken_where_there_is_one(tmp_path):
    folder = write_dpdd(tmp_path / "dpdd", repack=True)
    (folder / "train").rename(folder / "val")
    assert len(read_real_scenes(folder, 16, DisparityEstimator())) == 3


def test_scenes_that_cannot_be_used_are_errors(real, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no DPDD; expected val_l/source"):
        read_real_scenes(tmp_path / "none", 16, DisparityEstimator())
    assert cv2.imwrite(str(real / "01_gt.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match=r"01_L\.png: .* expected one size"):
        read_real_scenes(real, 16, DisparityEstimator())


def test_a_score_is_of_the_pictures_and_the_rows_that_are_scored(real):
    scenes = read_real_scenes(real, 16, DisparityEstimator())
    sets = [
        ValidationSet((example(),)),
        ValidationSet((example(1),)),
        ValidationSet((example(), example(1))),
        ValidationSet((example(),), scenes),
        ValidationSet((example(),), scenes, 3),
        ValidationSet((example(),), scenes[:2]),
    ]
    names = [pictures.name for pictures in sets]
    assert len(set(names)) == len(names)
    # Where there are real scenes, the score is theirs alone.
    assert ValidationSet(real=scenes).name == sets[3].name
    assert names[3].startswith("3 real scenes, exposure-fitted")


def scores_in_turn(monkeypatch, *scores):
    """Lets validations find these scores, one after the other."""
    left = list(scores)

    def found(average, pictures, device):
        at = replace(SCORES, rendered_psnr_db=left.pop(0))
        return type("Found", (), {"scores": at, "samples": ()})

    monkeypatch.setattr(training_loop, "validate", found)


def test_the_best_weights_stay_beside_the_last(photos, tmp_path, monkeypatch):
    scores_in_turn(monkeypatch, 30.0, 32.5, 31.0)
    settings = micro_settings(steps=6, validate_every=2, validate_pairs=1)
    run([settings], tmp_path / "run", photos=photos)
    best, last = (read_header(tmp_path / "run" / f"weights{x}.safetensors") for x in ("-best", ""))
    assert (best.notes["steps"], last.notes["steps"]) == ("4", "6")
    assert re.fullmatch(r"32\.500 dB, 1 rendered pairs, \w{12}", best.notes["score"])
    assert last.notes["score"].startswith("31.000 dB")
    assert checkpoint(tmp_path / "run")["best"]["score_db"] == 32.5


@pytest.mark.slow
def test_the_best_score_survives_a_resumption_on_the_same_pictures_only(
    photos, real, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    settings = micro_settings(steps=2, validate_every=2, validate_pairs=1)
    scores_in_turn(monkeypatch, 32.5)
    run([settings], out, photos=photos)
    scores_in_turn(monkeypatch, 31.0)
    run([replace(settings, steps=4)], out, photos=photos)
    assert read_header(out / "weights-best.safetensors").notes["steps"] == "2"
    # On other pictures 32.5 dB mean nothing.
    monkeypatch.undo()
    monkeypatch.setitem(SIZES, "micro", MICRO)
    run([replace(settings, steps=6)], out, photos=photos, validation=RealValidation(real))
    notes = read_header(out / "weights-best.safetensors").notes
    assert notes["steps"] == "6"
    assert "3 real scenes" in notes["score"]
    # Without validation it is kept as it is.
    run([replace(settings, steps=8, validate_pairs=0)], out, photos=photos)
    assert checkpoint(out)["best"]["step"] == 6


@pytest.mark.slow
def test_what_is_learned_does_not_depend_on_validating(photos, real, tmp_path, capsys):
    settings = micro_settings(steps=4, validate_every=1, validate_pairs=2)
    run([settings], tmp_path / "with", photos=photos, validation=RealValidation(real, 5))
    said = capsys.readouterr().out
    assert len(re.findall(r"validation: rendered .* dB \(.*\); real .* dB, fitted ", said)) == 4
    run([replace(settings, validate_pairs=0)], tmp_path / "without", photos=photos)
    one, other = (checkpoint(tmp_path / name) for name in ("with", "without"))
    assert one.pop("best")["evaluation_set"].startswith("3 real scenes")
    assert other.pop("best") is None
    same(one, other)
    assert not (tmp_path / "without" / "weights-best.safetensors").exists()
    shown = sorted(path.name for path in (tmp_path / "with" / "samples").iterdir())
    assert shown == [f"0000000{n}-{name}.png" for n in range(1, 5) for name in ("real", "rendered")]
    lines = [
        json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [x["kind"] for x in lines] == ["validation"] * 3 + ["train", "validation"]
    same(
        weights(tmp_path / "with" / "weights.safetensors"),
        weights(tmp_path / "without" / "weights.safetensors"),
    )


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_goes_on_as_if_it_had_not(photos, tmp_path, capsys):
    settings = micro_settings(steps=6, save_every=100, validate_every=3, validate_pairs=1)
    assert run([settings], tmp_path / "whole", photos=photos)
    ended = [
        run([settings], tmp_path / "parts", photos=photos, stop_at=time.monotonic())
        for _ in range(5)
    ]
    assert ended == [False] * 5
    assert checkpoint(tmp_path / "parts")["step"] == 5
    assert run([settings], tmp_path / "parts", photos=photos)
    same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    lines = [
        json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [x["step"] for x in lines if x["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["average", "network"])
def test_weights_that_are_no_numbers_are_never_written(photos, tmp_path, monkeypatch, where):
    out = tmp_path / "run"
    run([micro_settings(steps=2, validate_every=2, validate_pairs=1)], out, photos=photos)
    names = ("checkpoint.pt", "weights.safetensors", "weights-best.safetensors")
    before = [(out / name).read_bytes() for name in names]

    def spoiling(average, network, decay):
        update_average(average, network, decay)
        # In the average a number that is no half: the file would hold an infinity.
        spoilt, value = (average, 1e6) if where == "average" else (network, float("nan"))
        spoilt.ending.bias.data[0] = value

    monkeypatch.setattr(training_loop, "update_average", spoiling)
    settings = micro_settings(steps=3, validate_every=100, save_every=1)
    with pytest.raises(FloatingPointError, match=r"a weight is not finite at step 3; .*last check"):
        run([settings], out, photos=photos)
    assert [(out / name).read_bytes() for name in names] == before
    load_network(out / "weights.safetensors")
