"""The camera of a network of one view: the composite of a rendered pair."""

import numpy as np
import pytest
import torch

from tests.training.simulator.test_camera import CPU, PLAIN, crops, flat, gradient, linear
from training.simulator.camera import sample_camera
from training.simulator.composite import noise_level, simulate_composite, through_jpeg

NOISY = PLAIN._replace(shot=1e-3, read=1e-3)


def test_without_noise_a_composite_is_the_mean_of_the_views_light():
    planes = np.array(gradient())
    planes[:3] *= 0.5
    composite, level, sharp = simulate_composite(crops(planes, PLAIN), CPU)
    light = planes.astype(np.float16).astype(np.float32)
    expected = np.clip((light[:3] + light[3:6]) / 2, 0, 1)
    np.testing.assert_allclose(linear(composite[0]), expected, atol=2 / 2**14)
    np.testing.assert_allclose(linear(sharp[0]), np.clip(light[6:9], 0, 1), atol=1e-4)
    assert level.shape == (1, 1, 64, 64)
    assert float(level.max()) < 1e-4


def test_the_level_is_that_of_the_noise_that_is_in_the_picture():
    many = 20
    composite, level, _ = simulate_composite(crops(flat(0.3, 96), *[NOISY] * many), CPU)
    clean, _, _ = simulate_composite(crops(flat(0.3, 96), PLAIN), CPU)
    deviation = float((composite - clean)[:, 1].std())
    assert float(level[:, 0, 0, 0].median()) == pytest.approx(deviation, rel=0.15)
    assert float(level[:, 0, 0, 0].std()) > 0.1 * deviation  # it has an error of its own
    assert (level == level[..., :1, :1]).all()


def test_a_composite_has_less_noise_than_a_view_of_the_same_photodiodes():
    light = 0.3
    composite, _, _ = simulate_composite(crops(flat(light, 96), NOISY), CPU)
    expected = np.sqrt((light * NOISY.shot + NOISY.read**2) / 2)
    assert float(np.std(linear(composite[0, 1]))) == pytest.approx(expected, rel=0.05)


def test_a_crops_composite_follows_from_its_seed_alone():
    rng = np.random.default_rng(0)
    samples = [sample_camera(rng, mosaic_share=0.5, jpeg_share=0.5) for _ in range(6)]
    planes = gradient(32)
    together = simulate_composite(crops(planes, *samples, seeds=range(6)), CPU)
    for index, sample in enumerate(samples):
        alone = simulate_composite(crops(planes, sample, seeds=[index]), CPU)
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part[0], whole[index])


def test_white_noise_has_the_level_of_its_deviation_and_smoothed_noise_a_lower_one():
    noise = torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0))
    noise[1] = torch.nn.functional.avg_pool2d(noise[1][None], 3, 1, 1)[0] * 3
    white, smoothed = noise_level(noise * 0.02).tolist()
    assert white == pytest.approx(0.02, rel=0.05)
    assert smoothed < 0.4 * white


def test_a_jpeg_of_lower_quality_is_farther_from_the_picture():
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.avg_pool2d(picture, 5, 1, 2)
    errors = [float((through_jpeg(picture, q) - picture).abs().mean()) for q in (98, 85, 50)]
    assert errors == sorted(errors)
    assert errors[0] < 0.02


def test_stronger_noise_and_jpegs_are_drawn_only_where_a_recipe_asks():
    def drawn(**options):
        rng = np.random.default_rng(0)
        return [sample_camera(rng, **options) for _ in range(500)]

    assert not any(sample.jpeg_quality for sample in drawn())
    share = np.mean([sample.jpeg_quality > 0 for sample in drawn(jpeg_share=0.3)])
    assert share == pytest.approx(0.3, abs=0.06)
    plain, strong = (max(s.shot for s in drawn(noise_stops=stops)) for stops in (0, 2))
    assert plain < 10**-2.9 < strong < 4 * 10**-2.9
