import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ldp
from dpbatch.output.metadata import PhotoMetadata
from dpbatch.photo import LoadedPhoto, Restorer
from dpbatch.settings import RestoreSettings, Settings, settle_blur
from ldp.errors import WeightsError
from ldp.models.network import SIZES, LDPNet
from ldp.models.released import LDPReleased, ReleasedConfig
from ldp.models.weights import load_network, read_header, resolve, save_network
from ldp.types import BlurMap, ViewPair
from tests.helpers.made_dpdd import write_dpdd
from tests.helpers.micro_run import ALONE, MICRO, checkpoint, micro_settings, same, weights
from training import loop
from training.loop import follow
from training.settings import TrainSettings, learning_rate, read_settings
from training.train import main, run

CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = pytest.mark.usefixtures("micro")


@pytest.fixture
def dpdd(tmp_path):
    return write_dpdd(tmp_path / "dpdd")


def train(settings, photos, out):
    run([settings], out, ALONE, photos=photos)


def test_a_run_resumes_where_it_stopped_and_its_weights_restore_photos(photos, tmp_path, capsys):
    out = tmp_path / "run"
    train(micro_settings(steps=2), photos, out)
    first = checkpoint(out)
    assert first["step"] == 2
    train(micro_settings(steps=4), photos, out)
    header = [line for line in capsys.readouterr().out.splitlines() if "parameters" in line]
    assert "micro: 0.02 M parameters on " in header[0]
    assert "steps 0 to 2 of 2 crops of 16 px" in header[0]
    assert "steps 2 to 4" in header[1]
    second = checkpoint(out)
    assert second["step"] == 4
    assert all(state["step"] == 4 for state in second["optimizer"]["state"].values())
    # Done is done: nothing is trained or written any more.
    before = (out / "checkpoint.pt").stat().st_mtime_ns
    train(micro_settings(steps=4), photos, out)
    assert (out / "checkpoint.pt").stat().st_mtime_ns == before
    assert not list(out.glob("*.tmp"))

    weights = load_network(out / "weights.safetensors")
    assert weights.config == replace(MICRO, crop_px=16)
    for name, value in weights.state_dict().items():
        torch.testing.assert_close(value, second["average"][name], rtol=1e-3, atol=1e-6)
    model = ldp.load(str(out / "weights.safetensors"), device="cpu")
    view = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    flat = BlurMap(np.zeros((4, 6), np.float32))
    restored = model.restore_uint16(ViewPair(view, view), blur_map=flat)
    # Barely trained, but it is the mean view to which the network adds.
    assert np.corrcoef(restored.sharp.ravel(), view.ravel())[0, 1] > 0.7


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(photos, tmp_path):
    out = tmp_path / "run"
    train(micro_settings(steps=2), photos, out)
    before = (out / "checkpoint.pt").read_bytes()
    broken = micro_settings(steps=9, save_every=5, learning_rate=1e30)
    message = r"by step 5; .*lower the learning"
    with pytest.raises(FloatingPointError, match=message):
        train(broken, photos, out)
    assert (out / "checkpoint.pt").read_bytes() == before


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    settings = TrainSettings(steps=1000, warm_up_steps=100)
    rates = [learning_rate(step, settings) for step in range(1001)]
    assert rates[0] == pytest.approx(settings.learning_rate / 100)
    assert max(rates) == rates[99] == rates[100] == pytest.approx(settings.learning_rate)
    assert np.all(np.diff(rates[100:]) < 0)
    assert rates[-1] == pytest.approx(settings.final_learning_rate)


