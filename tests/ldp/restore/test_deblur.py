from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from ldp.errors import DeviceMemoryError, LdpError, SoftMapError
from ldp.models.network import LDPNet, NetworkConfig
from ldp.restore.deblur import Deblurrer
from ldp.restore.network import grid_px
from ldp.types import BlurMap, ViewPair

MICRO = NetworkConfig(width=8, encoder=(1, 1), middle=1, decoder=(1, 1), shuffle=2, crop_px=64)


class Stub(nn.Module):
    """A network of MICRO's stride that is a plain function of views and blur map."""

    def __init__(self, function):
        super().__init__()
        self.config = MICRO
        self.function = function

    def forward(self, views, amount):
        assert views.shape[-2] % self.config.stride == views.shape[-1] % self.config.stride == 0
        return self.function(views, amount)


def mean_view(views, amount):
    return (views[:, :3] + views[:, 3:]) / 2


def deblurrer(network, tile_px=64, halo_px=16, precision=torch.float32):
    device = torch.device("cpu")
    return Deblurrer(network, device, tile_px, halo_px, precision)


def random_views(height, width, dtype=np.uint16, seed=0):
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 65536, (2, height, width, 3)).astype(np.uint16)
    if dtype == np.float32:
        left, right = levels.astype(np.float32) / np.float32(65535)
    else:
        left, right = levels.astype(dtype)
    return ViewPair(left, right)


def flat_map(value=0.5):
    return BlurMap(np.full((3, 4), value, np.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 130), (37, 53), (64, 65), (200, 131)])
def test_a_network_that_changes_nothing_gives_the_picture_back(size):
    view = random_views(*size).left
    restored = deblurrer(Stub(mean_view)).restore_uint16(ViewPair(view, view), flat_map())
    np.testing.assert_array_equal(restored, view)


def test_left_comes_before_right():
    views = random_views(70, 90)
    for function, expected in (
        (lambda views, amount: views[:, :3], views.left),
        (lambda views, amount: views[:, 3:], views.right),
    ):
        sharp = deblurrer(Stub(function)).restore_uint16(views, flat_map())
        np.testing.assert_array_equal(sharp, expected)


def test_a_coarse_map_reaches_the_network_at_the_views_size():
    plane = np.random.default_rng(0).random((13, 21), np.float32)
    stub = Stub(lambda views, amount: amount.expand(-1, 3, -1, -1))
    sharp = deblurrer(stub).restore_uint16(random_views(130, 168), BlurMap(plane))
    expected = cv2.resize(plane, (168, 130), interpolation=cv2.INTER_LINEAR) * 65535
    np.testing.assert_allclose(sharp, np.repeat(expected[..., None], 3, 2), atol=1)


def test_a_network_is_given_the_planes_that_it_reads():
    amount, soft = np.random.default_rng(0).random((2, 13, 21), np.float32)
    stub = Stub(lambda views, blur: blur[:, [0, 1, 1]])
    stub.config = replace(MICRO, prior="soft")
    sharp = deblurrer(stub).restore_uint16(random_views(130, 168), BlurMap(amount, soft=soft))
    for channel, plane in enumerate((amount, soft, soft)):
        expected = cv2.resize(plane, (168, 130), interpolation=cv2.INTER_LINEAR) * 65535
        np.testing.assert_allclose(sharp[..., channel], expected, atol=1)


def test_a_map_without_the_plane_that_the_network_reads_is_refused():
    stub = Stub(mean_view)
    stub.config = replace(MICRO, prior="soft")
    with pytest.raises(SoftMapError, match="only the blur map 'clip' has"):
        deblurrer(stub).restore(random_views(30, 40), flat_map())


def local_network(config=MICRO):
    """MICRO with random weights, whose channel attention is the same everywhere."""
    torch.manual_seed(0)
    network = LDPNet(config)
    for name, parameter in network.named_parameters():
        if ".sca." in name:
            nn.init.constant_(parameter, 1.0 if name.endswith("bias") else 0.0)
        else:
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("size", [(200, 150), (97, 213)])
@pytest.mark.parametrize("prior", ["amount", "soft"])
def test_tiled_equals_whole_for_local_operations(size, prior):
    network, views = local_network(replace(MICRO, prior=prior)), random_views(*size)
    rng = np.random.default_rng(1)
    blur_map = BlurMap(rng.random((25, 31), np.float32), soft=rng.random((9, 12), np.float32))
    tiled = deblurrer(network, 64, 64).restore_uint16(views, blur_map)
    whole = deblurrer(network, 256, 64).restore_uint16(views, blur_map)
    assert whole.std() > 1000
    np.testing.assert_allclose(tiled / 65535, whole / 65535, atol=1e-4)


