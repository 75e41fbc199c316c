"""Register a restored picture to the true photo: sub-pixel translation and scale.

The camera moves and the lens breathes between the two exposures of a real scene, and a shift of a
fraction of a pixel costs more PSNR than many a network gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.evaluation.metrics import exposure_fitted
from training.pictures import Float64Picture

MAX_SHIFT_PX = 8.0
MAX_SCALE = 0.02
"""Beyond these the fit has followed something else than the camera, and is not used."""

_LEVELS = (4, 2, 1)
_STEPS = 12
_Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Registration:
    """A truth's pixel x is in the restored picture at centre + (1 + scale)(x - centre) + shift.

    shift_px: (right, down).
    """

    shift_px: tuple[float, float] = (0.0, 0.0)
    scale: float = 0.0


def register(restored: Float64Picture, truth: Float64Picture) -> Registration:
    """Fit shift and scale, and with them one gain and offset, by Gauss-Newton from coarse to fine.

    restored, truth: (H, W, 3), white at 1, of one size. Returns no motion where the fit leaves the
    limits or does not lower the error.
    """
    found = Registration()
    grey = [
        np.asarray(cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY), np.float32)
        for picture in (restored, truth)
    ]
    for level in _LEVELS:
        if min(grey[0].shape) < 32 * level:
            continue
        size = (grey[0].shape[1] // level, grey[0].shape[0] // level)
        small = [
            np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
            for plane in grey
        ]
        found = _fitted(small[0], small[1], found, level)
    still = _error(grey[0], grey[1], Registration())
    moved = max(map(abs, found.shift_px)) > MAX_SHIFT_PX or abs(found.scale) > MAX_SCALE
    return Registration() if moved or _error(grey[0], grey[1], found) >= still else found


def registered(
    restored: Float64Picture, truth: Float64Picture
) -> tuple[Float64Picture, Float64Picture]:
    """Return both pictures registered, without the border that has no counterpart.

    The exposure of the result is fitted to the truth, as metrics.exposure_fitted does.
    """
    found = register(restored, truth)
    moved = np.dstack(
        [_warped(restored[..., channel].astype(np.float32), found) for channel in range(3)]
    )
    height, width = truth.shape[:2]
    reach = abs(found.scale) * max(height, width) / 2 + max(map(abs, found.shift_px))
    margin = int(np.ceil(reach)) + 2
    inside = (slice(margin, height - margin), slice(margin, width - margin))
    seen, wanted = moved[inside].astype(np.float64), truth[inside]
    return exposure_fitted(seen, wanted), wanted


def _fitted(restored: _Plane, truth: _Plane, start: Registration, level: int) -> Registration:
    """Refine a registration on a level of the pyramid; shifts are in px of the whole picture."""
    height, width = truth.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    from_centre = x - (width - 1) / 2, y - (height - 1) / 2
    right, down = (shift / level for shift in start.shift_px)
    scale = start.scale
    border = slice(4, -4)
    wanted = truth[border, border].ravel().astype(np.float64)
    for _ in range(_STEPS):
        seen = _warped(restored, Registration((right, down), scale)).astype(np.float64)
        along, across = np.gradient(seen, axis=1), np.gradient(seen, axis=0)
        radial = along * from_centre[0] + across * from_centre[1]
        planes = (along, across, radial, seen, np.ones_like(seen))
        columns = np.stack([plane[border, border].ravel() for plane in planes], 1)
        normal = columns.T @ columns
        solved = np.linalg.lstsq(normal, columns.T @ wanted, rcond=None)[0]
        gain = solved[3] if abs(solved[3]) > 1e-6 else 1.0
        right, down, scale = (
            value + step / gain
            for value, step in zip((right, down, scale), solved[:3], strict=True)
        )
        if np.abs(solved[:2] / gain).max() < 1e-4:
            break
    return Registration((right * level, down * level), scale)


def _warped(plane: _Plane, found: Registration) -> _Plane:
    height, width = plane.shape
    scale = 1 + found.scale
    centre = ((width - 1) / 2, (height - 1) / 2)
    offset = [c - scale * c + s for c, s in zip(centre, found.shift_px, strict=True)]
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        plane, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, np.float32)


def _error(restored: _Plane, truth: _Plane, found: Registration) -> float:
    """Return the mean squared error after gain and offset, over the part that both show."""
    inside = slice(int(MAX_SHIFT_PX) + 2, -int(MAX_SHIFT_PX) - 2)
    if min(truth.shape) <= 4 * (MAX_SHIFT_PX + 2):
        inside = slice(2, -2)
    seen = _warped(restored, found)[inside, inside].astype(np.float64)[..., None]
    wanted = truth[inside, inside].astype(np.float64)[..., None]
    return float(np.mean((exposure_fitted(seen, wanted) - wanted) ** 2))
