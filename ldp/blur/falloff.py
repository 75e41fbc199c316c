"""The falloff of the disparity across the frame, and what the blur's shape says about disparity.

Towards the frame's left and right edges the same blur shifts the views less: by an amount that
depends on lens, aperture and sensor. The radius of the blur, told from its shape, does not depend
on it, so the ratio of the two tells the falloff of the photo at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldp.types import Plane

Values = npt.NDArray[np.float32]

_POWER = 1.5
_CANDIDATES = np.arange(0.0, 0.81, 0.05, dtype=np.float32)
# A falloff has to lower the error by this share of it per unit, so that chance finds none.
_PRICE = 0.1
# A smaller one cannot be told from none.
_LEAST_FALLOFF = 0.15
# Pixels with at least this radius and these confidences are compared, at most so many of them.
_LEAST_RADIUS_PX = 1.0
_LEAST_CONFIDENCE = 0.1
_SAMPLES = 20_000
_LEAST_SAMPLES = 500
_LEAST_IN_CLASS = 50
# Bounds of disparity over radius; those of real cameras lie between.
_RATIOS = (0.05, 1.0)
# Mean error of the agreement, as a share of the mean disparity, from which the shape is ignored.
_NO_AGREEMENT = 0.6


@dataclass(frozen=True)
class Agreement:
    """How disparity and radius go together in one photo.

    falloff: the share of the disparity that is lost at the left and right edge: 0, or 0.15 to 0.8.
    ratio: of disparity to radius in the middle of the frame.
    trust: 0 to 1, how closely the disparity follows ratio, radius and falloff.
    """

    falloff: float
    ratio: float
    trust: float


def gain_across(width: int, falloff: float) -> Plane:
    """Return the disparity of each column as a share of that in the middle, (width,)."""
    x = (np.arange(width, dtype=np.float32) + 0.5) * (2.0 / width) - 1.0
    return np.asarray(1.0 - falloff * np.abs(x) ** _POWER, np.float32)


def evening(width: int, falloff: float) -> Plane:
    """Return the factor of each column, (width,), that undoes the falloff; mean gain 1."""
    gain = gain_across(width, falloff)
    return np.asarray(gain.mean() / gain, np.float32)


def agreement(
    disparity_px: Plane, confidence: Plane, radius_px: Plane, radius_confidence: Plane
) -> Agreement | None:
    """Compare planes of (h, w), in pixels of one size; None where too little can be compared.

    Only radii of half an octave and one side are compared with each other: the radius may be biased
    for weak and strong blur, and a scene often has one in the middle and the other around it.
    """
    width = disparity_px.shape[1]
    compared = np.flatnonzero(
        (np.abs(radius_px) > _LEAST_RADIUS_PX)
        & (confidence > _LEAST_CONFIDENCE)
        & (radius_confidence > _LEAST_CONFIDENCE)
    )
    if len(compared) < _LEAST_SAMPLES:
        return None
    compared = compared[:: -(-len(compared) // _SAMPLES)]
    disparity, radius = disparity_px.flat[compared], radius_px.flat[compared]
    weight = confidence.flat[compared] * radius_confidence.flat[compared]
    column = compared % width
    half_octave = np.rint(2 * np.log2(np.abs(radius))).astype(np.intp)
    kinds = 2 * half_octave + (radius > 0)
    classes = [
        each
        for each in (np.flatnonzero(kinds == kind) for kind in np.unique(kinds))
        if len(each) >= _LEAST_IN_CLASS
    ]

    def expected(falloff: float) -> Values:
        return np.asarray(radius * gain_across(width, falloff)[column], np.float32)

    def error(falloff: float) -> float:
        of_radius = expected(falloff)
        return sum(_error(disparity[each], of_radius[each], weight[each])[1] for each in classes)

    errors = np.array([error(float(falloff)) for falloff in _CANDIDATES])
    if not classes or not errors[0]:
        return None
    falloff = float(_CANDIDATES[np.argmin(errors / errors[0] + _PRICE * _CANDIDATES)])
    if falloff < _LEAST_FALLOFF:
        falloff = 0.0
    ratio, left_over = _error(disparity, expected(falloff), weight)
    share = left_over / max(float((weight * np.abs(disparity)).sum()), 1e-6)
    return Agreement(falloff, ratio, max(0.0, 1.0 - share / _NO_AGREEMENT))


def _error(disparity: Values, of_radius: Values, weight: Values) -> tuple[float, float]:
    """Return the ratio of least weighted absolute error, and that error."""
    median = weighted_median(disparity / of_radius, weight * np.abs(of_radius))
    ratio = min(max(median, _RATIOS[0]), _RATIOS[1])
    return ratio, float((weight * np.abs(disparity - ratio * of_radius)).sum())


def weighted_median(values: Values, weights: npt.NDArray[np.floating]) -> float:
    """Return the value up to which half of the weights lie; (n,) each.

    The weights are summed in their own type.
    """
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(passed, passed[-1] / 2)]])
