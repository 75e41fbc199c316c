"""The public face: `ldp.load`, `Model`, and what importing costs."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ldp
from ldp.models import weights
from ldp.models.conversion import convert
from ldp.models.network import LDPNet, NetworkConfig, parameter_count
from ldp.models.weights import save_network, sha256
from ldp.types import FloatArray, ReducibleViews
from tests.helpers import released_reference

MICRO = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), shuffle=2, crop_px=64)


def network(config: NetworkConfig = MICRO) -> LDPNet:
    """Return a network with random weights, so large that results leave [0, 1]."""
    torch.manual_seed(0)
    made = LDPNet(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def views(
    height: int = 70, width: int = 90, dtype: type = np.uint16, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, np.iinfo(dtype).max, (2, height, width, 3)).astype(dtype)
    return left, right


def tensor(view: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(view).permute(2, 0, 1)


@pytest.fixture(scope="module")
def model() -> ldp.Model:
    return ldp.Model(network(), device="cpu", tile=64, protect=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "micro.safetensors"
    save_network(network(), path, {"training_radius_px": "9.5"})
    (tmp_path / "micro.md").write_text("Licence: CC0-1.0\n\nTraining radius: 12 px\n")
    return path


def test_the_public_names() -> None:
    assert ldp.__all__ == [
        "BlurEstimator",
        "BlurMap",
        "ClipEstimator",
        "ClipPatchEstimator",
        "ClipUnavailableError",
        "Deblurred",
        "DeviceError",
        "DeviceMemoryError",
        "DisparityEstimator",
        "LdpError",
        "Model",
        "ModelInfo",
        "SingleInfo",
        "SingleModel",
        "SoftMapError",
        "TensorBlurMap",
        "TensorDeblurred",
        "UnconvertedError",
        "ViewPair",
        "WeightsError",
        "load",
        "load_estimator",
        "load_single",
        "shipped_names",
    ]
    assert all(getattr(ldp, name).__name__ == name for name in ldp.__all__)
    assert set(ldp.__all__) <= set(dir(ldp))
    assert not hasattr(ldp, "deblur_everything")
    assert (Path(ldp.__file__).parent / "py.typed").is_file()


def test_importing_loads_neither_torch_nor_numpy() -> None:
    script = "import json, sys, ldp; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = set(json.loads(ran.stdout))
    assert "ldp.errors" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "open_clip", "safetensors", "ldp.model"}


def test_a_photo_as_arrays(model: ldp.Model) -> None:
    left, right = views()
    result = model.restore(left, right)
    assert isinstance(result, ldp.Deblurred)
    assert result.sharp.shape == left.shape
    assert result.sharp.dtype == np.float32
    expected = ldp.DisparityEstimator().estimate(ldp.ViewPair(left, right))
    np.testing.assert_array_equal(result.blur_map.amount, expected.amount)
    assert result.sharp.min() < 0
    assert result.sharp.max() > 1


def test_tensors_give_what_arrays_give_in_their_own_layout(model: ldp.Model) -> None:
    left, right = views()
    as_arrays = model.restore(left, right)
    single = model.restore(tensor(left), tensor(right))
    batch = model.restore(*(torch.stack([tensor(view)] * 2) for view in (left, right)))
    assert single.sharp.dtype == torch.float32
    assert single.sharp.is_contiguous()
    assert (single.sharp.shape, batch.sharp.shape) == ((3, 70, 90), (2, 3, 70, 90))
    for sharp in (single.sharp, *batch.sharp):
        assert torch.equal(sharp, tensor(as_arrays.sharp))
    for name in ("amount", "disparity_px", "confidence"):
        plane = torch.from_numpy(getattr(as_arrays.blur_map, name))
        assert torch.equal(getattr(single.blur_map, name), plane[None])
        assert torch.equal(getattr(batch.blur_map, name)[1], plane[None])
    assert single.blur_map.soft is None
    assert torch.equal(single.to_uint16(), tensor(as_arrays.to_uint16()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_the_type_decides_only_which_value_is_white(model: ldp.Model, dtype: type) -> None:
    left, noise = (view.astype(np.float32) for view in views(dtype=np.uint8))
    right = left + (noise - left) / 8  # two views of noise alone match by chance
    pair = left.astype(np.uint8), right.astype(np.uint8)
    as_16_bit = model.restore(*(view.astype(np.uint16) * 257 for view in pair)).sharp
    given = pair if dtype is np.uint8 else [(view / 255).astype(dtype) for view in pair]
    found = model.restore(*given).sharp
    tolerance = 0.05 if dtype is np.float16 else 1e-3
    np.testing.assert_allclose(found, as_16_bit, atol=tolerance)
    as_tensors = model.restore(*map(tensor, given)).sharp
    assert torch.equal(as_tensors, tensor(found))


def test_bfloat16_tensors_are_accepted(model: ldp.Model) -> None:
    left, right = (tensor(view / 65535).bfloat16() for view in views())
    whole = model.restore(left.float(), right.float())
    assert torch.equal(model.restore(left, right).sharp, whole.sharp)


def test_a_list_of_pairs_is_a_batch_of_any_sizes(model: ldp.Model) -> None:
    first, second = views(), views(33, 50, seed=1)
    mixed: Any = [first, ldp.ViewPair(*second)]
    results = model.restore(mixed)
    for result, pair in zip(results, (first, second), strict=True):
        np.testing.assert_array_equal(result.sharp, model.restore(*pair).sharp)
    left, right = map(tensor, second)
    tensors = model.restore([(left, right)])
    assert torch.equal(tensors[0].sharp, tensor(results[1].sharp))
    assert model.restore([]) == []


def test_to_uint16_clips_and_rounds() -> None:
    values = [-0.5, 0, 0.4 / 65535, 0.6 / 65535, 0.5, 1, 1.5]
    expected = [0, 0, 0, 1, 32768, 65535, 65535]
    sharp: FloatArray = np.array(values, np.float32)[None, :, None].repeat(3, 2)
    before = sharp.copy()
    flat = ldp.BlurMap(np.zeros((1, 1), np.float32))
    rounded = ldp.Deblurred(sharp, flat).to_uint16()
    assert rounded.dtype == np.uint16
    assert rounded[0, :, 0].tolist() == expected
    np.testing.assert_array_equal(sharp, before)
    of_tensors = ldp.TensorDeblurred(tensor(sharp), ldp.TensorBlurMap(torch.zeros(1, 1, 1)))
    assert of_tensors.to_uint16().dtype == torch.uint16
    assert of_tensors.to_uint16()[0, 0].tolist() == expected


def test_rounding_band_by_band_is_rounding_the_whole(model: ldp.Model) -> None:
    pair = ldp.ViewPair(*views(150, 90))
    result, rounded = model.restore(pair), model.restore_uint16(pair)
    np.testing.assert_array_equal(rounded.sharp, result.to_uint16())
    np.testing.assert_array_equal(rounded.blur_map.amount, result.blur_map.amount)


def test_a_given_map_replaces_the_estimated_one(model: ldp.Model) -> None:
    pair = ldp.ViewPair(*views())
    blurred = ldp.BlurMap(np.ones((3, 4), np.float32))
    found = model.restore_uint16(pair, blur_map=blurred)
    assert found.blur_map is blurred
    assert (found.sharp != model.restore_uint16(pair).sharp).any()


def test_progress_is_reported_after_every_tile(model: ldp.Model) -> None:
    seen: list[tuple[int, int]] = []
    model.restore(*views(64, 150), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]
    assert len(seen) > 1


def test_a_network_that_is_handed_in_is_not_changed() -> None:
    given = network().train()
    before = copy.deepcopy(given.state_dict())
    model = ldp.Model(given, device="cpu")
    model.restore(*views(32, 32))
    assert given.training
    assert {block.window for block in given.modules() if hasattr(block, "window")} == {None}
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    assert isinstance(model.network, nn.Module)
    assert model.network is not given
    assert not model.network.training
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in model.network.parameters())


def test_info_has_the_facts_of_file_card_and_network(file: Path) -> None:
    model = ldp.load(str(file), device="cpu")
    info = model.info
    assert (info.name, info.licence, info.blur_map) == ("micro", "CC0-1.0", "disparity")
    assert info.training_radius_px == 9.5  # the file goes before its card
    assert info.parameters == parameter_count(network())
    assert info.macs > 1e9
    assert info.weights_sha256 == sha256(file)
    with pytest.raises(FrozenInstanceError):
        info.name = "other"  # type: ignore[misc]
    save_network(network(), file)
    assert ldp.load(str(file), device="cpu").info.training_radius_px == 12
    bare = ldp.Model(network(), device="cpu").info
    assert (bare.name, bare.licence, bare.training_radius_px) == ("", "", None)


def test_a_shipped_name_a_path_and_a_converted_release_are_loaded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path = ldp.load(str(file), device="cpu").restore(*views()).sharp
    monkeypatch.setattr(weights, "SHIPPED", file.parent)
    assert ldp.shipped_names() == ["micro"]
    np.testing.assert_array_equal(ldp.load("micro", device="cpu").restore(*views()).sharp, by_path)
    found = {k: torch.tensor(v).float() for k, v in released_reference.random_weights().items()}
    torch.save({"params": found}, tmp_path / "model.pth")
    convert(tmp_path / "model.pth", tmp_path / "released.safetensors")
    released = ldp.load(str(tmp_path / "released.safetensors"), device="cpu", blur="disparity")
    assert released.info.blur_map == "clip-patch"
    assert released.restore(*views(16, 20)).sharp.shape == (16, 20, 3)


@pytest.mark.parametrize("name", ldp.shipped_names())
def test_what_is_shipped_loads_and_has_a_licence(name: str) -> None:
    if weights.read_header(weights.resolve(name)).network == "NAFNet":
        single = ldp.load_single(name, device="cpu").info
        assert (single.name, bool(single.licence)) == (name, True)
        return
    info = ldp.load(name, device="cpu").info
    assert info.name == name
    assert info.licence
    assert info.training_radius_px


def test_the_options_reach_network_and_estimator(file: Path) -> None:
    estimator = ldp.DisparityEstimator(field_falloff=0.0)
    model = ldp.load(str(file), device="cpu", tile=201, blur=estimator)
    assert model.estimator is estimator
    assert model.tile_px == 208
    assert model.device == torch.device("cpu")
    assert isinstance(ldp.load(str(file), device="cpu").estimator, ldp.DisparityEstimator)


def test_warming_up_restores_one_tile(file: Path) -> None:
    seen = []

    class Recorder:
        def estimate(self, views: ReducibleViews) -> ldp.BlurMap:
            seen.append(views.size)
            return ldp.BlurMap(np.zeros((1, 1), np.float32))

    ldp.load(str(file), device="cpu", tile=64, blur=Recorder()).warm_up()
    assert seen == [(64, 64)]


@pytest.mark.parametrize("blur", ["clipp", "Disparity", ""])
def test_an_unknown_estimator_is_an_error(file: Path, blur: str) -> None:
    with pytest.raises(
        ValueError, match="expected one of auto, disparity, learned, clip, clip-patch"
    ):
        ldp.load(str(file), device="cpu", blur=blur)
    with pytest.raises(ValueError, match="expected one of disparity, learned, clip, clip-patch"):
        ldp.load_estimator(blur)


def test_a_network_of_an_unknown_map_needs_an_estimator(file: Path) -> None:
    save_network(network(), file, {"blur_map": "sonar"})
    with pytest.raises(ldp.WeightsError, match=r"micro.safetensors: .*'sonar'.* in `blur`"):
        ldp.load(str(file), device="cpu")
    assert ldp.load(str(file), device="cpu", blur="disparity").info.blur_map == "sonar"


def test_an_unknown_model_device_or_map_is_an_error(file: Path) -> None:
    with pytest.raises(ldp.WeightsError, match="huge: no such network and no such file"):
        ldp.load("huge")
    with pytest.raises(ldp.DeviceError, match="device 'tpu': expected auto, cpu, cuda or cuda:N"):
        ldp.load(str(file), device="tpu")
    save_network(network(replace(MICRO, prior="soft")), file, {"blur_map": "clip"})
    with pytest.raises(ldp.SoftMapError, match=r"blur 'disparity': .* give it blur 'clip'"):
        ldp.load(str(file), device="cpu", blur="disparity")
    given = ldp.load(str(file), device="cpu", blur=ldp.DisparityEstimator())
    with pytest.raises(ldp.SoftMapError):
        given.restore(*views(16, 16))


@pytest.mark.parametrize(
    ("left", "right", "error", "message"),
    [
        (np.zeros((4, 5, 3)), np.zeros((4, 6, 3)), ValueError, "same size and type"),
        (np.zeros((4, 5, 3), np.int32), np.zeros((4, 5, 3), np.int32), ValueError, "found int32"),
        (np.zeros((3, 4, 5)), np.zeros((3, 4, 5)), ValueError, r"is \(H, W, 3\) RGB"),
        (torch.zeros(3, 4, 5), torch.zeros(3, 4, 6), ValueError, "same shape and type"),
        (torch.zeros(4, 5, 3), torch.zeros(4, 5, 3), ValueError, r"expected \(3, H, W\) or \(B"),
        (torch.zeros(0, 3, 4, 5), torch.zeros(0, 3, 4, 5), ValueError, r"expected \(3, H, W\)"),
        (torch.zeros(3, 4, 5), np.zeros((4, 5, 3)), TypeError, "left is Tensor, right ndarray"),
        (np.zeros((4, 5, 3)), None, TypeError, "left is ndarray, right NoneType"),
        ([np.zeros((4, 5, 3))], None, TypeError, "a list holds ndarray"),
    ],
)
def test_views_that_do_not_fit_are_refused(
    model: ldp.Model, left: object, right: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.restore(left, right)  # type: ignore[call-overload]
