import pytest
import torch

from ldp.models.attention import BlurPriorAttention, map_logit, neighbourhood_attention


def by_loops(query, key, value, bias):
    """Neighbourhood attention as it is defined, one position at a time."""
    batch, height, width, _ = query.shape
    kernel = round(bias.shape[-1] ** 0.5)
    reach = kernel // 2
    mixed = torch.zeros_like(value)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                scores, values = [], []
                for index in range(kernel * kernel):
                    at_y, at_x = y + index // kernel - reach, x + index % kernel - reach
                    if 0 <= at_y < height and 0 <= at_x < width:
                        scores.append(query[b, y, x] @ key[b, at_y, at_x] + bias[b, y, x, index])
                        values.append(value[b, at_y, at_x])
                weights = torch.softmax(torch.stack(scores), 0)
                mixed[b, y, x] = weights @ torch.stack(values)
    return mixed


def random_parts(height, width, kernel, seed=0, batch=2, channels=6):
    torch.manual_seed(seed)
    shape = (batch, height, width)
    parts = [torch.randn(*shape, channels, dtype=torch.float64) for _ in range(3)]
    return [*parts, torch.randn(*shape, kernel * kernel, dtype=torch.float64)]


@pytest.mark.parametrize(
    ("height", "width", "kernel"), [(8, 12, 5), (7, 5, 5), (9, 6, 3), (1, 1, 5), (3, 4, 1)]
)
def test_equals_the_definition(height, width, kernel):
    parts = random_parts(height, width, kernel)
    torch.testing.assert_close(
        neighbourhood_attention(*parts), by_loops(*parts), rtol=1e-10, atol=1e-10
    )


def test_gradients_equal_those_of_the_definition():
    parts = [part.requires_grad_() for part in random_parts(5, 6, 3, batch=1, channels=2)]
    towards = torch.randn_like(parts[2])
    found = torch.autograd.grad((neighbourhood_attention(*parts) * towards).sum(), parts)
    expected = torch.autograd.grad((by_loops(*parts) * towards).sum(), parts)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_positions_outside_the_picture_get_no_weight():
    query, key, value, bias = random_parts(6, 6, 5)
    # Were anything outside mixed in, it would pull the result away from the one value there is.
    mixed = neighbourhood_attention(query, key, torch.full_like(value, 3.0), bias)
    torch.testing.assert_close(mixed, torch.full_like(mixed, 3.0))


def test_nothing_reaches_farther_than_the_kernel():
    query, key, value, bias = random_parts(12, 12, 5)
    changed = value.clone()
    changed[:, 6, 6] += 1
    moved = neighbourhood_attention(query, key, changed, bias) != neighbourhood_attention(
        query, key, value, bias
    )
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[4:9, 4:9] = True
    assert torch.equal(moved.any(-1).any(0), expected)


def test_a_compiler_finds_the_same():
    """It does not see that views overlap, so it has a way of its own to spread the bias."""
    parts = random_parts(5, 9, 5)
    compiled = torch.compile(neighbourhood_attention, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*parts), neighbourhood_attention(*parts))


def test_starts_as_the_identity_and_depends_on_the_map_later():
    torch.manual_seed(0)
    block = BlurPriorAttention(8)
    x = torch.randn(1, 8, 8, 8)
    sharp = torch.full((1, 1, 8, 8), -6.0)
    blurred = -sharp
    assert torch.equal(block(x, sharp), x)
    torch.nn.init.ones_(block.scale)
    assert (block(x, sharp) - block(x, blurred)).abs().max() > 1e-3


def test_an_even_neighbourhood_is_refused():
    with pytest.raises(ValueError, match="odd"):
        BlurPriorAttention(8, kernel=4)


def test_map_logit_is_the_inverse_sigmoid_and_clamped():
    amount = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(torch.sigmoid(map_logit(amount)), amount)
    ends = map_logit(torch.tensor([0.0, 1e-9, 1 - 1e-7, 1.0, -0.01, 1.01]))
    assert ends.tolist() == [-6, -6, 6, 6, -6, 6]
