import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dpbatch.output.metadata import PhotoMetadata
from dpbatch.photo import LoadedPhoto, Restorer
from dpbatch.settings import RawSettings, RestoreSettings, Settings, settle_blur
from ldp.models.weights import load_network, read_header
from ldp.types import ViewPair
from tests.helpers.made_dpdd import write_dpdd
from tests.helpers.micro_run import micro_settings, run, weights
from training.train import main

CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = pytest.mark.usefixtures("micro")


@pytest.fixture
def dpdd(tmp_path):
    return write_dpdd(tmp_path / "dpdd")


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
    clip_model.forget_clips()
    yield path
    clip_model.forget_clips()


def test_the_two_stage_recipe_runs_from_end_to_end_with_clip(
    clip_file, dpdd, tmp_path, monkeypatch, capsys
):
    import open_clip

    made = []
    create = open_clip.create_model

    def create_model(*arguments, **options):
        made.append(arguments)
        return create(*arguments, **options)

    monkeypatch.setattr(open_clip, "create_model", create_model)
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
    assert header.training_radius_px is None  # it is not known of real pairs
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
        restorer = Restorer(settled.restore, RawSettings(), keep_blur_map=True)
    view = np.random.default_rng(0).integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    loaded = LoadedPhoto(ViewPair(view, view), PhotoMetadata(), "a")
    restored = restorer(loaded, lambda done, of: None)
    assert restored.sharp.shape == view.shape
    assert np.corrcoef(restored.sharp.ravel(), view.ravel())[0, 1] > 0.7
    assert restored.blur_map is not None
    assert restored.blur_map.soft is not None
    assert restored.blur_map.soft.shape == (5, 7)
    # Each term takes part: without either of the second stage's the weights come out different.
    for term in ("blur_aware", "blur_weighting"):
        text = re.sub(rf"(?m)^{term}_weight = .*$", f"{term}_weight = 0", recipe.read_text())
        (tmp_path / "less.toml").write_text(text)
        train_by_command(monkeypatch, tmp_path / "less.toml", dpdd, tmp_path / term)
        ends.append(weights(tmp_path / term / "weights.safetensors"))
    for one, another in itertools.combinations(ends, 2):
        assert any(not torch.equal(one[name], another[name]) for name in one)


def test_without_clip_s_weights_nothing_is_begun(dpdd, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    import huggingface_hub

    from ldp.blur import clip_model

    def offline(entry):
        raise FileNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    clip_model.forget_clips()
    # Only the second stage's loss needs it, and yet the first one is not begun.
    recipe = smoke_recipe(tmp_path / "smoke.toml", blur="disparity", prior="amount")
    with pytest.raises(SystemExit, match=r"(?s)train: .*no connection.*pretrained='openai'"):
        train_by_command(monkeypatch, recipe, dpdd, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_clip_maps_of_rendered_pairs_are_refused(clip_file, photos, tmp_path):
    settings = micro_settings(
        blur="clip", clip_network="tiny-test-clip", clip_weights=str(clip_file)
    )
    with pytest.raises(ValueError, match="rendered pairs come with disparity maps only"):
        run([settings], tmp_path / "run", photos=photos)
