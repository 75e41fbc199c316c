import itertools

import numpy as np
import pytest
import torch

from ldp.srgb import decode_srgb, encode_srgb
from training.simulator.camera import (
    CameraSample,
    LinearCrops,
    in_few_colours,
    mosaicked,
    sample_camera,
    simulate_camera,
)

CPU = torch.device("cpu")
CURVES = list(itertools.product((0.85, 1.0, 1.15), (0.0, 0.5)))
PLAIN = CameraSample(
    gain=1, shading=0, shot=0, read=0, mosaic=0, levels=2**14, gamma=1, contrast=0, colours=0
)


def crops(planes, *samples, seeds=None):
    """The same planes, (10, S, S), for every camera."""
    rows = torch.tensor(samples, dtype=torch.float64)
    seeds = torch.arange(len(samples)) + 5 if seeds is None else torch.tensor(seeds)
    planes = torch.from_numpy(planes.astype(np.float16))
    return LinearCrops(planes.expand(len(samples), *planes.shape), rows, seeds)


def flat(level, side=64):
    return np.full((10, side, side), level, np.float32)


def gradient(side=64):
    """Light from below black to above white, and a blur map of the same."""
    return np.broadcast_to(np.linspace(-0.1, 1.2, side, dtype=np.float32), (10, side, side))


def linear(encoded):
    return decode_srgb(np.ascontiguousarray(encoded.numpy()))


def test_a_plain_camera_encodes_and_clips_and_leaves_the_map_alone():
    views, amount, sharp = simulate_camera(crops(gradient(), PLAIN), CPU)
    half = gradient().astype(np.float16).astype(np.float32)
    expected = encode_srgb(np.ascontiguousarray(np.clip(half[:9], 0, 1)))
    np.testing.assert_allclose(sharp[0], expected[6:], atol=1e-5)
    # One step of 14 bits is at most 12.92 of them after encoding.
    np.testing.assert_allclose(views[0], expected[:6], atol=12.92 / 2**14)
    np.testing.assert_array_equal(amount[0], half[9:])


def test_shading_is_opposite_in_the_views_so_that_their_mean_is_the_composite():
    sample = PLAIN._replace(shading=0.04, gain=0.8)
    views, _, sharp = simulate_camera(crops(flat(0.5), sample), CPU)
    left, right, composite = (linear(x[0]) for x in (views[:, :3], views[:, 3:], sharp))
    np.testing.assert_allclose((left + right) / 2, composite, atol=1e-4)
    np.testing.assert_allclose(composite, 0.4, atol=1e-4)
    np.testing.assert_allclose(left[..., 0], 0.4 * 0.96, atol=1e-4)
    np.testing.assert_allclose(left[..., -1], 0.4 * 1.04, atol=1e-4)
    np.testing.assert_allclose(right, left[..., ::-1], atol=1e-4)


@pytest.mark.parametrize(("shot", "read"), [(1e-3, 1e-4), (1e-5, 5e-3), (5e-4, 3e-3)])
def test_noise_has_a_photodiodes_variance_is_each_ones_own_and_spares_the_truth(shot, read):
    level = 0.25
    sample = PLAIN._replace(shot=shot, read=read)
    views, _, sharp = simulate_camera(crops(flat(level, 128), sample), CPU)
    noise = linear(views[0]) - level
    assert np.var(noise) == pytest.approx(shot * level + read**2, rel=0.05)
    assert abs(noise.mean()) < 0.1 * noise.std()
    correlations = np.corrcoef(noise.reshape(6, -1)) - np.eye(6)
    assert np.abs(correlations).max() < 0.05
    np.testing.assert_allclose(linear(sharp[0]), level, atol=1e-5)


def test_a_photodiode_has_so_many_levels():
    views, _, _ = simulate_camera(crops(gradient(256), PLAIN._replace(levels=100.0)), CPU)
    steps = linear(views[0]) * 100
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert len(np.unique(np.round(steps))) == 101


@pytest.mark.parametrize(("gamma", "contrast"), CURVES)
def test_the_curve_rises_from_black_to_white(gamma, contrast):
    sample = PLAIN._replace(gamma=gamma, contrast=contrast)
    _, _, sharp = simulate_camera(crops(gradient(), sample), CPU)
    row = sharp[0, 0, 0]
    assert row[0] == 0
    assert row[-1] == pytest.approx(1)
    inside = gradient()[0, 0]
    inside = (inside > 0.01) & (inside < 0.99)
    assert torch.all(row[1:][inside[1:]] > row[:-1][inside[1:]])
    # Contrast is taken from the ends and given to the middle.
    uncontrasted = PLAIN._replace(gamma=gamma)
    plain = simulate_camera(crops(gradient(), uncontrasted), CPU)[2][0, 0, 0]
    dark, bright = (plain > 0.05) & (plain < 0.45), (plain > 0.55) & (plain < 0.95)
    assert torch.all(row[dark] < plain[dark]) == bool(contrast)
    assert torch.all(row[bright] > plain[bright]) == bool(contrast)


