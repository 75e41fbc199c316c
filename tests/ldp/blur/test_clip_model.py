"""CLIP: its weights from every kind of file, what is said where there are none, dense features."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ldp.blur import clip_model
from ldp.blur.clip_model import VIT_B_16, VIT_B_32, clip_weights_file, load_clip
from ldp.errors import ClipUnavailableError, LdpError
from tests.helpers import clip_reference as naive

CPU = torch.device("cpu")
TINY = "dpbatch-test-tiny"


@pytest.fixture(autouse=True)
def _nothing_loaded() -> Iterator[None]:
    clip_model.forget_clips()
    yield
    clip_model.forget_clips()


@pytest.fixture(scope="module")
def tiny_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """open_clip knows the tiny network's shape by this name."""
    path = tmp_path_factory.mktemp("configs") / f"{TINY}.json"
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return TINY


@pytest.mark.parametrize("kind", ["safetensors", "pt", "wrapped.pt", "torchscript.pt"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_weights_are_read_from_every_kind_of_file(
    tiny_name: str, tmp_path: Path, kind: str
) -> None:
    network = naive.tiny_clip()
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "torchscript.pt":
        torch.jit.script(network).save(path)
    else:
        torch.save({"state_dict": state} if kind == "wrapped.pt" else state, path)
    clip = load_clip(tiny_name, str(path), CPU)
    assert not clip.network.training
    assert not any(value.requires_grad for value in clip.network.parameters())
    for name, value in clip.network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert load_clip(tiny_name, str(path), CPU) is clip


def test_a_file_of_something_else_is_refused(tiny_name: str, tmp_path: Path) -> None:
    files = {
        "noise.safetensors": b"not that",
        "noise.pt": b"not that either",
        "empty.pt": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({}, tmp_path / "nothing.pt")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ClipUnavailableError, match=path.name):
            load_clip(tiny_name, str(path), CPU)


def test_a_pickle_with_code_in_it_is_not_run(tiny_name: str, tmp_path: Path) -> None:
    class Mine:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"state_dict": Mine()}, tmp_path / "evil.pt")
    with pytest.raises(ClipUnavailableError, match=r"evil\.pt"):
        load_clip(tiny_name, str(tmp_path / "evil.pt"), CPU)
    assert not (tmp_path / "ran").exists()


class NoRouteError(Exception):
    """What some library of the network raises."""


def test_offline_the_message_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def offline(url: str) -> None:
        asked.append(url)
        raise NoRouteError("no connection")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *file: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    # A download would try again and again.
    monkeypatch.setattr(open_clip, "download_pretrained", lambda entry: pytest.fail("downloads"))
    with pytest.raises(LdpError, match="no connection") as caught:
        clip_weights_file(VIT_B_32)
    assert len(asked) == 1
    said = str(caught.value)
    command = next(line.strip() for line in said.splitlines() if line.startswith("  python"))
    assert "'ViT-B-32-quickgelu', pretrained='openai'" in command
    assert "'disparity' needs none" in said
    program = command.removeprefix('python -c "').removesuffix('"')
    monkeypatch.setattr(open_clip, "create_model", lambda *given, **named: (given, named))
    exec(program)  # it is what open_clip would be asked


def test_unknown_weights_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ClipUnavailableError, match=r"nonsense.*openai.*'disparity'"):
        clip_weights_file(VIT_B_32, "nonsense")


def test_without_open_clip_the_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ClipUnavailableError, match=r"pip install open_clip_torch.*disparity"):
        clip_weights_file(VIT_B_32)


@pytest.mark.parametrize("name", [VIT_B_32, VIT_B_16])
def test_the_networks_are_openai_s_with_their_activation(name: str) -> None:
    assert open_clip.get_pretrained_cfg(name, "openai")["quick_gelu"]
    assert open_clip.get_model_config(name)["quick_gelu"]
    assert not open_clip.get_model_config(name.removesuffix("-quickgelu")).get("quick_gelu")


def test_prompts_are_encoded_as_by_open_clip_one_by_one() -> None:
    network = naive.tiny_clip()
    prompts = ("A blurry image.", "A symmetrical image.")
    found = clip_model.frozen(network, CPU).text_features(prompts)
    for feature, prompt in zip(found, prompts, strict=True):
        alone = torch.from_numpy(naive.text_feature(network, prompt))
        assert torch.allclose(feature.double(), F.normalize(alone, dim=0), atol=1e-6)


def test_at_its_own_size_dense_features_are_open_clip_s_tokens() -> None:
    clip = clip_model.frozen(naive.tiny_clip(), CPU)
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = clip.dense_features(pictures)
    clip.network.visual.output_tokens = True  # type: ignore[union-attr]
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (naive.MEAN, naive.DEVIATION))
    standard = ((pictures - mean) / deviation).float()
    _, tokens = clip.network.visual(standard)  # type: ignore[operator]
    expected = (tokens @ clip.network.visual.proj).reshape(2, 4, 4, -1)  # type: ignore[union-attr]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_a_picture_s_feature_is_open_clip_s(count: int) -> None:
    clip = clip_model.frozen(naive.tiny_clip(), CPU)
    pictures = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (naive.MEAN, naive.DEVIATION))
    expected = clip.network.encode_image(((pictures - mean) / deviation).float())  # type: ignore[operator]
    assert torch.allclose(clip.image_features(pictures), expected, atol=1e-5)
