"""Fill the unknown parts of a picture from what is known around them.

Both functions are isotropic, unlike ldp.blur.filling, which stops at a guide's edges.
`fill_unknown` also smooths the noise and outliers of measured depth; `extend` fills any distance
and leaves known values alone. Rendered files depend on the bits of both.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray


def fill_unknown(values: FloatArray) -> FloatArray:
    """Replace NaN and infinity by the smoothed values around them, and median-filter the result.

    values: (H, W) float32, any range. What no round reaches becomes 0.
    """
    found = np.where(np.isfinite(values), values, 0).astype(np.float32)
    known = np.isfinite(values).astype(np.float32)
    height, width = values.shape
    for step in (1, 4, 16, 64):
        # Each round reaches four times as far as the last, on a picture that much smaller.
        coarse = (max(1, width // step), max(1, height // step))
        light, share = (
            cv2.resize(
                cv2.GaussianBlur(
                    cv2.resize(plane, coarse, interpolation=cv2.INTER_AREA), (0, 0), 2.0
                ),
                (width, height),
                interpolation=cv2.INTER_LINEAR,
            )
            for plane in (found * known, known)
        )
        grown = (known == 0) & (share > 1e-3)
        found[grown] = light[grown] / share[grown]
        known[grown] = 1
    return np.asarray(cv2.medianBlur(found, 5), np.float32)


def extend(planes: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
    """Replace what is not known by weighted means over ever wider surroundings.

    planes: (H, W, C) float32, any range. known: (H, W). Known values change by about 0.1 %.
    """
    weight = known.astype(np.float32)[..., None]
    found = planes * weight
    total = weight.copy()
    sums, counts = found, weight
    share = np.float32(1e-3)
    while min(sums.shape[:2]) > 1:
        size = (max(1, sums.shape[1] // 2), max(1, sums.shape[0] // 2))
        sums = np.atleast_3d(cv2.resize(sums, size, interpolation=cv2.INTER_AREA))
        counts = np.atleast_3d(cv2.resize(counts, size, interpolation=cv2.INTER_AREA))
        whole = (planes.shape[1], planes.shape[0])
        found = found + share * np.atleast_3d(cv2.resize(sums, whole))
        total = total + share * np.atleast_3d(cv2.resize(counts, whole))
        share *= np.float32(0.1)
    return np.asarray(found / np.maximum(total, np.float32(1e-30)), np.float32)