def test_windows_end_with_the_picture_as_the_crops_of_training_do():
    network, views = local_network(), random_views(64, 96, np.float32)
    both = torch.from_numpy(np.concatenate([views.left, views.right], 2)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = network(both, torch.full((1, 1, 64, 96), 0.5))[0].permute(1, 2, 0).numpy()
    found = deblurrer(network, 256, 64).restore(views, flat_map())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pooling_over_tiles_differs_little_from_pooling_over_the_whole():
    """Windows keep to the same grid in every tile: only what is beyond the halo is missing."""
    torch.manual_seed(0)
    network = local_network()
    for name, parameter in network.named_parameters():
        if ".sca.weight" in name:
            nn.init.normal_(parameter, std=0.3)
    network.use_local_statistics(MICRO.crop_px)
    views = random_views(200, 150)
    tiled, whole = (
        deblurrer(network, tile, 64).restore_uint16(views, flat_map()) / 65535 for tile in (64, 256)
    )
    assert 0 < np.abs(tiled - whole).max() < 0.05
    assert np.abs(tiled - whole).mean() < 0.002


def test_the_views_type_does_not_matter():
    eight = random_views(50, 60, np.uint8)
    views = [
        eight,
        ViewPair(*(view.astype(np.uint16) * 257 for view in (eight.left, eight.right))),
        ViewPair(*(view.astype(np.float32) / 255 for view in (eight.left, eight.right))),
    ]
    network = local_network()
    results = [deblurrer(network).restore_uint16(pair, flat_map()).astype(int) for pair in views]
    assert np.abs(results[1] - results[0]).max() <= 1
    assert np.abs(results[2] - results[0]).max() <= 1


def test_values_beyond_black_and_white_are_clipped_in_16_bits_only():
    view = np.array([-0.5, -1e-6, 0.25, 1.0, 1.5], np.float32)[None, :, None].repeat(3, 2)
    views = ViewPair(view, view)
    rounded = deblurrer(Stub(mean_view)).restore_uint16(views, flat_map())
    assert rounded[0, :, 0].tolist() == [0, 0, 16384, 65535, 65535]
    np.testing.assert_array_equal(deblurrer(Stub(mean_view)).restore(views, flat_map()), view)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_views_that_are_no_numbers_are_refused(wrong):
    views = random_views(90, 90, np.float32)
    views.right[80, 3, 1] = wrong
    with pytest.raises(LdpError, match=r"rows 32 to 90.* not finite"):
        deblurrer(Stub(mean_view)).restore(views, flat_map())


def test_bfloat16_stays_close_to_float32():
    network, views = local_network(), random_views(64, 64)
    wide, narrow = (
        deblurrer(network, precision=precision).restore_uint16(views, flat_map()) / 65535
        for precision in (torch.float32, torch.bfloat16)
    )
    assert 0 < np.abs(wide - narrow).max() < 0.05


def test_progress_counts_every_tile_once():
    seen = []
    deblurrer(Stub(mean_view)).restore(
        random_views(100, 64), flat_map(), lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


class SmallMemory(Stub):
    """Runs out of memory above a size, as CUDA does; remembers what it was asked for."""

    def __init__(self, limit_px, error=None):
        super().__init__(mean_view)
        self.limit_px = limit_px
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.asked_px = []

    def forward(self, views, amount):
        self.asked_px.append(views.shape[-1])
        if views.shape[-1] > self.limit_px:
            raise self.error
        return super().forward(views, amount)


def refused_by_the_system():
    """The error of an allocation on the CPU that no system grants."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 52, dtype=torch.uint8)
    return caught.value


REFUSED = (
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError("Unable to allocate"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    refused_by_the_system(),
)


@pytest.mark.parametrize("error", REFUSED, ids=["cuda", "numpy", "cudnn", "cpu"])
def test_a_tile_that_does_not_fit_is_halved_and_the_photo_restarted(error):
    network = SmallMemory(300, error)
    view = random_views(300, 700).left
    seen = []
    restored = deblurrer(network, tile_px=600).restore_uint16(
        ViewPair(view, view), flat_map(), lambda done, total: seen.append((done, total))
    )
    np.testing.assert_array_equal(restored, view)
    # Two tiles of 368 px with the halo of one side (the other ends with the photo) do not fit.
    assert network.asked_px[:2] == [384, 272]
    assert max(network.asked_px[1:]) <= 300
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))


def test_a_memory_too_small_for_any_tile_is_an_error_with_a_remedy():
    network = SmallMemory(limit_px=10)
    with pytest.raises(DeviceMemoryError, match=r"a tile of 128 px; .* restore on the CPU"):
        deblurrer(network, tile_px=512).restore(random_views(600, 600), flat_map())
    assert network.asked_px == [336, 240, 144]


def test_an_error_of_another_kind_is_no_lack_of_memory():
    network = SmallMemory(300, RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        deblurrer(network, tile_px=600).restore(random_views(300, 700), flat_map())
    assert network.asked_px == [384]


def test_a_network_in_memory_is_copied_and_given_local_statistics():
    network = LDPNet(MICRO)
    loaded = Deblurrer.of(network, torch.device("cpu"))
    assert (loaded.tile_px, loaded.halo_px) == (1440, 64)
    copy: Any = loaded.network
    original: Any = network
    blocks = (*copy.naf.encoders, copy.naf.middle_blks)
    assert [part[0].window for part in blocks] == [32, 16, 8]
    assert [part[0].window for part in original.naf.encoders] == [None, None]
    assert original.training
    assert not copy.training
    assert Deblurrer.of(network, torch.device("cpu"), 201).tile_px == 208
    assert Deblurrer.of(network, torch.device("cpu"), 1).tile_px == 64


def test_tiles_keep_to_strides_and_window_cells():
    for crop_px, expected in ((64, 8), (160, 40), (32, 8)):
        assert grid_px(Stub(mean_view)) == 8
        network = Stub(mean_view)
        network.config = replace(MICRO, crop_px=crop_px)
        assert grid_px(network) == expected
