from pathlib import Path

import pytest

from ldp.models.weights import load_network, resolve
from training.schedule import learning_rate
from training.settings import TrainSettings, read_settings

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", r"unknown stepz; known are accumulate, .*steps, "),
        ('steps = "3"', "steps: expected int, found '3'"),
        ("compile = 1", "compile: expected bool, found 1"),
        ('size = "huge"', "size 'huge': expected one of tiny, small, large"),
        ("crop_px = 100", "crop of 100 px: tiny needs a multiple of 16"),
        ("crop_sizes_px = [128, 100]", "crop of 100 px: tiny needs a multiple of 16"),
        ("crop_px = 100000", "crop of 100000 px: tiny needs a multiple of 16 up to 4096"),
        ("crop_sizes_px = [1.5]", r"crop_sizes_px.*int.*float"),
        ("steps = ", "train.toml"),
        ("steps = 0", "steps 0: expected 1 or more"),
        ("batch = 8\naccumulate = 3", "batch 8: expected a multiple of accumulate"),
        ('depths = "deep"', "depths 'deep': expected one of random, scene"),
        ('blur = "sonar"', "blur 'sonar': expected one of disparity, clip"),
        ('prior = "hard"', "prior 'hard': expected one of amount, soft"),
        ('prior = "soft"', "prior 'soft': only blur 'clip' has it, found 'disparity'"),
        ("threads = 0", "threads 0: expected 1 or more"),
        ("ema_decay = 2.0", "ema_decay 2.0: expected 0 or more and below 1"),
        ("beta2 = 1.0", "beta2 1.0: expected 0 or more and below 1"),
        ("far_share = 2.0", "far_share 2.0: expected from 0 to 1"),
        ("learning_rate = inf", "learning_rate inf: expected 0 or more"),
        ("weight_decay = nan", "weight_decay nan: expected 0 or more"),
        ("stage = 3", r"stage is 3, expected \[\[stage\]\] tables"),
        ("[[stage]]\nstepz = 1", "unknown stepz"),
        ('[[stage]]\n[[stage]]\nsize = "small"', "size differs between stages"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, text, message):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(path)


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nosuch\.toml: cannot be read: No such file"):
        read_settings(tmp_path / "nosuch.toml")


def test_settings_are_read_over_the_defaults(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("steps = 7\nlearning_rate = 1\n")
    assert read_settings(path) == [TrainSettings(steps=7, learning_rate=1)]
    path.write_text("crop_sizes_px = [64, 128]")
    assert read_settings(path)[0].crop_sizes_px == (64, 128)
    path.write_text("steps = 7\nbatch = 4\n[[stage]]\n[[stage]]\nsteps = 9\n")
    assert read_settings(path) == [
        TrainSettings(steps=7, batch=4),
        TrainSettings(steps=9, batch=4),
    ]


def test_a_change_holds_in_every_stage(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("steps = 7\nbatch = 4\n[[stage]]\n[[stage]]\nsteps = 9\n")
    changes = ["steps=3", "prior = none", 'prompts=["A blurry image."]', "bf16=false"]
    expected = TrainSettings(
        steps=3, batch=4, prior="none", prompts=("A blurry image.",), bf16=False
    )
    assert read_settings(path, changes) == [expected, expected]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps", "'steps': expected KEY=VALUE, such as"),
        ("=3", "'=3': expected KEY=VALUE"),
        ("steps=", "steps: expected int, found ''"),
        ("steps=many", "steps: expected int, found 'many'"),
        ("stepz=3", "unknown stepz"),
        ("stage=3", "unknown stage"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(tmp_path, change, message):
    path = tmp_path / "train.toml"
    path.write_text("steps = 7\n")
    with pytest.raises(ValueError, match=message):
        read_settings(path, [change])


def test_the_shipped_recipes_say_what_they_are_for():
    (tiny,) = read_settings(CONFIGS / "train-tiny.toml")
    assert (tiny.size, tiny.batch, tiny.crop_px, tiny.learning_rate) == ("tiny", 8, 128, 8e-4)
    # What the shipped network was trained with stands in no file.
    assert (tiny.charbonnier_eps, tiny.beta2, tiny.weight_decay) == (1e-3, 0.9, 1e-4)
    (finetune,) = read_settings(CONFIGS / "finetune-tiny.toml")
    assert finetune.network == load_network(resolve("tiny")).config
    (small,) = read_settings(CONFIGS / "train-small.toml")
    assert (small.size, small.batch, small.crop_px, small.radius_px) == ("small", 16, 256, 14)
    assert small.bf16
    paper = read_settings(CONFIGS / "ldp-dpdd.toml")
    assert [stage.steps for stage in paper] == [5_000_000, 1_000_000]
    for stage, blur_aware, blur_weighting in zip(paper, (0, 0.1), (0, 0.2), strict=True):
        assert (stage.blur_aware_weight, stage.blur_weighting_weight) == (
            blur_aware,
            blur_weighting,
        )
        assert (stage.size, stage.blur, stage.prior) == ("small", "clip", "soft")
        assert stage.network.map_planes == ("amount", "soft")
        assert (stage.charbonnier_eps, stage.weight_decay) == (1e-4, 0)
        assert (stage.patch_px, stage.drop_patches) == (512, 8)
        assert learning_rate(0, stage) == 2e-4
        assert learning_rate(stage.steps, stage) == pytest.approx(1e-6)
