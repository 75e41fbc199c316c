"""The LDP paper's ablations: each key of a recipe builds, trains and changes what it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import ldp
from ldp.blur import clip_model
from ldp.blur.clip_dense import BLUR_AWARE, DP_AWARE, ClipEstimator
from ldp.blur.estimator import ClipChoice
from ldp.errors import ClipUnavailableError, WeightsError
from ldp.models.network import LDPNet
from ldp.models.weights import CLIP_CHOICE, read_header, save_network
from tests.helpers.made_dpdd import write_dpdd
from tests.helpers.micro_run import MICRO, micro_settings, run, weights
from training.settings import TrainSettings, read_settings

pytestmark = pytest.mark.usefixtures("micro")

VISION: dict[str, dict[str, Any]] = {
    "tiny-ablation-vit": {"layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "tiny-ablation-resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Weights of two tiny CLIPs by the names under which open_clip knows them."""
    folder = tmp_path_factory.mktemp("clips")
    files = {}
    for name, vision in VISION.items():
        text = {"width": 32, "heads": 2, "layers": 1}
        config = {"embed_dim": 24, "quick_gelu": True, "text_cfg": text}
        config["vision_cfg"] = vision | {"image_size": 32}
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
        torch.manual_seed(0)
        network = open_clip.create_model(name, load_weights=False)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        files[name] = folder / f"{name}.safetensors"
        save_file(state, files[name])
    clip_model.forget_clips()
    yield files
    clip_model.forget_clips()


@pytest.fixture(scope="module")
def dpdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dpdd(tmp_path_factory.mktemp("data"), count=1)


def one_step(
    clips: dict[str, Path], dpdd: Path, out: Path, **changes: Any
) -> dict[str, torch.Tensor]:
    """Train a step of the second stage, with all losses; return the weights."""
    name = changes.pop("clip_network", "tiny-ablation-vit")
    settings = micro_settings(
        steps=1,
        blur="clip",
        clip_network=name,
        clip_weights=str(clips[name]),
        blur_aware_weight=0.1,
        blur_weighting_weight=0.2,
        **changes,
    )
    assert run([settings], out, dpdd=dpdd, cache=out.parent / "cache")
    return weights(out / "weights.safetensors")


ABLATIONS: dict[str, dict[str, Any]] = {
    "table 5, one blur-aware prompt": {"prompts": (BLUR_AWARE[0],)},
    "table 5, one dual-pixel-aware prompt": {"prompts": (DP_AWARE[3],)},
    "table 5, an ensemble": {"prompts": (BLUR_AWARE[0], DP_AWARE[0])},
    "table 6, NAFNet": {"attention": False, "map_channel": False, "prior": "amount"},
    "table 6, concat": {"attention": False, "prior": "amount"},
    "table 6, SA": {"prior": "none", "map_channel": False},
    "table 6, concat + SA": {"prior": "none"},
    "table 6, BPA": {"map_channel": False},
    "supplement table 1, beside": {"dp_format": "beside"},
    "supplement table 1, above": {"dp_format": "above"},
    "supplement table 1, mean": {"dp_format": "mean"},
    "supplement table 1, left": {"dp_format": "left"},
    "ResNet": {"clip_network": "tiny-ablation-resnet"},
    "Eq. 11 per channel": {"charbonnier_per": "channel"},
    "Eq. 13 as a logit": {"blur_aware_form": "logit"},
}


def test_each_ablation_makes_a_step_of_its_own(
    clips: dict[str, Path], dpdd: Path, tmp_path: Path
) -> None:
    base = {"prior": "soft", "charbonnier_per": "pixel"}
    found = {
        name: one_step(clips, dpdd, tmp_path / str(number), **{**base, **change})
        for number, (name, change) in enumerate({"the paper's": {}, **ABLATIONS}.items())
    }
    paper = found.pop("the paper's")
    for name, changed in found.items():
        alike = changed.keys() == paper.keys()
        assert not alike or any(not torch.equal(changed[key], paper[key]) for key in paper), name
    assert not any(key.startswith("attention.") for key in found["table 6, NAFNet"])
    for name in ("table 6, SA", "table 6, concat + SA"):
        assert "attention.qkv.weight" in found[name]
        assert not any(key.startswith("attention.ffn") for key in found[name])
    channels = [found[f"table 6, {x}"]["intro.weight"].shape[1] for x in ("concat", "SA")]
    assert channels == [7, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('prompts = ["A cat."]', "prompts: prompt 'A cat.': expected some of 'A blurry image.'"),
        ('dp_format = "upside down"', "dp_format 'upside down': expected one of mirrored, beside"),
        ('charbonnier_per = "row"', "charbonnier_per 'row': expected one of channel, pixel"),
        ('blur_aware_form = "x"', "blur_aware_form 'x': expected one of sigmoid, logit"),
    ],
)
def test_a_key_without_meaning_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(tmp_path / "recipe.toml")


def test_the_paper_s_recipe_has_its_first_loss_per_pixel() -> None:
    recipe = Path(__file__).parents[2] / "configs" / "ldp-dpdd.toml"
    assert {stage.charbonnier_per for stage in read_settings(recipe)} == {"pixel"}
    assert TrainSettings().charbonnier_per == "channel"  # what the shipped networks learned with


