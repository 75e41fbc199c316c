"""Cut a photo with its depth map into surfaces that the renderer puts before each other."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from ldp.types import FloatArray
from training.simulator.filling import extend, fill_unknown
from training.simulator.render import Surface

# One surface spans this much of the circle of confusion's radius: within it the blur varies
# smoothly, and what is behind is seen past its edge.
_LAYER_PX = 1.5
_EDGE_PX = 0.3
_SMOOTH_PX = 2.0

MAX_SLICES = 6
SLICE_SPAN_PX = 2.5


def depth_surfaces(colour: FloatArray, coc_px: FloatArray) -> list[Surface]:
    """Return surfaces from the farthest to the nearest that together show a picture.

    Many thin ones with a smooth radius each, for training scenes. Every surface holds all that is
    at its depth or nearer, since the nearer ones are put before it; where those hide it, its light
    and radius are extended from what is seen of it.

    colour: (H, W, 3) float32 linear light. coc_px: (H, W) float32 signed radius of the circle of
        confusion, near positive, with steps where one thing hides another.
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
        filled = extend(np.dstack([colour, radius]), own)
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


def slice_edges(coc_px: FloatArray) -> tuple[float, ...]:
    """Choose the radii to cut a scene at: a few px apart, each where few pixels lie.

    coc_px: (H, W) signed radius in px. Returns at most MAX_SLICES - 1 radii, ascending.
    """
    lowest, highest = float(coc_px.min()), float(coc_px.max())
    count = min(MAX_SLICES, int((highest - lowest) / SLICE_SPAN_PX) + 1)
    spacing = (highest - lowest) / count
    edges = []
    for index in range(1, count):
        around = lowest + index * spacing + spacing * np.array([-0.3, 0.3])
        filling, places = np.histogram(coc_px, 12, (float(around[0]), float(around[1])))
        emptiest = int(np.argmin(filling))
        edges.append(float(places[emptiest : emptiest + 2].mean()))
    return tuple(edges)


def slice_surfaces(
    colour: FloatArray, coc_px: FloatArray, edges: tuple[float, ...]
) -> list[Surface]:
    """Return one surface for each range of radii, from far to near, for a single picture.

    Few thick ones; behind a nearer surface's edge the farther one is filled in from around.

    colour: (H, W, 3) float32 linear light. coc_px: (H, W) float32 signed radius, near positive.
    """
    surfaces = []
    limits = (-np.inf, *edges, np.inf)
    for low, high in pairwise(limits):
        hidden = cv2.dilate((coc_px >= high).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        planes = [*np.moveaxis(colour, 2, 0), coc_px]
        if hidden.any():
            planes = [fill_unknown(np.where(hidden, np.nan, plane)) for plane in planes]
        alpha = cv2.GaussianBlur((coc_px >= low).astype(np.float32), (0, 0), 0.6)
        coverage = np.asarray(alpha, np.float32)
        surfaces.append(Surface(np.dstack(planes[:3]), coverage, np.maximum(planes[3], low)))
    return surfaces
