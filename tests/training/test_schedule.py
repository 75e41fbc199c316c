import time

import numpy as np
import pytest

from tests.helpers.micro_run import ALONE, checkpoint, micro_settings, run, same, write_photo
from training.errors import RecipeError
from training.schedule import Schedule, TimeBudget, learning_rate, timed_learning_rate
from training.settings import TrainSettings

SETTINGS = TrainSettings(steps=1000, warm_up_steps=100)

pytestmark = pytest.mark.usefixtures("micro")


def after(seconds, minutes=10.0, spent_s=0.0):
    """A schedule of a command that began `seconds` ago."""
    return Schedule(SETTINGS, ALONE, TimeBudget(minutes, time.monotonic() - seconds), spent_s)


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    rates = [learning_rate(step, SETTINGS) for step in range(1001)]
    assert rates[0] == pytest.approx(SETTINGS.learning_rate / 100)
    assert max(rates) == rates[99] == rates[100] == pytest.approx(SETTINGS.learning_rate)
    assert np.all(np.diff(rates[100:]) < 0)
    assert rates[-1] == pytest.approx(SETTINGS.final_learning_rate)


def test_by_the_clock_the_rate_ends_with_the_time_however_many_steps_were_done():
    for step in (150, 10_000):
        rates = [timed_learning_rate(step, share, SETTINGS) for share in np.linspace(0, 1, 20)]
        assert rates[0] == pytest.approx(SETTINGS.learning_rate)
        assert np.all(np.diff(rates) < 0)
        assert rates[-1] == pytest.approx(SETTINGS.final_learning_rate)
    early = timed_learning_rate(9, 0.25, SETTINGS)
    assert early == pytest.approx(timed_learning_rate(500, 0.25, SETTINGS) / 10)


def test_without_a_budget_the_steps_end_a_stage():
    schedule = Schedule(SETTINGS, ALONE)
    assert not schedule.ended(999)
    assert schedule.ended(1000)
    assert schedule.rate(500) == learning_rate(500, SETTINGS)
    assert schedule.position(5) == "step 5/1000"
    assert schedule.left_s(900, 2.0) == 200
    assert schedule.spent_s(5) == 0


def test_a_budget_ends_a_stage_with_its_minutes():
    half, over = after(300), after(601)
    assert not half.ended(10**9)
    assert half.rate(500) == pytest.approx(timed_learning_rate(500, 0.5, SETTINGS), rel=0.01)
    assert half.left_s(3, 1.0) == pytest.approx(300, abs=30)
    assert half.position(3) == "step 3, 50% of 10 minutes"
    assert over.ended(1)
    assert over.left_s(3, 1.0) == 0


def test_time_of_earlier_commands_counts():
    resumed = after(100, spent_s=200)
    assert resumed.spent_s(1) == pytest.approx(300, abs=30)
    assert resumed.position(3) == "step 3, 50% of 10 minutes"
    # All of it is spent once training has ended, so that nothing is trained any more.
    assert after(1, spent_s=600).spent_s(1) >= 600


def test_time_for_the_last_validation_is_kept_back():
    schedule = after(550)
    schedule.reserve(60)
    assert not schedule.ended(1)
    schedule.update()
    assert schedule.ended(1)
    assert schedule.spent_s(1) == 600


def test_a_run_with_a_budget_can_be_stopped_and_resumed_and_ends(tmp_path):
    photos = write_photo(tmp_path / "photos")
    settings, out = micro_settings(steps=1, save_every=100), tmp_path / "run"
    assert not run([settings], out, photos=photos, minutes=60, stop_at=time.monotonic())
    stopped = checkpoint(out)
    # The recipe's one step is no end.
    assert not run([settings], out, photos=photos, minutes=60, stop_at=time.monotonic())
    resumed = checkpoint(out)
    assert (stopped["step"], resumed["step"]) == (1, 2)
    assert 0 < stopped["spent_s"] < resumed["spent_s"]
    seconds = resumed["spent_s"]
    assert run([settings], out, photos=photos, minutes=seconds / 60)
    same(checkpoint(out), resumed)
    assert run([settings], out, photos=photos, minutes=(seconds + 2) / 60)
    ended = checkpoint(out)
    assert ended["step"] >= 2
    assert run([settings], out, photos=photos, minutes=(seconds + 2) / 60)
    same(checkpoint(out), ended)


def test_a_budget_is_for_one_stage(tmp_path):
    photos = write_photo(tmp_path / "photos")
    with pytest.raises(RecipeError, match="2 stages: a time budget needs a recipe of one"):
        run([micro_settings()] * 2, tmp_path / "run", photos=photos, minutes=1)