def test_the_average_follows_the_network():
    average, network = LDPNet(MICRO), LDPNet(MICRO)
    start = average.intro.weight.detach().clone()
    follow(average, network, 0.75)
    expected = 0.75 * start + 0.25 * network.intro.weight
    torch.testing.assert_close(average.intro.weight, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", r"unknown stepz; known are accumulate, .*steps, "),
        ('steps = "3"', "steps is '3', expected int"),
        ("compile = 1", "compile is 1, expected bool"),
        ('size = "huge"', "size 'huge': expected one of tiny, small, large"),
        ("crop_px = 100", "crop_px 100: tiny needs a multiple of 16"),
        ("steps = ", "train.toml"),
        ("steps = 0", "steps 0: expected 1 or more"),
        ("batch = 8\naccumulate = 3", "batch 8: expected a multiple of accumulate"),
        ('blur = "sonar"', "blur 'sonar': expected one of disparity, clip"),
        ('prior = "hard"', "prior 'hard': expected one of amount, soft"),
        ('prior = "soft"', "prior 'soft': only blur 'clip' has it, found 'disparity'"),
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


def test_settings_are_read_over_the_defaults(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("steps = 7\nlearning_rate = 1\n")
    assert read_settings(path) == [TrainSettings(steps=7, learning_rate=1)]
    path.write_text("steps = 7\nbatch = 4\n[[stage]]\n[[stage]]\nsteps = 9\n")
    assert read_settings(path) == [
        TrainSettings(steps=7, batch=4),
        TrainSettings(steps=9, batch=4),
    ]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "train.toml"
    path.write_text("workers = 0")
    arguments = ["train", str(path), "--photos", str(tmp_path / "none"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"train: .*none: no photographs"):
        main()


def test_the_shipped_recipes_say_what_they_are_for():
    (tiny,) = read_settings(CONFIGS / "train-tiny.toml")
    assert (tiny.size, tiny.batch, tiny.crop_px, tiny.learning_rate) == ("tiny", 8, 128, 8e-4)
    # What the shipped network was trained with stands in no file.
    assert (tiny.charbonnier_eps, tiny.beta2, tiny.weight_decay) == (1e-3, 0.9, 1e-4)
    (finetune,) = read_settings(CONFIGS / "finetune-tiny.toml")
    assert finetune.network == load_network(resolve("tiny")).config
    (small,) = read_settings(CONFIGS / "train-small.toml")
    assert (small.size, small.steps, small.batch, small.crop_px) == ("small", 40_000, 32, 256)
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


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("last_step", [3, 7])  # amid the first stage, and amid the second
def test_on_dpdd_a_killed_run_goes_on_as_if_nothing_had_been(
    dpdd, tmp_path, monkeypatch, last_step
):
    first = micro_settings(accumulate=2)
    stages = [first, replace(first, blur_weighting_weight=0.2, learning_rate=5e-4)]
    run(stages, tmp_path / "whole", ALONE, dpdd=dpdd)

    steps = []

    def killing(average, network, decay):
        steps.append(decay)
        if len(steps) == last_step:
            raise Killed
        follow(average, network, decay)

    monkeypatch.setattr(loop, "follow", killing)
    with pytest.raises(Killed):
        run(stages, tmp_path / "killed", ALONE, dpdd=dpdd)
    monkeypatch.undo()
    monkeypatch.setitem(SIZES, "micro", MICRO)
    before = checkpoint(tmp_path / "killed")
    assert (before["stage"], before["step"]) == divmod(last_step - 1, 4)
    run(stages, tmp_path / "killed", ALONE, dpdd=dpdd)
    same(checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole"))
    for name in ("weights.safetensors", "weights-stage1.safetensors"):
        same(weights(tmp_path / "killed" / name), weights(tmp_path / "whole" / name))


def test_the_second_stage_starts_from_the_first_one_s_average(dpdd, tmp_path):
    first = micro_settings(steps=3, bf16=False)
    run([first], tmp_path / "run", ALONE, dpdd=dpdd)
    ended = checkpoint(tmp_path / "run")
    # A stage that cannot move anything shows where it begins.
    still = replace(first, steps=1, learning_rate=0.0, final_learning_rate=0.0)
    run([first, still], tmp_path / "run", ALONE, dpdd=dpdd)
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
    run([still], out, ALONE, photos=photos, init=str(given))
    same(checkpoint(out)["network"], weights(given))
    assert load_network(out / "weights.safetensors").config.crop_px == still.crop_px
    longer = replace(still, steps=2)
    run([longer], out, ALONE, photos=photos, init=str(given))
    assert checkpoint(out)["step"] == 2
    with pytest.raises(ValueError, match=r"began with weights .*, not with random weights"):
        run([longer], out, ALONE, photos=photos)


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
            run([micro_settings()], tmp_path / "run", ALONE, photos=photos, init=init)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_passes_that_share_a_step_give_the_same_step(dpdd, tmp_path):
    for accumulate in (1, 4):
        settings = micro_settings(steps=2, batch=4, accumulate=accumulate, bf16=False)
        run([settings], tmp_path / str(accumulate), ALONE, dpdd=dpdd)
    one, four = (checkpoint(tmp_path / str(n))["network"] for n in (1, 4))
    same(one, four, rtol=1e-3, atol=1e-5)
    moved = LDPNet(replace(MICRO, crop_px=16)).state_dict()
    assert not torch.equal(one["intro.weight"], moved["intro.weight"])


def test_workers_do_not_change_what_is_learned(dpdd, tmp_path):
    for workers in (0, 2):
        run([micro_settings(steps=2, workers=workers)], tmp_path / str(workers), ALONE, dpdd=dpdd)
    same(checkpoint(tmp_path / "0"), checkpoint(tmp_path / "2"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_px": 96}, "crop_px 96: expected at most patch_px"),
        ({"drop_patches": 12}, r"0917_L\.png: 12 patches"),
    ],
)
def test_what_does_not_fit_dpdd_stops_before_the_first_step(dpdd, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run([replace(micro_settings(), **changes)], tmp_path / "run", ALONE, dpdd=dpdd)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_network_or_recipe_is_refused(dpdd, tmp_path):
    settings = micro_settings(steps=1)
    run([settings, settings], tmp_path / "run", ALONE, dpdd=dpdd)
    with pytest.raises(ValueError, match="is not of a network of size tiny"):
        run([replace(settings, size="tiny")] * 2, tmp_path / "run", ALONE, dpdd=dpdd)
    with pytest.raises(ValueError, match="stage 2 of 1"):
        run([settings], tmp_path / "run", ALONE, dpdd=dpdd)


def smoke_recipe(path, **changes):
    """The shipped two-stage recipe with other values, its two stages of 4 steps."""
    text = (CONFIGS / "ldp-dpdd.toml").read_text()
    for key, value in {
        "size": "micro",
        "batch": 2,
        "crop_px": 32,
        "patch_px": 64,
        **changes,
    }.items():
        line = f"{key} = {json.dumps(value)}"
        text, count = re.subn(rf"(?m)^{key} = .*$", line, text)
        if not count:
            text = f"{line}\n{text}"
    text = re.sub(r"(?m)^steps = .*$", "steps = 4", text)
    text = re.sub(r"(?m)^workers = .*$", "workers = 0", text)
    path.write_text(text)
    return path


def train_by_command(monkeypatch, recipe, folder, out):
    monkeypatch.setattr(
        sys, "argv", ["train", str(recipe), "--dpdd", str(folder), "--out", str(out)]
    )
    main()


@pytest.fixture
def clip_file(tmp_path):
    """The weights of a tiny CLIP that open_clip knows as tiny-test-clip."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    from ldp.blur import clip_model

    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-test-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-test-clip.json")
    torch.manual_seed(0)
    network = open_clip.create_model("tiny-test-clip", load_weights=False)
    path = tmp_path / "clip.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    clip_model._load.cache_clear()
    yield path
    clip_model._load.cache_clear()


def test_the_two_stage_recipe_runs_from_end_to_end_with_clip(
    clip_file, dpdd, tmp_path, monkeypatch, capsys
):
    import open_clip

    made = []
    create = open_clip.create_model
    monkeypatch.setattr(
        open_clip, "create_model", lambda *a, **k: made.append(a) or create(*a, **k)
    )
    clip = {"clip_network": "tiny-test-clip", "clip_weights": str(clip_file)}
    recipe = smoke_recipe(tmp_path / "smoke.toml", **clip)
    out = tmp_path / "run"
    train_by_command(monkeypatch, recipe, dpdd, out)
    printed = capsys.readouterr().out
    assert "3 of 3 scenes prepared" in printed
    assert re.search(r"stage 1 of 2, micro: .* steps 0 to 4 of 2 crops of 32 px", printed)
    assert re.search(r"stage 2 of 2, micro: .* steps 0 to 4 of 2 crops of 32 px", printed)
    assert len(made) == 1  # one CLIP makes the maps and judges in the second stage
    first, second = (out / f"weights{end}.safetensors" for end in ("-stage1", ""))
    ends = [weights(second), weights(first)]
    header = read_header(second)
    assert header.needs_soft_map
    # The maps that it learned from have both planes, in their own range.
    for path in (out / "cache").glob("*-blur-*.npy"):
        amount, soft = np.load(path)
        assert amount.min() == 0
        assert 0.3 < soft.min() < soft.max() < 0.7
    torch.manual_seed(0)
    network, views, blur = load_network(second), torch.rand(1, 6, 32, 32), torch.rand(1, 2, 32, 32)
    other = torch.stack([blur[:, 0], 1 - blur[:, 1]], 1)
    assert not torch.equal(network(views, blur), network(views, other))

    # `dpbatch run` takes the map that the file asks for.
    chosen = RestoreSettings(model=str(second), device="cpu", clip_weights=str(clip_file))
    settled = settle_blur(Settings(restore=chosen), header.blur_map, header.needs_soft_map)
    assert settled.restore.blur == "clip"
    with monkeypatch.context() as patch:
        known = lambda name, **weights: create("tiny-test-clip", **weights)  # noqa: E731
        patch.setattr(open_clip, "create_model", known)
        restorer = Restorer(settled.restore, keep_blur_map=True)
    view = np.random.default_rng(0).integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    loaded = LoadedPhoto(ViewPair(view, view), PhotoMetadata())
    restored = restorer(loaded, lambda done, of: None)
    assert restored.sharp.shape == view.shape
    assert np.corrcoef(restored.sharp.ravel(), view.ravel())[0, 1] > 0.7
    assert restored.blur_map.soft.shape == (5, 7)
    # Each term takes part: without either of the second stage's the weights come out different.
    for term in ("blur_aware", "blur_weighting"):
        text = re.sub(rf"(?m)^{term}_weight = .*$", f"{term}_weight = 0", recipe.read_text())
        (tmp_path / "less.toml").write_text(text)
        train_by_command(monkeypatch, tmp_path / "less.toml", dpdd, tmp_path / term)
        ends.append(weights(tmp_path / term / "weights.safetensors"))
    for one, other in itertools.combinations(ends, 2):
        assert any(not torch.equal(one[name], other[name]) for name in one)


def test_without_clip_s_weights_nothing_is_begun(dpdd, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    from ldp.blur import clip_model

    def offline(entry):
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    clip_model._load.cache_clear()
    # Only the second stage's loss needs it, and yet the first one is not begun.
    recipe = smoke_recipe(tmp_path / "smoke.toml", blur="disparity", prior="amount")
    with pytest.raises(SystemExit, match=r"(?s)train: .*no connection.*pretrained='openai'"):
        train_by_command(monkeypatch, recipe, dpdd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rendered_scenes_go_to_the_given_cache(photos, tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "run"
    run([micro_settings(steps=1)], out, ALONE, photos=photos, cache=cache)
    assert list(cache.glob("scenes-*/*.npy"))
    assert not (out / "cache").exists()


def test_clip_maps_of_rendered_pairs_are_refused(clip_file, photos, tmp_path):
    settings = micro_settings(
        blur="clip", clip_network="tiny-test-clip", clip_weights=str(clip_file)
    )
    with pytest.raises(ValueError, match="rendered pairs come with disparity maps only"):
        train(settings, photos, tmp_path / "run")


def run_python(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=CONFIGS.parent,
        env=environment,
        timeout=300,
    )


BLOCKED = """
import sys
for name in ("rawpy", "ray", "exiv2", "open_clip", "tensorboard", "skimage"):
    sys.modules[name] = None
from training.train import main
recipe, dpdd, photos, out = sys.argv[1:]
sys.argv = ["train", recipe, "--dpdd", dpdd, "--out", out + "/dpdd"]
main()
sys.argv = ["train", recipe, "--photos", photos, "--out", out + "/photos"]
main()
"""


@pytest.mark.slow
def test_training_needs_neither_raw_nor_metadata_nor_ray_nor_clip(dpdd, photos, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'size = "tiny"\nsteps = 1\nbatch = 1\ncrop_px = 16\nworkers = 0\npatch_px = 64\n'
        "blur_weighting_weight = 0.2\nstart_scenes = 2\nvalidate_pairs = 1\n"
    )
    ran = run_python("-c", BLOCKED, recipe, dpdd, photos, tmp_path)
    assert ran.returncode == 0, ran.stderr
    for source in ("dpdd", "photos"):
        path = tmp_path / source / "weights.safetensors"
        assert load_network(path).config.crop_px == 16
        # Without TensorBoard the figures are there all the same.
        assert "loss" in (path.parent / "metrics.jsonl").read_text()
        assert not (path.parent / "tensorboard").exists()


@pytest.mark.parametrize("fast", [True, False])
def test_half_precision_is_for_hardware_that_has_it(dpdd, tmp_path, monkeypatch, fast):
    precision = torch.bfloat16 if fast else torch.float32
    monkeypatch.setattr(loop, "choose_precision", lambda device: precision)
    for bf16 in (True, False):
        run([micro_settings(steps=2, bf16=bf16)], tmp_path / str(bf16), ALONE, dpdd=dpdd)
    narrow, wide = (checkpoint(tmp_path / name)["network"] for name in ("True", "False"))
    equal = all(torch.equal(narrow[name], wide[name]) for name in wide)
    assert equal == (not fast)


@pytest.mark.slow
def test_two_processes_stop_together_and_one_validates(dpdd, tmp_path):
    (dpdd / "val_l").symlink_to(dpdd / "train_l")
    (dpdd / "val_r").symlink_to(dpdd / "train_r")
    (dpdd / "val_c").symlink_to(dpdd / "train_c")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'size = "tiny"\nsteps = 22\nbatch = 2\ncrop_px = 16\nworkers = 0\npatch_px = 64\n'
        "validate_scenes = 1\n"
    )
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = (recipe, "--dpdd", dpdd, "--validate", dpdd, "--out", tmp_path / "run")
    ran = run_python(*torchrun, "-m", "training.train", *arguments, "--stop-after", "0")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("stopped after 0 minutes") == 1
    assert checkpoint(tmp_path / "run")["step"] == 20
    ran = run_python(*torchrun, "-m", "training.train", *arguments)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("steps 20 to 22") == 1
    assert ran.stdout.count("validation: real") == 1
    assert checkpoint(tmp_path / "run")["best"]["step"] == 22


@pytest.mark.slow
def test_two_processes_learn_what_one_does(dpdd, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'size = "tiny"\nsteps = 2\nbatch = 4\ncrop_px = 32\nworkers = 0\npatch_px = 64\n'
        "warm_up_steps = 0\nbf16 = false\n"
    )
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = (recipe, "--dpdd", dpdd, "--out", tmp_path / "two")
    ran = run_python(*torchrun, "-m", "training.train", *arguments)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("steps 0 to 2") == 1  # the first process tells, and it alone
    run(read_settings(recipe), tmp_path / "one", ALONE, dpdd=dpdd)
    one, two = (checkpoint(tmp_path / name)["network"] for name in ("one", "two"))
    same(one, two, rtol=1e-3, atol=1e-5)
