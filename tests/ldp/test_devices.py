import pytest
import torch

from ldp.devices import choose_device, choose_precision
from ldp.errors import DeviceError, LdpError


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "meta", ""])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(device)


def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="sees 1 CUDA devices; expected another device"):
        choose_device("cuda:1")
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("instructions", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_where_support_of_bfloat16_is_unknown_precision_is_float32(monkeypatch, instructions):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cpu, instructions, lambda: True, raising=False)
    assert choose_precision(torch.device("cpu")) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, instructions, lambda: False)
    assert choose_precision(torch.device("cpu")) == torch.float32


def test_a_wrong_device_is_an_error_of_the_library_and_of_an_argument():
    assert issubclass(DeviceError, LdpError)
    assert issubclass(DeviceError, ValueError)
