"""The whole picture in one pass: what the bare network gives, borders and statistics included."""

import numpy as np
import pytest
import torch

import ldp
from ldp.errors import DeviceMemoryError
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.released import LDPReleased, ReleasedConfig
from ldp.restore.deblur import Deblurrer
from ldp.restore.whole import WholeDeblurrer
from ldp.types import BlurMap, ViewPair

CPU = torch.device("cpu")
RELEASED = ReleasedConfig(width=8, encoder=(1,), middle=1, decoder=(1,), crop_px=16)
SMALL = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), crop_px=16)


def shaken(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return module.eval()


def photo(height, width):
    rng = np.random.default_rng(0)
    views = ViewPair(*rng.random((2, height, width, 3)).astype(np.float32))
    return views, BlurMap(rng.random((height, width)).astype(np.float32))


def tensors(views, blur_map):
    both = np.concatenate([views.left, views.right], 2).transpose(2, 0, 1)
    return torch.from_numpy(both)[None], torch.from_numpy(blur_map.amount)[None, None]


@pytest.mark.parametrize("size", [(48, 64), (45, 63)])
def test_it_is_the_bare_released_network(size):
    network = shaken(LDPReleased(RELEASED))
    views, blur_map = photo(*size)
    with torch.inference_mode():
        expected = network(*tensors(views, blur_map))[0].permute(1, 2, 0).numpy()
    found = WholeDeblurrer.of(network, CPU).restore(views, blur_map)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    # Local windows change it, which is what the switch is for.
    tiled = Deblurrer.of(network, CPU).restore(views, blur_map)
    assert np.abs(tiled - expected).max() > 5e-3 * np.abs(expected).max()


def test_a_network_that_cannot_take_a_size_is_given_zeros_at_the_far_sides():
    network = shaken(LDPNet(SMALL))
    views, blur_map = photo(46, 61)
    both, amount = (torch.nn.functional.pad(x, (0, 3, 0, 2)) for x in tensors(views, blur_map))
    with torch.inference_mode():
        expected = network(both, amount)[0, :, :46, :61].permute(1, 2, 0).numpy()
    found = WholeDeblurrer.of(network, CPU).restore(views, blur_map)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_picture_that_does_not_fit_is_an_error_and_not_halved():
    class Full(torch.nn.Module):
        config = SMALL

        def use_local_statistics(self, crop_px):
            assert crop_px is None

        def forward(self, views, blur):
            raise torch.OutOfMemoryError

    views, blur_map = photo(32, 32)
    with pytest.raises(DeviceMemoryError, match=r"a whole picture of 32 x 32 px; .*tiles"):
        WholeDeblurrer.of(Full(), CPU).restore(views, blur_map)  # type: ignore[arg-type]


def test_a_model_takes_the_switch_and_refuses_it_at_other_scales():
    network = LDPReleased(RELEASED)
    network.load_state_dict(shaken(LDPReleased(RELEASED)).state_dict())
    views, blur_map = photo(40, 40)
    whole = ldp.Model(network, device="cpu", whole=True)
    found = whole.restore_uint16(views, blur_map=blur_map).sharp
    alone = WholeDeblurrer.of(network, CPU).restore_uint16(views, blur_map)
    np.testing.assert_array_equal(found, alone)
    with pytest.raises(ValueError, match="a whole picture is restored at scale 1"):
        ldp.Model(network, device="cpu", whole=True, scale="2")
