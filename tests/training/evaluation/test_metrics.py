import math

import numpy as np
import pytest

from training.evaluation.metrics import (
    exposure_fitted,
    mae,
    psnr_db,
    rmse,
    ssim,
)


@pytest.fixture
def picture():
    return np.random.default_rng(0).random((40, 50, 3))


def test_psnr_of_a_known_error(picture):
    assert psnr_db(picture + 0.1, picture) == pytest.approx(20)
    half = picture.copy()
    half[:20] += 0.1
    assert psnr_db(half, picture) == pytest.approx(20 + 10 * math.log10(2))
    assert psnr_db(picture, picture) == math.inf


def test_fitting_takes_away_each_channels_gain_and_offset_and_nothing_else(picture):
    changed = picture * [0.5, 1.2, 0.8] + [0.1, -0.2, 0.3]
    np.testing.assert_allclose(exposure_fitted(changed, picture), picture, atol=1e-12)
    noisy = picture + 0.1 * np.random.default_rng(1).standard_normal(picture.shape)
    assert 20 < psnr_db(exposure_fitted(noisy, picture), picture) < 21


def test_ssim_is_one_for_the_same_picture_and_falls_with_noise(picture):
    noise = np.random.default_rng(1).standard_normal(picture.shape)
    assert ssim(picture, picture) == pytest.approx(1)
    assert 0.2 < ssim(picture + 0.3 * noise, picture) < ssim(picture + 0.1 * noise, picture) < 0.99


def test_mean_absolute_error_of_a_known_error(picture):
    half = picture.copy()
    half[:20] -= 0.1
    assert mae(half, picture) == pytest.approx(0.05)


def test_rmse_is_the_root_and_agrees_with_psnr(picture):
    assert rmse(picture + 0.1, picture) == pytest.approx(0.1)
    half = picture.copy()
    half[:20] += 0.2
    assert rmse(half, picture) == pytest.approx(10 ** (-psnr_db(half, picture) / 20))
    assert rmse(picture, picture) == 0
