"""Fill in what is hidden behind something nearer from what is seen beside it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray, Plane

Mask = npt.NDArray[np.bool_]
"""(h, w)."""
_LEAST_WEIGHT = np.float32(1e-9)


def filled_in(light: FloatArray, weight: Plane) -> FloatArray:
    """Return light (h, w, k), times its weight in [0, 1], filled in from around where that is low.

    By averages over more and more pixels (Gortler et al., "The Lumigraph", 1996).
    """
    if min(weight.shape) < 2:
        return np.asarray(light / np.maximum(weight, _LEAST_WEIGHT)[..., None], np.float32)
    height, width = weight.shape
    half = (max(1, width // 2), max(1, height // 2))
    small_weight = np.asarray(cv2.resize(weight, half, interpolation=cv2.INTER_AREA), np.float32)
    small = cv2.resize(light, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], -1)
    # Four times: where a quarter is known it is enough, or what is far away would show.
    denser = np.minimum(1, 4 * small_weight)
    factor = denser / np.maximum(small_weight, _LEAST_WEIGHT)
    known = np.asarray(small * factor[..., None], np.float32)
    around = cv2.resize(filled_in(known, denser), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(light + (1 - weight)[..., None] * around.reshape(light.shape), np.float32)


def widened(mask: Mask, by_px: float) -> Mask:
    """Return a mask (h, w) that takes in what lies within so many px of it."""
    side = 2 * int(np.ceil(by_px)) + 1
    if side == 1:
        return mask
    share = cv2.boxFilter(
        mask.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_REPLICATE
    )
    return share > 0.5 / side**2
