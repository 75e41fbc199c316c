import hashlib
import os
from typing import Any

import numpy as np
import pytest
import torch

import ldp
from ldp.errors import UnconvertedError, WeightsError
from ldp.models.conversion import convert
from ldp.models.released import LDPReleased
from ldp.models.weights import load_network, read_header
from ldp.types import BlurMap, ViewPair
from tests.helpers import released_reference as reference


@pytest.fixture(scope="module")
def params():
    weights = reference.random_weights()
    return {name: torch.tensor(value).float() for name, value in weights.items()}


def written(folder, params, **also):
    path = folder / "model.pth"
    torch.save({"params": params, **also}, path)
    return path


def converted(path) -> tuple[LDPReleased, tuple[str, ...]]:
    """LDP's network, and the names of what was left out; it is written beside the checkpoint."""
    found = convert(path, path.with_suffix(".safetensors"))
    assert isinstance(found.network, LDPReleased)
    return found.network, found.unused


def test_unused_weights_are_accepted_and_named(tmp_path, params):
    network, unused = converted(written(tmp_path, params))
    assert unused == ("ca.qkv_dwconv.weight",)
    assert not network.training
    slim = {name: value for name, value in params.items() if "dwconv" not in name}
    assert converted(written(tmp_path, slim))[1] == ()


