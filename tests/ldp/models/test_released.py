import numpy as np
import pytest
import torch
from torch import nn

from ldp.models.conversion import convert
from ldp.models.network import parameter_count
from ldp.models.released import ChannelAttention, LDPReleased, ReleasedConfig
from ldp.restore.deblur import Deblurrer
from ldp.types import BlurMap, ViewPair
from tests.helpers import released_reference as reference
from tests.helpers.released_reference import Developed

SMALL = ReleasedConfig(width=8, encoder=(1,), middle=1, decoder=(1,), crop_px=16)


def shaken(module):
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, 3.0 if name.endswith("temperature") else 0.0, 0.3)
    return module.eval()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A checkpoint in the release's format and size, and its weights as arrays."""
    weights = reference.random_weights()
    path = tmp_path_factory.mktemp("released") / "model.pth"
    torch.save({"params": {name: torch.tensor(x).float() for name, x in weights.items()}}, path)
    return convert(path, path.with_suffix(".safetensors")).network, weights


def test_it_has_as_many_parameters_as_the_release():
    with torch.device("meta"):
        count = parameter_count(LDPReleased(ReleasedConfig()))
    assert count == pytest.approx(7.62e6, rel=1e-3)


@pytest.mark.parametrize(
    ("size", "map_size"),
    [
        ((32, 48), (32, 48)),
        ((33, 50), (33, 50)),
        ((16, 16), (1, 1)),
        ((1, 7), (1, 7)),
        ((61, 40), (9, 70)),
    ],
)
def test_it_agrees_with_the_plain_implementation(released, size, map_size):
    network, weights = released
    rng = np.random.default_rng(1)
    views, amount = rng.random((1, 6, *size)), rng.random((1, 1, *map_size))
    expected = reference.restore(weights, views[0], amount[0, 0])
    with torch.inference_mode():
        found = network(torch.tensor(views).float(), torch.tensor(amount).float())
    assert expected.std() > 0.2
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_a_photos_pooled_map_serves_as_well_as_the_map(released):
    network, _ = released
    views, amount = torch.rand(1, 6, 16, 16), torch.rand(1, 1, 45, 70)
    pooled = torch.tensor(reference.pool(amount[0, 0].numpy(), 32)).float()[None, None]
    torch.testing.assert_close(network(views, pooled), network(views, amount))


def test_a_black_picture_stays_black_and_finite():
    attention = shaken(ChannelAttention(4, project_bias=False))
    black = torch.zeros(1, 4, 8, 8)
    assert torch.equal(attention(black, torch.rand(1, 1, 4, 4)), black)


@pytest.mark.parametrize("size", [(24, 32), (21, 27), (9, 40)])
def test_each_cell_is_mixed_by_the_statistics_of_its_window(size):
    attention = shaken(ChannelAttention(4, project_bias=True))
    x, prior = torch.randn(1, 4, *size), torch.rand(1, 1, 4, 4)
    attention.window, cell, across = 16, 2, 8
    local = attention(x, prior)
    attention.window = None
    counts = [-(-length // cell) for length in size]
    for row in range(counts[0]):
        for column in range(counts[1]):
            # The window moves inwards at the border; it is not larger than the picture.
            top, left = (
                cell * min(max(0, at - min(across, count) // 2), max(0, count - across))
                for at, count in ((row, counts[0]), (column, counts[1]))
            )
            area = attention(x[..., top : top + 16, left : left + 16], prior)
            inside = np.s_[..., row * cell - top :, column * cell - left :]
            mine = np.s_[..., row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
            expected = area[inside][..., :cell, :cell]
            torch.testing.assert_close(local[mine], expected, atol=1e-5, rtol=1e-5)


def test_local_statistics_do_not_change_a_picture_of_the_crops_size():
    network = shaken(LDPReleased(SMALL))
    views, amount = torch.rand(1, 6, 16, 16), torch.rand(1, 1, 16, 16)
    whole = network(views, amount)
    network.use_local_statistics(16)
    torch.testing.assert_close(network(views, amount), whole)
    larger = torch.rand(1, 6, 16, 48)
    local = network(larger, amount)
    network.use_local_statistics(None)
    assert (network(larger, amount) - local).abs().max() > 1e-2


def test_bfloat16_leaves_the_statistics_alone():
    """A large temperature between channels that are nearly alike shows what a cosine loses."""
    attention = shaken(ChannelAttention(8, project_bias=False))
    nn.init.constant_(attention.temperature, 30)
    common = torch.randn(1, 1, 96, 96)
    x, prior = common + 0.1 * torch.randn(1, 8, 96, 96), torch.rand(1, 1, 8, 8)
    wide = attention(x, prior)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = attention(x, prior)
    assert narrow.dtype == torch.bfloat16
    assert (narrow - wide).abs().mean() < 0.01 * wide.std()


def restored(network, views, blur_map, tile_px, halo_px):
    device = torch.device("cpu")
    deblurrer = Deblurrer(network, device, tile_px, halo_px, torch.float32)
    return deblurrer.restore_uint16(views, blur_map) / 65535


@pytest.mark.parametrize("size", [(130, 150), (97, 140)])
def test_tiled_equals_whole_where_windows_and_receptive_field_fit_into_the_halo(size):
    """Four windows of 16 px, one behind the other, and a handful of convolutions: 64 px."""
    network = shaken(LDPReleased(SMALL))
    network.use_local_statistics(SMALL.crop_px)
    network = Developed(network, (torch.rand(1, 6, 64, 64), torch.rand(1, 1, 64, 64)))
    rng = np.random.default_rng(0)
    views = ViewPair(*rng.integers(0, 65536, (2, *size, 3)).astype(np.uint16))
    # Sharp at the left and blurred at the right: no tile's map is the whole photo's.
    blur_map = BlurMap(np.linspace(0, 1, 40, dtype=np.float32)[None].repeat(30, 0))
    whole = restored(network, views, blur_map, 256, 64)
    assert 0.1 < whole.std() < 0.2
    np.testing.assert_allclose(restored(network, views, blur_map, 64, 64), whole, atol=1e-4)
    narrow = restored(network, views, blur_map, 64, 4)
    assert np.abs(narrow - whole).max() > 1e-3  # the halo is what makes them equal
