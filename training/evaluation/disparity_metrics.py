"""Score how a disparity map orders and scales a scene, against a known depth or disparity.

The affine-invariant figures are those of Punnappurath, Abuolaim, Afifi and Brown, "Modeling
Defocus-Disparity in Dual-Pixel Sensors", ICCP 2020: the disparity of a dual-pixel sensor is an
affine function of inverse depth whose two constants depend on lens, aperture and focus, so a map
is judged after the best affine fit to the truth, or by its ranks alone.

Every function takes two arrays of one shape, in any units, and looks only at the elements where
both are finite. It raises ValueError if the shapes differ or fewer than two elements are left.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]

_IRLS_STEPS = 50
_IRLS_FLOOR = 1e-6


def spearman(estimate: Values, truth: Values) -> float:
    """Return the rank correlation in [-1, 1]; ties share their mean rank; 0 for a constant."""
    from scipy.stats import spearmanr

    estimate_flat, truth_flat = _paired(estimate, truth)
    if not np.ptp(estimate_flat) or not np.ptp(truth_flat):
        return 0.0
    return float(spearmanr(estimate_flat, truth_flat).statistic)


def rank_error(estimate: Values, truth: Values) -> float:
    """Return 1 - |Spearman's rho|, in [0, 1], 0 is best (Punnappurath et al. 2020)."""
    return 1.0 - abs(spearman(estimate, truth))


def affine_rmse(estimate: Values, truth: Values) -> float:
    """Return AI(2) of Punnappurath et al. 2020, in units of the truth.

    Root mean square of truth - (a * estimate + b), with a and b by least squares.
    """
    estimate_flat, truth_flat = _paired(estimate, truth)
    residual = _affine_residual(estimate_flat, truth_flat, np.ones_like(truth_flat))
    return float(np.sqrt(np.mean(residual**2)))


def affine_mae(estimate: Values, truth: Values) -> float:
    """Return AI(1) of Punnappurath et al. 2020, in units of the truth.

    Mean of |truth - (a * estimate + b)|, with a and b that make it least, by iteratively
    reweighted least squares.
    """
    estimate_flat, truth_flat = _paired(estimate, truth)
    floor = _IRLS_FLOOR * max(float(np.ptp(truth_flat)), np.finfo(np.float64).tiny)
    weights = np.ones_like(truth_flat)
    best = np.inf
    for _ in range(_IRLS_STEPS):
        residual = np.abs(_affine_residual(estimate_flat, truth_flat, weights))
        mean = float(np.mean(residual))
        if mean > best * (1.0 - 1e-6):
            return min(mean, best)
        best = mean
        weights = 1.0 / np.maximum(residual, floor)
    return best


def share_within(estimate: Values, truth: Values, tolerance_px: float = 1.0) -> float:
    """Return the share of pixels, in [0, 1], whose disparity is at most `tolerance_px` off.

    No affine fit: both are signed disparities in pixels. (One minus the "bad pixel" share of the
    stereo benchmarks, Scharstein and Szeliski 2002.)
    """
    estimate_flat, truth_flat = _paired(estimate, truth)
    return float(np.mean(np.abs(estimate_flat - truth_flat) <= tolerance_px))


def in_focus_accuracy(estimate: Values, truth: Values, limit_px: float = 1.0) -> float:
    """Return the share of pixels, in [0, 1], on which both agree that |disparity| <= `limit_px`."""
    estimate_flat, truth_flat = _paired(estimate, truth)
    return float(np.mean((np.abs(estimate_flat) <= limit_px) == (np.abs(truth_flat) <= limit_px)))


def blur_accuracy(amount: Values, truth: Values, limit_px: float = 1.0) -> float:
    """Return how well a blur amount tells |disparity| <= `limit_px` from more, in [0.5, 1].

    The share of pixels that are right at the threshold which makes it highest, since amounts of
    different estimators, CLIP's among them, have no unit in common.
    """
    amounts, disparities = _paired(amount, truth)
    order = np.argsort(amounts, kind="stable")
    sharp = np.abs(disparities[order]) <= limit_px
    # Called sharp: the first k of the sorted pixels; only between different amounts is a threshold.
    right = np.concatenate([[0], np.cumsum(sharp)]) + np.concatenate(
        [np.cumsum((~sharp)[::-1])[::-1], [0]]
    )
    sorted_amounts = amounts[order]
    between = np.concatenate([[True], sorted_amounts[1:] != sorted_amounts[:-1], [True]])
    return float(right[between].max() / sharp.size)


def _paired(
    estimate: Values, truth: Values
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate is {estimate.shape}, truth {truth.shape}: shapes must agree")
    known = np.isfinite(estimate) & np.isfinite(truth)
    if np.count_nonzero(known) < 2:
        raise ValueError("fewer than two elements where estimate and truth are both finite")
    return estimate[known].astype(np.float64), truth[known].astype(np.float64)


def _affine_residual(
    estimate: npt.NDArray[np.float64],
    truth: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return truth minus its weighted least-squares affine fit by estimate."""
    total = weights.sum()
    estimate_centred = estimate - (weights @ estimate) / total
    truth_centred = truth - (weights @ truth) / total
    spread = weights @ estimate_centred**2
    slope = (weights @ (estimate_centred * truth_centred)) / spread if spread > 0 else 0.0
    residual: npt.NDArray[np.float64] = truth_centred - slope * estimate_centred
    return residual
