"""A photograph with its depth map as surfaces that a lens can be pointed at."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from training.simulator.optics import Array
from training.simulator.render import Surface

# One surface spans this much of the circle of confusion's radius: within it the blur varies
# smoothly, and what is behind is seen past its edge.
_LAYER_PX = 1.5
_EDGE_PX = 0.3
_SMOOTH_PX = 2.0


def depth_surfaces(colour: Array, coc_px: Array) -> list[Surface]:
    """Surfaces from the farthest to the nearest that together show a picture.

    colour: (H, W, 3) linear light. coc_px: (H, W) signed radius of the circle of confusion, near
    positive, with steps where one thing hides another. Every surface holds all that is at its depth
    or nearer, since the nearer ones are put before it; where those hide it, its light and radius go
    on from what is seen of it.
    """
    lowest, highest = float(coc_px.min()), float(coc_px.max())
    count = max(1, int(np.ceil((highest - lowest) / _LAYER_PX)))
    bounds = np.linspace(lowest, highest, count + 1, dtype=np.float32)
    surfaces = []
    for index, (farthest, nearest) in enumerate(pairwise(bounds)):
        alpha = np.ones_like(coc_px)
        if index:
            alpha = np.clip((coc_px - farthest) / np.float32(_EDGE_PX) + 0.5, 0, 1)
        own = (coc_px >= farthest) & (coc_px <= nearest)
        if not own.any():
            continue
        radius = np.clip(coc_px, farthest, nearest)
        filled = _continued(np.dstack([colour, radius]), own)
        # Where the next surface hides this one wholly; what is farther is outside its mask.
        behind = (coc_px > nearest + _EDGE_PX)[..., None]
        light = np.where(behind, filled[..., :3], colour)
        smooth = cv2.GaussianBlur(
            np.where(own, radius, filled[..., 3]).astype(np.float32), (0, 0), _SMOOTH_PX
        )
        surfaces.append(
            Surface(
                np.ascontiguousarray(light, np.float32),
                np.asarray(alpha, np.float32),
                np.asarray(smooth, np.float32),
            )
        )
    return surfaces


def _continued(planes: Array, known: npt.NDArray[np.bool_]) -> Array:
    """Planes, (H, W, C), with what is not known taken from ever wider surroundings."""
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
