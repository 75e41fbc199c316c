"""How close a restored picture is to the true one. Pictures are (H, W, 3) float64 RGB in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float64]
Distance = Callable[[Picture, Picture], float]


def psnr_db(restored: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, 10 log10(1 / mse); inf if equal."""
    error = float(np.mean((restored - truth) ** 2))
    return -10 * math.log10(error) if error > 0 else math.inf


def mae(restored: Picture, truth: Picture) -> float:
    """Mean absolute error over all pixels and channels."""
    return float(np.mean(np.abs(restored - truth)))


def relative_mse(restored: Picture, truth: Picture, mean_view: Picture) -> float:
    """Share of the mean view's squared error that is left: 0 perfect, 1 as good as no restoring."""
    before = float(np.mean((mean_view - truth) ** 2))
    after = float(np.mean((restored - truth) ** 2))
    if before == 0:
        return 1.0 if after == 0 else math.inf
    return after / before


def exposure_fitted(restored: Picture, truth: Picture) -> Picture:
    """The restored picture, each channel's gain and offset fitted to the truth by least squares.

    The true photo of a real scene is taken at a smaller aperture and has an exposure of its own.
    """
    fitted = np.empty_like(restored)
    for channel in range(restored.shape[2]):
        values = restored[..., channel].ravel()
        columns = np.stack([values, np.ones_like(values)], 1)
        gain, offset = np.linalg.lstsq(columns, truth[..., channel].ravel(), rcond=None)[0]
        fitted[..., channel] = restored[..., channel] * gain + offset
    return fitted


def ssim(restored: Picture, truth: Picture) -> float:
    """Structural similarity (Wang et al. 2004), 7x7 uniform window, mean over the channels."""
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        restored, truth, channel_axis=2, data_range=1.0
    )
    return float(similarity)


def lpips_distance(network: str = "alex") -> Distance | None:
    """LPIPS (Zhang et al., CVPR 2018) by the `lpips` package, or None where it is not installed.

    network: alex, as most papers of the field have it, squeeze or vgg. The package fetches the
    network's weights on first use and lets the OSError out where it cannot.
    """
    try:
        import lpips
    except ImportError:
        return None
    import torch

    perceptual = lpips.LPIPS(net=network, verbose=False)

    def distance(restored: Picture, truth: Picture) -> float:
        planes = (
            torch.from_numpy((picture * 2 - 1).transpose(2, 0, 1)[None].astype(np.float32))
            for picture in (restored, truth)
        )
        with torch.inference_mode():
            return float(perceptual(*planes))

    return distance
