import pytest
import torch

from ldp.models.nafnet import LayerNorm2d, NAFBlock, NAFNet, scaled_sum


def shaken(module):
    """The module with every parameter drawn anew, so that no block is the identity."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def test_layer_norm_normalises_the_channels_of_every_pixel():
    norm = shaken(LayerNorm2d(16))
    x = torch.randn(2, 16, 3, 5) * 7 + 2
    centred = x - x.mean(1, keepdim=True)
    normed = centred / (x.var(1, keepdim=True, unbiased=False) + norm.eps).sqrt()
    expected = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_layer_norm_keeps_the_type_and_survives_large_half_values():
    norm = LayerNorm2d(16)
    x = torch.randn(1, 16, 4, 4) * 1e4
    for dtype in (torch.float16, torch.bfloat16):
        narrow = norm(x.to(dtype))
        assert narrow.dtype == dtype
        torch.testing.assert_close(narrow.float(), norm(x.to(dtype).float()), rtol=0.01, atol=0.02)


def test_a_fresh_block_is_the_identity():
    x = torch.randn(1, 8, 16, 16)
    assert torch.equal(NAFBlock(8)(x), x)


def test_a_window_of_the_whole_picture_changes_nothing():
    block = shaken(NAFBlock(8))
    x = torch.randn(1, 8, 32, 32)
    whole = block(x)
    block.window = 32
    torch.testing.assert_close(block(x), whole)


def test_with_a_local_window_far_pixels_do_not_matter():
    block = shaken(NAFBlock(8))
    x = torch.randn(1, 8, 16, 96)
    changed = x.clone()
    changed[..., 80:] = torch.randn(1, 8, 16, 16)
    assert not torch.allclose(block(x)[..., :32], block(changed)[..., :32])
    block.window = 16
    torch.testing.assert_close(block(x)[..., :64], block(changed)[..., :64])
    assert not torch.allclose(block(x)[..., 80:], block(changed)[..., 80:])


def test_the_network_keeps_the_size_and_states_its_stride():
    network = shaken(NAFNet(8, (1, 1), 1, (1, 1)))
    assert network.stride == 4
    assert network(torch.randn(1, 8, 12, 20)).shape == (1, 8, 12, 20)


def test_encoder_and_decoder_have_equally_many_levels():
    with pytest.raises(ValueError, match="2 encoder levels, 1 decoder"):
        NAFNet(8, (1, 1), 1, (1,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scaled_sum_is_the_same_with_and_without_gradients(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, change = (torch.rand(1, 4, 6, 8, generator=generator).to(dtype) for _ in range(2))
    scale = torch.rand(1, 4, 1, 1, generator=generator)
    given = x.clone()
    expected = scaled_sum(x, change, scale)
    with torch.inference_mode():
        assert torch.equal(scaled_sum(x, change, scale), expected)
    assert torch.equal(x, given)
