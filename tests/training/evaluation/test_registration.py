import cv2
import numpy as np
import pytest

from training.evaluation.metrics import exposure_fitted, psnr_db
from training.evaluation.registration import Registration, register, registered


@pytest.fixture(scope="module")
def truth():
    noise = np.random.default_rng(0).random((160, 240, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float64)


def moved(truth, right, down, scale):
    """The truth as a camera sees it that moved: its content at the places of Registration."""
    height, width = truth.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    factor = 1 + scale
    matrix = np.array(
        [
            [factor, 0, centre[0] - factor * centre[0] + right],
            [0, factor, centre[1] - factor * centre[1] + down],
        ]
    )
    return cv2.warpAffine(
        truth, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


@pytest.mark.parametrize(
    ("right", "down", "scale"),
    [(0.0, 0.0, 0.0), (0.4, -0.7, 0.0), (3.3, 2.1, 0.004), (-6.0, 1.0, -0.008)],
)
def test_a_known_motion_is_found_whatever_the_exposure(truth, right, down, scale):
    seen = moved(truth, right, down, scale) * 0.8 + 0.05
    found = register(seen, truth)
    assert found.shift_px == pytest.approx((right, down), abs=0.03)
    assert found.scale == pytest.approx(scale, abs=2e-4)
    assert psnr_db(*registered(seen, truth)) > 45


def test_a_picture_that_did_not_move_scores_as_fitted(truth):
    noise = 0.02 * np.random.default_rng(1).standard_normal(truth.shape)
    fitted = psnr_db(exposure_fitted(truth + noise, truth), truth)
    assert psnr_db(*registered(truth + noise, truth)) == pytest.approx(fitted, abs=0.3)


def test_beyond_its_limits_nothing_is_moved(truth):
    assert register(moved(truth, 40, 0, 0), truth) == Registration()
    assert register(np.zeros_like(truth), truth) == Registration()