def test_a_crops_noise_depends_on_its_seed_alone():
    samples = [
        PLAIN._replace(read=0.01, colours=64),
        PLAIN._replace(shot=1e-3, read=1e-3, mosaic=2),
        PLAIN._replace(read=0.01, colours=64),
    ]
    planes = np.random.default_rng(0).random((10, 32, 32))
    together = simulate_camera(crops(planes, *samples, seeds=[3, 4, 5]), CPU)
    for index, seed in enumerate((3, 4, 5)):
        alone = simulate_camera(crops(planes, samples[index], seeds=[seed]), CPU)
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one[index], other[0])
    assert not torch.equal(together[0][0], together[0][2])


@pytest.mark.parametrize("phase", [1, 2, 3, 4])
def test_a_mosaic_keeps_what_is_even_and_smooths_noise(phase):
    constant = torch.rand(6, 1, 1).expand(6, 16, 16)
    torch.testing.assert_close(mosaicked(constant, phase), constant)
    # A pixel's own colour is as measured, and the others are not.
    noise = torch.randn(6, 128, 128, generator=torch.Generator().manual_seed(0))
    smooth = mosaicked(noise, phase)
    kept = (smooth == noise).float().mean((1, 2))
    torch.testing.assert_close(kept, torch.tensor([0.25, 0.5, 0.25] * 2))
    # Each pixel has one measured colour: red, green or blue.
    assert torch.all((smooth == noise)[:3].sum(0) == 1)
    for plane, share in zip(smooth, (9 / 16, 5 / 8, 9 / 16) * 2, strict=True):
        assert plane.var().item() == pytest.approx(share, rel=0.1)
        assert np.corrcoef(plane[:, 1:].ravel(), plane[:, :-1].ravel())[0, 1] > 0.2


def test_few_colours_are_the_views_own_and_near():
    corners = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    view = torch.nn.functional.interpolate(0.2 + corners / 4, (64, 64), mode="bilinear")[0]
    for colours, least_db in ((256, 40), (64, 34)):
        found = in_few_colours(view, colours, torch.Generator().manual_seed(0))
        assert found.shape == view.shape
        used = set(map(tuple, found.reshape(3, -1).T.tolist()))
        assert len(used) <= colours
        assert used <= set(map(tuple, view.reshape(3, -1).T.tolist()))
        assert -10 * torch.log10(((found - view) ** 2).mean()) > least_db


def test_cameras_keep_to_their_spans_and_shares():
    rng = np.random.default_rng(0)
    samples = [sample_camera(rng, mosaic_share=0.5) for _ in range(2000)]
    spans = {
        "gain": (0.6, 1.25),
        "shading": (-0.04, 0.04),
        "levels": (2**12, 2**14),
        "gamma": (0.85, 1.15),
        "contrast": (0.0, 0.5),
    }
    noisy = [sample for sample in samples if sample.read]
    for name, (least, most) in spans.items():
        found = [getattr(sample, name) for sample in samples]
        assert least <= min(found) < least + 0.05 * (most - least)
        assert most - 0.05 * (most - least) < max(found) <= most
    for name, (least, most) in {"shot": (-5.0, -2.9), "read": (-4.0, -2.5)}.items():
        powers = np.log10([getattr(sample, name) for sample in noisy])
        assert least <= powers.min() < least + 0.1
        assert most - 0.1 < powers.max() <= most
    coloured = [sample.colours for sample in samples if sample.colours]
    assert 64 <= min(coloured) < 80 < 230 < max(coloured) <= 256
    assert len(noisy) / len(samples) == pytest.approx(0.8, abs=0.04)
    assert len(coloured) / len(samples) == pytest.approx(0.3, abs=0.04)
    assert {sample.mosaic for sample in noisy} == {0, 1, 2, 3, 4}
    mosaics = sum(sample.mosaic > 0 for sample in noisy) / len(noisy)
    assert mosaics == pytest.approx(0.5, abs=0.05)
    assert not any(sample_camera(rng, noise=False, mosaic_share=1.0).read for _ in range(20))
