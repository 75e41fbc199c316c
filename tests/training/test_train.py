import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import ldp
from ldp.models.network import LDPNet
from ldp.models.weights import load_network
from ldp.types import BlurMap, ViewPair
from tests.helpers.made_dpdd import write_dpdd
from tests.helpers.micro_run import (
    ALONE,
    MICRO,
    checkpoint,
    micro_settings,
    run,
    same,
    write_photo,
)
from training import train as training_loop
from training.checkpoint import update_average
from training.data.batches import RenderedSource
from training.run import TrainingInputs, prepare
from training.train import main

pytestmark = pytest.mark.usefixtures("micro")


@pytest.fixture
def dpdd(tmp_path):
    return write_dpdd(tmp_path / "dpdd")


def train(settings, photos, out):
    run([settings], out, photos=photos)


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
    assert model.info.training_radius_px == micro_settings().radius_px
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


def test_the_average_follows_the_network():
    average, network = LDPNet(MICRO), LDPNet(MICRO)
    start = average.intro.weight.detach().clone()
    update_average(average, network, 0.75)
    expected = 0.75 * start + 0.25 * network.intro.weight
    torch.testing.assert_close(average.intro.weight, expected)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "train.toml"
    path.write_text("workers = 0")
    arguments = ["train", str(path), "--photos", str(tmp_path / "none"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"train: .*none: no photos"):
        main()


def test_passes_that_share_a_step_give_the_same_step(dpdd, tmp_path):
    for accumulate in (1, 4):
        settings = micro_settings(steps=2, batch=4, accumulate=accumulate, bf16=False)
        run([settings], tmp_path / str(accumulate), dpdd=dpdd)
    one, four = (checkpoint(tmp_path / str(n))["network"] for n in (1, 4))
    same(one, four, rtol=1e-3, atol=1e-5)
    moved = LDPNet(replace(MICRO, crop_px=16)).state_dict()
    assert not torch.equal(one["intro.weight"], moved["intro.weight"])


def test_workers_do_not_change_what_is_learned(dpdd, tmp_path):
    for workers in (0, 2):
        run([micro_settings(steps=2, workers=workers)], tmp_path / str(workers), dpdd=dpdd)
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
        run([replace(micro_settings(), **changes)], tmp_path / "run", dpdd=dpdd)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_rendered_scenes_go_to_the_given_cache(photos, tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "run"
    run([micro_settings(steps=1)], out, photos=photos, cache=cache)
    assert list(cache.glob("scenes-*/*.npy"))
    assert not (out / "cache").exists()


@pytest.mark.parametrize("fast", [True, False])
def test_half_precision_is_for_hardware_that_has_it(dpdd, tmp_path, monkeypatch, fast):
    precision = torch.bfloat16 if fast else torch.float32
    monkeypatch.setattr(training_loop, "choose_precision", lambda device: precision)
    for bf16 in (True, False):
        run([micro_settings(steps=2, bf16=bf16)], tmp_path / str(bf16), dpdd=dpdd)
    narrow, wide = (checkpoint(tmp_path / name)["network"] for name in ("True", "False"))
    equal = all(torch.equal(narrow[name], wide[name]) for name in wide)
    assert equal == (not fast)


def test_photos_of_several_folders_are_trained_on(photos, tmp_path, monkeypatch):
    other = write_photo(tmp_path / "other")
    inputs = TrainingInputs(photos=(photos, other))
    source = prepare([micro_settings()], inputs, tmp_path / "run", ALONE).source
    assert isinstance(source, RenderedSource)
    assert len(source.photos) == 2
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("steps = 1\nbatch = 1\ncrop_px = 16\nworkers = 0\nstart_scenes = 1\n")
    folders = ["--photos", str(photos), "--photos", str(other)]
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["train", str(recipe), *folders, "--out", str(out)])
    main()
    assert (out / "weights.safetensors").is_file()


def test_dpdd_has_crops_of_one_size(dpdd, tmp_path):
    settings = micro_settings(crop_sizes_px=(16, 32))
    with pytest.raises(ValueError, match="only rendered pairs have crops of several sizes"):
        run([settings], tmp_path / "run", dpdd=dpdd)
