import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldp.models.weights import load_network
from tests.helpers.made_dpdd import write_dpdd
from tests.helpers.micro_run import checkpoint, run, same
from training.settings import read_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dpdd(tmp_path):
    return write_dpdd(tmp_path / "dpdd")


def run_python(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
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
    run(read_settings(recipe), tmp_path / "one", dpdd=dpdd)
    one, two = (checkpoint(tmp_path / name)["network"] for name in ("one", "two"))
    same(one, two, rtol=1e-3, atol=1e-5)
