"""Score a restored picture against the true one. Pictures are (H, W, 3) float64 RGB, white at 1."""

from __future__ import annotations

import math

import numpy as np

from training.pictures import Float64Picture


def psnr_db(restored: Float64Picture, truth: Float64Picture) -> float:
    """Return 10 log10(1 / MSE) over all pixels and channels in dB; inf if equal."""
    error = float(np.mean((restored - truth) ** 2))
    return -10 * math.log10(error) if error > 0 else math.inf


def mae(restored: Float64Picture, truth: Float64Picture) -> float:
    """Return the mean absolute error over all pixels and channels."""
    return float(np.mean(np.abs(restored - truth)))


def rmse(restored: Float64Picture, truth: Float64Picture) -> float:
    """Return the root of the mean squared error, 10^(-PSNR / 20); papers call it MSE_rel."""
    return math.sqrt(float(np.mean((restored - truth) ** 2)))


def exposure_fitted(restored: Float64Picture, truth: Float64Picture) -> Float64Picture:
    """Fit each channel's gain and offset of the restored picture to the truth by least squares.

    The true photo of a real scene is taken at a smaller aperture and has an exposure of its own.
    """
    fitted = np.empty_like(restored)
    for channel in range(restored.shape[2]):
        values = restored[..., channel].ravel()
        columns = np.stack([values, np.ones_like(values)], 1)
        gain, offset = np.linalg.lstsq(columns, truth[..., channel].ravel(), rcond=None)[0]
        fitted[..., channel] = restored[..., channel] * gain + offset
    return fitted


def ssim(restored: Float64Picture, truth: Float64Picture) -> float:
    """Return the structural similarity (Wang et al. 2004), 7x7 uniform window, channels' mean."""
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        restored, truth, channel_axis=2, data_range=1.0
    )
    return float(similarity)
