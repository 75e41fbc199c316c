import json
import sys

import numpy as np
import pytest
import torch

from training.logs import Meter, RunLog, TrainFigures, duration
from training.losses import Terms

FIGURES = TrainFigures(0.5, 0.4, 1.0, None, 1.5, 0.1, 1e-3, 2.0, 4.0)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def terms(loss):
    return Terms(torch.tensor(loss), torch.tensor(loss / 2), torch.tensor(loss / 4))


def test_figures_are_averages_over_the_steps_since_the_last_report():
    meter = Meter(torch.device("cpu"), 10, batch=8)
    for loss in (1.0, 2.0, 3.0, 6.0):  # two steps of two passes
        meter.add_pass(terms(loss), torch.tensor(loss * 10), 2)
    for norm in (1.0, 2.0):
        meter.add_norm(torch.tensor(norm))
    found = meter.average(12, 1e-3)
    assert (found.loss, found.charbonnier, found.blur_weighting) == (3.0, 1.5, 0.75)
    assert (found.blur_aware, found.gain_db, found.gradient_norm) == (None, 30.0, 1.5)
    assert found.crops_per_second == pytest.approx(8 / found.seconds_per_step)
    meter.add_pass(terms(5.0), torch.tensor(0.0), 1)
    assert meter.average(13, 1e-3).loss == 5.0


def test_a_pause_is_not_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = Meter(torch.device("cpu"), 0, batch=6)
    now[0] = 150.0
    meter.pause(44.0)
    figures = meter.average(2, 1e-3)
    assert (figures.seconds_per_step, figures.crops_per_second) == (3.0, 2.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_an_error_that_says_where(tmp_path, value):
    meter = Meter(torch.device("cpu"), 0, batch=1)
    meter.check(1, tmp_path)
    meter.add_norm(torch.tensor(value))
    with pytest.raises(FloatingPointError, match=r"gradient (nan|inf) by step 2; .*last check"):
        meter.check(2, tmp_path)


def test_the_progress_line_has_throughput_and_the_time_left():
    assert FIGURES.line("step 100/190", 90 * FIGURES.seconds_per_step) == (
        "step 100/190  loss 0.5000  gain +1.50 dB  2.000 s/step  4.0 crops/s  3 min left"
    )
    assert [duration(s) for s in (0, 59.4, 60, 3599, 11_100)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h 00 min",
        "3 h 05 min",
    ]


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
    log = RunLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.train(0, step, step, FIGURES)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')  # killed while it wrote
    log = RunLog(tmp_path, 20)
    log.figures("validation", 1, 5, 25, {"score_db": 3.0, "none": None})
    log.close()
    found = lines(tmp_path)
    assert [(x["kind"], x["stage"], x["step"], x["total_step"]) for x in found] == [
        ("train", 1, 10, 10),
        ("train", 1, 20, 20),
        ("validation", 2, 5, 25),
    ]
    assert found[0]["loss"] == 0.5
    assert "blur_aware" not in found[0]
    assert found[2].keys() == {"kind", "stage", "step", "total_step", "score_db"}


def test_tensorboard_is_given_the_figures_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.train(0, step, step, FIGURES)
    log.close()
    log = RunLog(tmp_path, 10)  # the run was killed, and goes on from step 10
    log.train(0, 20, 20, FIGURES)
    log.picture("real", 20, np.zeros((8, 12, 3), np.uint8))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(x.step, x.value) for x in events.Scalars("train/loss")] == [(10, 0.5), (20, 0.5)]
    assert events.Images("samples/real")[0].width == 12
    assert "train/blur_aware" not in events.Tags()["scalars"]


def test_without_tensorboard_there_are_figures_and_pictures_all_the_same(tmp_path, monkeypatch):
    import cv2

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, 0)
    log.train(0, 10, 10, FIGURES)
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    log.picture("rendered", 10, red)
    log.close()
    assert len(lines(tmp_path)) == 1
    shown = cv2.imread(str(tmp_path / "samples" / "00000010-rendered.png"))
    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], red)
    assert not (tmp_path / "tensorboard").exists()
