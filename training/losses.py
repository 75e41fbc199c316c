"""The terms of the training loss, each a function of its own, and their total.

Yang et al., "LDP: Language-driven Dual-Pixel Image Defocus Deblurring Network", CVPR 2024, Eq. 11
to 14. restored, sharp: (B, 3, H, W), views: (B, 6, H, W) left RGB then right RGB, amount:
(B, 1, H, W) blur map in [0, 1]; all sRGB-encoded with white at 1. Every term is a mean, so that
weights do not depend on the size of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ldp.models.network import mean_view

LEAST_BLUR_ERROR = 1e-4
"""Guards Eq. 12, which divides by 0 where the views' mean is already right: below this mean squared
error over RGB (2.55 of 255 levels) the denominator is this. At or above it, Eq. 12 is exact."""

BlurAwareMap = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) in [0, 1] to their unnormalised blur map (B, h, w), with gradients to the
pictures: blur_aware_map of ldp.blur.clip_dense.ClipEstimator, or blur_aware_logits."""


@dataclass(frozen=True)
class LossWeights:
    """charbonnier_eps, per_pixel: of charbonnier(). The weights of the two other terms, 0 for none.

    The paper's second stage has 1e-4, 0.1 and 0.2, and the first term per pixel.
    """

    charbonnier_eps: float
    blur_aware: float
    blur_weighting: float
    per_pixel: bool = False


def charbonnier(
    restored: Tensor, sharp: Tensor, eps: float = 1e-4, *, per_pixel: bool = False
) -> Tensor:
    """Return the mean of sqrt(d^2 + eps^2) (Charbonnier et al. 1994).

    per_pixel: d^2 is summed over a pixel's three colours, as in Eq. 11, which gives 1 to 1.7 times
        the value and as much less weight to the other terms; else each colour counts for itself.
    """
    squares = (restored - sharp) ** 2
    if per_pixel:
        squares = squares.sum(1)
    return torch.sqrt(squares + eps * eps).mean()


def blur_weighting(restored: Tensor, sharp: Tensor, views: Tensor, amount: Tensor) -> Tensor:
    """Return the squared error over that of the views' mean, weighted with the blur map (Eq. 12).

    The squared distances are taken over the three colours of a pixel; see LEAST_BLUR_ERROR.
    """
    blurred = mean_view(views)
    error = (restored - sharp).square().mean(1, keepdim=True)
    error_before = (blurred - sharp).square().mean(1, keepdim=True)
    return (error / error_before.clamp_min(LEAST_BLUR_ERROR) * amount).mean()


def blur_aware(restored: Tensor, blur_aware_map: BlurAwareMap) -> Tensor:
    """Return the mean of CLIP's unnormalised blur map of the restored picture (Eq. 13).

    CLIP sees the picture clipped to [0, 1], as the pictures that it knows are.
    """
    return blur_aware_map(restored.clamp(0, 1)).mean()


class Terms(NamedTuple):
    """The loss and the terms in it, unweighted scalars; None for one that is left out.

    The first two after Charbonnier's are LDP's, the others ViTDeblur's (training.objectives).
    """

    loss: Tensor
    charbonnier: Tensor
    blur_weighting: Tensor | None = None
    blur_aware: Tensor | None = None
    token_distance: Tensor | None = None
    sharpness: Tensor | None = None


def total(
    restored: Tensor,
    sharp: Tensor,
    views: Tensor,
    amount: Tensor,
    weights: LossWeights,
    blur_aware_map: BlurAwareMap | None = None,
) -> Terms:
    """Return the weighted sum (Eq. 14) with its terms.

    Raises ValueError if the blur-aware term has a weight, but no CLIP is given.
    """
    first = loss = charbonnier(
        restored, sharp, weights.charbonnier_eps, per_pixel=weights.per_pixel
    )
    weighting = aware = None
    if weights.blur_weighting:
        weighting = blur_weighting(restored, sharp, views, amount)
        loss = loss + weights.blur_weighting * weighting
    if weights.blur_aware:
        if blur_aware_map is None:
            raise ValueError("the blur-aware loss has a weight, but no CLIP was given")
        aware = blur_aware(restored, blur_aware_map)
        loss = loss + weights.blur_aware * aware
    return Terms(loss, first, weighting, aware)
