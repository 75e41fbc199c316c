"""Score a restored picture against the true one. Pictures are (H, W, 3) float64 RGB, white at 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from training.pictures import Float64Picture

Distance = Callable[[Float64Picture, Float64Picture], float]


def psnr_db(restored: Float64Picture, truth: Float64Picture) -> float:
    """Return 10 log10(1 / MSE) over all pixels and channels in dB; inf if equal."""
    error = float(np.mean((restored - truth) ** 2))
    return -10 * math.log10(error) if error > 0 else math.inf


def mae(restored: Float64Picture, truth: Float64Picture) -> float:
    """Return the mean absolute error over all pixels and channels."""
    return float(np.mean(np.abs(restored - truth)))


def relative_mse(
    restored: Float64Picture, truth: Float64Picture, mean_view: Float64Picture
) -> float:
    """Return the share of the mean view's squared error that is left: 0 perfect, 1 unrestored."""
    before = float(np.mean((mean_view - truth) ** 2))
    after = float(np.mean((restored - truth) ** 2))
    if before == 0:
        return 1.0 if after == 0 else math.inf
    return after / before


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


def lpips_distance(network: str = "alex") -> Distance | None:
    """Return LPIPS (Zhang et al., CVPR 2018) by the package `lpips`, None without it.

    network: alex, as most papers of the field have it, squeeze or vgg. The package downloads
    the network's weights on first use and raises OSError where it cannot.
    """
    try:
        import lpips
    except ImportError:
        return None
    import torch

    perceptual = lpips.LPIPS(net=network, verbose=False)

    def distance(restored: Float64Picture, truth: Float64Picture) -> float:
        planes = (
            torch.from_numpy((picture * 2 - 1).transpose(2, 0, 1)[None].astype(np.float32))
            for picture in (restored, truth)
        )
        with torch.inference_mode():
            return float(perceptual(*planes))

    return distance