@pytest.mark.parametrize("legacy", [False, True])
def test_prefix_half_precision_and_the_older_file_format_are_understood(tmp_path, params, legacy):
    halved = {f"module.{name}": value.half() for name, value in params.items()}
    path = tmp_path / "model.pth"
    torch.save({"params": halved}, path, _use_new_zipfile_serialization=not legacy)
    network, _ = converted(path)
    found = network.state_dict()["naf.encoders.1.0.sca.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, params["naf.encoders.1.0.sca.1.weight"].half().float())


def test_a_bias_where_the_release_may_have_one_is_used(tmp_path, params):
    biased = params | {"ca.project_out.bias": torch.ones(32), "skip_conv.bias": torch.ones(32)}
    plain, shifted = (converted(written(tmp_path, weights))[0] for weights in (params, biased))
    views, amount = torch.rand(1, 6, 16, 16), torch.rand(1, 1, 16, 16)
    assert not torch.allclose(plain(views, amount), shifted(views, amount))
    bias = shifted.ca.project_out.bias
    assert bias is not None
    assert torch.equal(bias, torch.ones(32))


@pytest.mark.parametrize("shape", [(1,), (), (1, 1, 1, 1)])
def test_one_temperature_is_one_temperature_in_any_shape(tmp_path, params, shape):
    other = params | {"ca.temperature": params["ca.temperature"].reshape(shape)}
    assert converted(written(tmp_path, other))[0].ca.temperature.item() == 3.0


def test_missing_and_foreign_weights_are_named_as_the_file_names_them(tmp_path, params):
    tampered = dict(params)
    tampered["naf.encoders.0.0.sca.weight"] = tampered.pop("naf.encoders.0.0.sca.1.weight")
    with pytest.raises(
        WeightsError,
        match=r"1 weights are missing .*'naf.encoders.0.0.sca.1.weight'.* 1 are unknown "
        r".*'naf.encoders.0.0.sca.weight'",
    ):
        converted(written(tmp_path, tampered))
    with pytest.raises(WeightsError, match=r"model.pth: 346 weights .*'ca.project_out.weight'"):
        converted(written(tmp_path, {"conv.weight": torch.zeros(3)}))
    # A network with a block less is another network, however well the rest fits.
    shallow = {name: x for name, x in params.items() if not name.startswith("naf.middle_blks.1.")}
    with pytest.raises(WeightsError, match=r"first \['naf.middle_blks.1.beta'"):
        converted(written(tmp_path, shallow))


def test_wrong_shapes_and_values_are_refused(tmp_path, params):
    name = "naf.downs.2.weight"
    with pytest.raises(WeightsError, match=r"naf.downs.2.weight is \(256, 128, 1, 1\), expected"):
        converted(written(tmp_path, params | {name: params[name][..., :1, :1]}))
    with pytest.raises(WeightsError, match=r"naf.downs.2.weight holds NaN"):
        converted(written(tmp_path, params | {name: params[name] / 0}))
    with pytest.raises(WeightsError, match=r"ca.temperature is \(2, 1, 1\)"):
        converted(written(tmp_path, params | {"ca.temperature": torch.ones(2, 1, 1)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {}}, r"found \['weights'\], expected .* under 'params'"),
        ({"state_dict": {}}, "weights are missing"),
        ([1, 2], "found list, expected a dictionary"),
        ({"params": [1]}, "under 'params'"),
        ({"params": {"ca.temperature": 3.0}}, "'ca.temperature' is float, expected a tensor"),
        ({"params": {3: torch.zeros(1)}}, "3 is Tensor, expected a tensor under a name"),
        ({"params": {}}, "weights are missing"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        converted(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, params, legacy):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "model.pth"
    content = {"params": params, "trap": Trap()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"refused, and nothing of it was run: .*mkdir'") as seen:
        converted(path)
    assert "weights_only" not in str(seen.value)  # PyTorch's advice to open the file all the same
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        converted(tmp_path / "model.pth")
    path = tmp_path / "model.pth"
    for content in (b"", b"<html>" * 100, b"hello", bytes(range(256)), b"PK\3\4" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="not a PyTorch checkpoint, or a damaged one"):
            converted(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_checkpoint_is_a_weights_error_or_still_fits(tmp_path, legacy):
    path = tmp_path / "model.pth"
    small = {"a": torch.randn(9), "b": torch.randn(3, 3)}
    torch.save({"params": small}, path, _use_new_zipfile_serialization=not legacy)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for trial in range(150):
        damaged = whole.copy()
        if trial % 3:
            damaged[rng.integers(0, len(whole), 5)] = rng.integers(0, 256, 5)
        else:
            damaged = damaged[: rng.integers(len(whole))]
        path.write_bytes(damaged.tobytes())
        with pytest.raises(WeightsError):  # these weights are no network even when they are whole
            converted(path)


def test_converting_keeps_every_value_and_notes_the_source(tmp_path, params):
    path, out = written(tmp_path, params), tmp_path / "ldp-released.safetensors"
    checkpoint = convert(path, out, crop_px=320)
    header = read_header(out)
    assert (header.format, header.blur_map) == ("ldp-released-1", "clip-patch")
    assert header.notes["source"] == "model.pth"
    assert header.notes["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_network(out)
    assert loaded.config == checkpoint.network.config
    assert loaded.config.crop_px == 320
    for name, value in checkpoint.network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert [file.name for file in tmp_path.glob("*released*")] == [out.name]


def test_a_converted_checkpoint_restores_photos_of_any_size(tmp_path, params):
    out = tmp_path / "ldp-released.safetensors"
    convert(written(tmp_path, params), out)
    model = ldp.load(str(out), device="cpu", tile=64, blur="disparity")
    network: Any = model.network
    assert network.ca.window == 256
    rng = np.random.default_rng(0)
    views = ViewPair(*rng.integers(0, 65536, (2, 50, 37, 3)).astype(np.uint16))
    plane = rng.random((5, 4), np.float32)
    sharp = model.restore_uint16(views, blur_map=BlurMap(plane)).sharp
    assert sharp.shape == (50, 37, 3)
    # Another map, another mixture of the channels.
    other = model.restore_uint16(views, blur_map=BlurMap(1 - plane)).sharp
    assert (sharp != other).mean() > 0.1


def test_a_place_that_cannot_be_written_is_an_error(tmp_path, params):
    path = written(tmp_path, params)
    with pytest.raises(WeightsError, match="cannot be written"):
        convert(path, tmp_path / "absent" / "out.safetensors")


def test_loading_a_checkpoint_names_the_conversion(tmp_path, params):
    path = written(tmp_path, params)
    with pytest.raises(UnconvertedError, match=r"model.pth: .*ldp\.models\.conversion\.convert"):
        ldp.load(str(path))
