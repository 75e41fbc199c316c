from dataclasses import replace

import pytest

from ldp.errors import WeightsError
from ldp.models.network import SIZES, LDPNet
from ldp.models.released import LDPReleased, ReleasedConfig
from ldp.models.weights import load_network, save_network
from tests.helpers.made_dpdd import write_dpdd
from tests.helpers.micro_run import MICRO, checkpoint, micro_settings, run, same, weights
from training import train as training_loop
from training.checkpoint import update_average

pytestmark = pytest.mark.usefixtures("micro")


@pytest.fixture
def dpdd(tmp_path):
    return write_dpdd(tmp_path / "dpdd")


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [3, 7])  # amid the first stage, and amid the second
def test_on_dpdd_a_killed_run_goes_on_as_if_nothing_had_been(
    dpdd, tmp_path, monkeypatch, last_step
):
    first = micro_settings(accumulate=2)
    stages = [first, replace(first, blur_weighting_weight=0.2, learning_rate=5e-4)]
    run(stages, tmp_path / "whole", dpdd=dpdd)

    steps = []

    def killing(average, network, decay):
        steps.append(decay)
        if len(steps) == last_step:
            raise Killed
        update_average(average, network, decay)

    monkeypatch.setattr(training_loop, "update_average", killing)
    with pytest.raises(Killed):
        run(stages, tmp_path / "killed", dpdd=dpdd)
    monkeypatch.undo()
    monkeypatch.setitem(SIZES, "micro", MICRO)
    before = checkpoint(tmp_path / "killed")
    assert (before["stage"], before["step"]) == divmod(last_step - 1, 4)
    run(stages, tmp_path / "killed", dpdd=dpdd)
    same(checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole"))
    for name in ("weights.safetensors", "weights-stage1.safetensors"):
        same(weights(tmp_path / "killed" / name), weights(tmp_path / "whole" / name))


def test_the_second_stage_starts_from_the_first_one_s_average(dpdd, tmp_path):
    first = micro_settings(steps=3, bf16=False)
    run([first], tmp_path / "run", dpdd=dpdd)
    ended = checkpoint(tmp_path / "run")
    # A stage that cannot move anything shows where it begins.
    still = replace(first, steps=1, learning_rate=0.0, final_learning_rate=0.0)
    run([first, still], tmp_path / "run", dpdd=dpdd)
    begun = checkpoint(tmp_path / "run")
    assert (begun["stage"], begun["step"]) == (1, 1)
    same(begun["network"], ended["average"])
    assert all(state["step"] == 1 for state in begun["optimizer"]["state"].values())


def test_a_training_begins_with_given_weights_and_keeps_to_them(photos, tmp_path):
    given = tmp_path / "given.safetensors"
    begun_with = LDPNet(replace(MICRO, crop_px=64))
    save_network(begun_with, given)
    # A training that cannot move anything shows where it begins.
    still = micro_settings(steps=1, learning_rate=0.0, final_learning_rate=0.0)
    out = tmp_path / "run"
    run([still], out, photos=photos, init=str(given))
    same(checkpoint(out)["network"], weights(given))
    assert load_network(out / "weights.safetensors").config.crop_px == still.crop_px
    longer = replace(still, steps=2)
    run([longer], out, photos=photos, init=str(given))
    assert checkpoint(out)["step"] == 2
    with pytest.raises(ValueError, match=r"began with weights .*, not with random weights"):
        run([longer], out, photos=photos)


def test_weights_of_another_network_are_no_beginning(photos, tmp_path):
    save_network(LDPNet(replace(MICRO, attention=False)), tmp_path / "other.safetensors")
    released = LDPReleased(ReleasedConfig(width=8))
    save_network(released, tmp_path / "released.safetensors")
    for name, error, message in (
        ("other", ValueError, "the recipe trains"),
        ("released", WeightsError, "cannot be trained on"),
        ("gone", WeightsError, "no such file"),
    ):
        init = str(tmp_path / f"{name}.safetensors")
        with pytest.raises(error, match=message):
            run([micro_settings()], tmp_path / "run", photos=photos, init=init)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_network_or_recipe_is_refused(dpdd, tmp_path):
    settings = micro_settings(steps=1)
    run([settings, settings], tmp_path / "run", dpdd=dpdd)
    with pytest.raises(ValueError, match="is not of a network of size tiny"):
        run([replace(settings, size="tiny")] * 2, tmp_path / "run", dpdd=dpdd)
    with pytest.raises(ValueError, match="stage 2 of 1"):
        run([settings], tmp_path / "run", dpdd=dpdd)
