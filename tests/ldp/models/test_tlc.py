import pytest
import torch

from ldp.models.tlc import CELLS, local_mean


def test_a_window_as_large_as_the_picture_gives_the_global_mean():
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    means, cell = local_mean(x, 64)
    assert (cell, means.shape[-2:]) == (8, (8, 8))
    torch.testing.assert_close(means, x.mean((2, 3), keepdim=True).expand_as(means))


@pytest.mark.parametrize("window", [3, 8, 20, 32, 100])
def test_a_constant_stays_constant(window):
    means, cell = local_mean(torch.full((1, 2, 45, 61), 0.25), window)
    assert means.shape[-2:] == (-(-45 // cell), -(-61 // cell))
    torch.testing.assert_close(means, torch.full_like(means, 0.25))


@pytest.mark.parametrize("window", [5, 16, 20, 32])
def test_each_value_is_the_mean_over_a_window_of_that_size(window):
    """The window of cell i covers cells i - half to i - half + across, moved in at the border."""
    x = torch.randn(1, 1, 60, 80, dtype=torch.float64)
    means, cell = local_mean(x, window)
    across = window // cell
    assert across * cell > window - cell
    assert across >= min(CELLS, window)
    for i in range(means.shape[-2]):
        for j in range(means.shape[-1]):
            top, left = (
                min(max(0, at - across // 2), count - across) * cell
                for at, count in ((i, means.shape[-2]), (j, means.shape[-1]))
            )
            # As many pixels at the border as elsewhere.
            area = x[..., top : top + across * cell, left : left + across * cell]
            torch.testing.assert_close(means[0, 0, i, j], area.mean())


def test_a_shift_by_whole_cells_shifts_the_means():
    x = torch.randn(1, 2, 96, 96, dtype=torch.float64)
    whole, cell = local_mean(x, 32)
    part, _ = local_mean(x[..., 2 * cell :, 3 * cell :], 32)
    inner = slice(CELLS, -CELLS)
    torch.testing.assert_close(part[..., inner, inner], whole[..., 2:, 3:][..., inner, inner])