def estimator(
    clips: dict[str, Path], name: str = "tiny-ablation-vit", **chosen: Any
) -> ClipEstimator:
    clip = clip_model.load_clip(name, str(clips[name]), torch.device("cpu"))
    return ClipEstimator.of(clip, **chosen)


def test_the_map_of_all_prompts_is_the_mean_of_those_of_single_ones(
    clips: dict[str, Path],
) -> None:
    left, right = torch.rand(2, 1, 3, 32, 48)
    single = [
        estimator(clips, prompts=(prompt,)).soft_values(left, right)
        for prompt in BLUR_AWARE + DP_AWARE
    ]
    whole = estimator(clips).soft_values(left, right)
    torch.testing.assert_close(whole, torch.stack(single).mean(0))


def test_a_trained_network_is_given_the_maps_that_it_learned_with(
    clips: dict[str, Path], dpdd: Path, tmp_path: Path
) -> None:
    choice: dict[str, Any] = {"prompts": (BLUR_AWARE[1], DP_AWARE[0]), "dp_format": "above"}
    one_step(clips, dpdd, tmp_path / "run", **choice)
    file = str(clips["tiny-ablation-vit"])
    model = ldp.load(str(tmp_path / "run" / "weights.safetensors"), clip_weights=file)
    left, right = np.random.default_rng(0).random((2, 40, 64, 3), np.float32)
    found = model.estimator.estimate(ldp.ViewPair(left, right)).amount
    for expected, same in ((choice, True), ({}, False)):
        other = estimator(clips, **expected).estimate(ldp.ViewPair(left, right)).amount
        assert np.array_equal(found, other) == same


def test_weights_whose_clip_is_the_paper_s_do_not_name_it(tmp_path: Path) -> None:
    header = {"blur_map": "clip"}
    network = LDPNet(MICRO)
    save_network(network, tmp_path / "a.safetensors", header)
    assert read_header(tmp_path / "a.safetensors").clip_choice == ClipChoice()
    assert TrainSettings(blur="clip").clip_choice == ClipChoice()
    for text in ("7", '{"colour": 3}', "{"):
        save_network(network, tmp_path / "b.safetensors", {**header, CLIP_CHOICE: text})
        with pytest.raises(WeightsError, match=r"b\.safetensors: the network's configuration"):
            read_header(tmp_path / "b.safetensors")


def test_a_plain_format_of_two_equal_views_is_that_of_one(clips: dict[str, Path]) -> None:
    view = torch.rand(1, 3, 32, 64)
    left, mean, beside, above, mirrored = (
        estimator(clips, prompts=DP_AWARE, dp_format=name)
        for name in ("left", "mean", "beside", "above", "mirrored")
    )
    alone = left.soft_values(view, view)
    torch.testing.assert_close(mean.soft_values(view, view), alone)
    other = torch.rand(1, 3, 32, 64)
    assert torch.equal(left.soft_values(view, other), alone)
    for chosen in (mean, beside, above, mirrored):
        found = chosen.soft_values(view, other)
        assert found.shape == alone.shape
        assert not torch.allclose(found, alone, atol=1e-5)


def test_a_resnet_s_dense_features_average_to_its_pooled_value(clips: dict[str, Path]) -> None:
    """Where attention is even, the pooled feature is the mean of the dense ones."""
    clip = estimator(clips, "tiny-ablation-resnet").clip
    visual: Any = clip.network.visual
    pool = visual.attnpool
    for part in (pool.q_proj, pool.k_proj):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    torch.nn.init.zeros_(pool.positional_embedding)
    pictures = torch.rand(2, 3, 32, 32)
    assert (clip.patch_px, clip.image_px) == (32, 32)
    dense = clip.dense_features(pictures)
    assert dense.shape == (2, 1, 1, 24)
    # One place, and its mean, which is itself, as the class token: all equal.
    torch.testing.assert_close(clip.image_features(pictures), dense[:, 0, 0], atol=1e-5, rtol=1e-4)
    wide = clip.dense_features(torch.cat([pictures, pictures], -1))
    assert wide.shape == (2, 1, 2, 24)
    clip_model.forget_clips()


def test_another_kind_of_image_encoder_is_refused() -> None:
    class Other(torch.nn.Module):
        visual = torch.nn.Conv2d(3, 8, 1)

    with pytest.raises(ClipUnavailableError, match="Conv2d: expected a vision transformer or one"):
        clip_model.frozen(Other(), torch.device("cpu"))


def test_the_logit_s_loss_is_a_mean_of_cosines(clips: dict[str, Path]) -> None:
    chosen = estimator(clips, prompts=(BLUR_AWARE[2],))
    pictures = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(
        torch.logit(chosen.blur_aware_map(pictures)), chosen.blur_aware_logits(pictures)
    )
    several = estimator(clips).blur_aware_logits(pictures).numpy()
    alone = [estimator(clips, prompts=(p,)).blur_aware_logits(pictures) for p in BLUR_AWARE]
    np.testing.assert_allclose(several, np.mean([x.numpy() for x in alone], 0), atol=1e-6)
