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
    rows = np.stack([*(weights * plane for plane in values), weights], axis=1)
    for sweep in range(1, _SWEEPS + 1):
        strength = 1.5 * 4.0 ** (_SWEEPS - sweep) / (4.0**_SWEEPS - 1.0) * reach
        columns = _solve(_turned(rows), across, strength)
        rows = _solve(_turned(columns), down, strength)
    spread = np.ascontiguousarray(rows[:, -1])
    filled: Plane = np.zeros_like(values)
    np.divide(rows[:, :-1].transpose(1, 0, 2), spread, out=filled, where=spread > 1e-12)
    return filled


def _turned(planes: Plane) -> Plane:
    """Return planes of rows as planes of columns and vice versa, (n, p, m) -> (m, p, n)."""
    count, every, length = planes.shape
    turned = np.empty((length, every, count), np.float32)
    for plane in range(every):
        cv2.transpose(planes[:, plane], dst=turned[:, plane])
    return turned


def _ties(guide: Plane, axis: int, edge: float) -> Plane:
    """Return the edge_weight of each pixel and the next one along the axis, in (0, 1]."""
    total = np.zeros((1, 1), np.float32)
    for channel in np.moveaxis(guide, 2, 0):  # NumPy takes several times as long for a short axis
        step = np.diff(channel, axis=axis)
        total = total + step * step
    ties: Plane = np.exp(-np.sqrt(total) / np.float32(edge))
    return ties


def _solve(planes: Plane, ties: Plane, strength: float) -> Plane:
    """Solve (1 + strength * Laplacian) u = planes along the first axis (Thomas algorithm).

    planes: (n, p, m), p planes that share the ties. ties: (n - 1, m). The loop runs over n only.
    """
    off = np.float32(-strength) * ties
    diagonal = np.ones((len(planes), planes.shape[2]), np.float32)
    diagonal[:-1] -= off
    diagonal[1:] -= off
    carried, solved = np.empty_like(off), np.empty_like(planes)
    # A row is so short that looking it up and new memory would take as long as the arithmetic.
    pivot = 1.0 / diagonal[0]
    last = np.multiply(planes[0], pivot, out=solved[0])
    short, row = np.empty_like(pivot), np.empty_like(last)
    parts = zip(off, carried, diagonal[1:], planes[1:], solved[1:], strict=True)
    for tie, share, middle, given, found in parts:
        np.multiply(tie, pivot, out=share)
        np.multiply(tie, share, out=short)
        np.subtract(middle, short, out=short)
        np.reciprocal(short, out=pivot)
        np.multiply(tie, last, out=row)
        np.subtract(given, row, out=row)
        last = np.multiply(row, pivot, out=found)
    for share, found in zip(carried[::-1], solved[-2::-1], strict=True):
        np.multiply(share, last, out=row)
        last = np.subtract(found, row, out=found)
    return solved
