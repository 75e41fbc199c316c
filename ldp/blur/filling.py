"""Edge-aware filling: spread measured values over a picture, but not across its edges."""

from __future__ import annotations

import cv2
import numpy as np

from ldp.types import Plane

_SWEEPS = 3
_FIRST_REACH = 1 / 16


def short_fill(
    values: Plane,
    weights: Plane,
    guide: Plane,
    smooth: Plane,
    *,
    reach: float,
    edge: float,
    least: float,
) -> Plane:
    """Fill one plane, (h, w), over a quarter of the distance that `fill` does, to find its steps.

    smooth: the plane filled over the whole distance; it counts with the weight `least` everywhere.
        Where less is measured a short fill would have steps of its own, or zeros.
    """
    total = weights + np.float32(least)
    joined = (weights * values + np.float32(least) * smooth) / total
    filled: Plane = fill(joined[None], total, guide, _FIRST_REACH * reach, edge)[0]
    return filled


def without_dips(values: Plane, widest: int, least: float) -> Plane:
    """Return (h, w) values without dips narrower than `widest` cells and deeper than `least`."""
    box = cv2.getStructuringElement(cv2.MORPH_RECT, (widest, widest))
    closed = cv2.morphologyEx(values, cv2.MORPH_CLOSE, box)
    return np.asarray(np.where(closed - values > least, closed, values), np.float32)


def with_steps(guide: Plane, values: Plane, edge: float, step: float) -> Plane:
    """Return a guide for `fill` that also has the steps of `values`, (h, w), as edges.

    Not every step of depth has an edge in the picture: without one, `fill` makes a ramp of it, as
    wide as it spreads values, and what is in focus beside it is taken for blurred. So the values
    are filled over a short distance first, and the steps that are left end the second fill.

    edge: as given to `fill`. step: of `values`, as much as `edge` is of the guide.
    """
    return np.concatenate([guide, values[..., None] * np.float32(edge / step)], axis=2)


def fill(values: Plane, weights: Plane, guide: Plane, reach: float, edge: float) -> Plane:
    """Fit smooth planes to `values` where `weights` are high, with breaks at the guide's edges.

    Weighted least squares: sum weights (u - values)^2 + reach * sum edge_weight (u_i - u_j)^2 over
    neighbours, in the separable form of Min et al., "Fast Global Image Smoothing Based on Weighted
    Least Squares", IEEE TIP 2014: tridiagonal systems along rows and columns in turn, for the
    weighted values and the weights, of which the quotient is taken.

    values: (k, h, w) float32, k planes that share the weights.
    weights: (h, w), 0 and more.
    guide: (h, w, c) float32.
    reach: strength of the smoothing; values spread over about its square root in pixels.
    edge: a step of this size between neighbours of the guide weakens their edge_weight to 1/e.

    Returns (k, h, w) float32; 0 where no weight reaches.
    """
    across = np.ascontiguousarray(_ties(guide, axis=1, edge=edge).T)
    down = _ties(guide, axis=0, edge=edge)
    planes = np.concatenate([weights * values, weights[None]])
    for sweep in range(1, _SWEEPS + 1):
        strength = 1.5 * 4.0 ** (_SWEEPS - sweep) / (4.0**_SWEEPS - 1.0) * reach
        columns = np.ascontiguousarray(planes.transpose(2, 0, 1))
        columns = _solve(columns, across, strength)
        rows = np.ascontiguousarray(columns.transpose(2, 1, 0))
        planes = _solve(rows, down, strength).transpose(1, 0, 2)
    spread = np.ascontiguousarray(planes[-1])
    filled: Plane = np.zeros_like(values)
    np.divide(planes[:-1], spread, out=filled, where=spread > 1e-12)
    return filled


def _ties(guide: Plane, axis: int, edge: float) -> Plane:
    """Return the edge_weight of each pixel and the next one along the axis, in (0, 1]."""
    step = np.diff(guide, axis=axis)
    ties: Plane = np.exp(-np.sqrt(np.square(step).sum(axis=2)) / np.float32(edge))
    return ties


def _solve(planes: Plane, ties: Plane, strength: float) -> Plane:
    """Solve (1 + strength * Laplacian) u = planes along the first axis (Thomas algorithm).

    planes: (n, p, m), p planes that share the ties. ties: (n - 1, m). The loop runs over n only.
    """
    count = planes.shape[0]
    off = np.float32(-strength) * ties
    diagonal = np.ones((count, planes.shape[2]), np.float32)
    diagonal[:-1] -= off
    diagonal[1:] -= off
    carried = np.empty_like(off)
    solved = np.empty_like(planes)
    pivot = 1.0 / diagonal[0]
    solved[0] = planes[0] * pivot
    for i in range(1, count):
        carried[i - 1] = off[i - 1] * pivot
        pivot = 1.0 / (diagonal[i] - off[i - 1] * carried[i - 1])
        solved[i] = (planes[i] - off[i - 1] * solved[i - 1]) * pivot
    for i in range(count - 2, -1, -1):
        solved[i] -= carried[i] * solved[i + 1]
    return solved
