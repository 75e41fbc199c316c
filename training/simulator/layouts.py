"""Lay out scenes for training: masks, and the depths that photographs have."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray

Part = tuple[FloatArray, FloatArray]
"""Coverage in [0, 1] and signed radius of the circle of confusion in px, near positive: (S, S)."""

GROUND_SHARE = 0.6
NEAR_SHARE = 0.3
"""Of the scenes, those with a ground, and those with something before the focus plane. What is
before it covers a part of a scene, so about a tenth of the pixels are near."""
_ALL_IN_FOCUS_PX = 0.5


def scene_layout(rng: np.random.Generator, side: int, reach_px: float) -> list[Part]:
    """Sample a scene as photographs show it, from the farthest part to the nearest.

    A background far behind the focus plane, mostly a ground that comes towards the camera,
    subjects of which the first is in focus and the others are at or behind it, and seldom something
    near. About a third of the pixels are in focus and a tenth near of it.

    reach_px: the radius of the blur of what is farthest, and the largest of what is near.
    """
    far_px = -reach_px * float(rng.uniform(0.6, 1.0))
    waves = smooth_field(rng, side, 48) * np.float32(0.05 * reach_px)
    everywhere = np.ones((side, side), np.float32)
    parts = [(everywhere, np.clip(far_px + waves, -reach_px, 0.7 * far_px).astype(np.float32))]
    rows = np.arange(side, dtype=np.float32) + np.float32(0.5)
    ground_px: FloatArray | None = None
    if rng.random() < GROUND_SHARE:
        horizon = float(rng.uniform(0.15, 0.7)) * side
        bottom_px = float(rng.uniform(0.3 * far_px, 0.4 * reach_px))
        # The inverse depth of a plane, and with it the radius, is linear in the picture.
        share = (rows - np.float32(horizon)) / np.float32(side - horizon)
        ground_px = np.asarray(0.7 * far_px + (bottom_px - 0.7 * far_px) * share, np.float32)
        edge = np.clip(rows - horizon + 0.5, 0, 1).astype(np.float32)
        below = np.maximum(ground_px, np.float32(0.7 * far_px))
        parts.append((_across(edge, side), _across(below, side)))
    # Behind the first subject, which is in focus, stand the others.
    middle_px = sorted(rng.uniform(0.8 * far_px, 0.15 * far_px, int(rng.integers(0, 3))).tolist())
    for coc_px in [*middle_px, float(rng.uniform(-_ALL_IN_FOCUS_PX, _ALL_IN_FOCUS_PX))]:
        alpha = _sample_subject(rng, side)
        if ground_px is not None:
            # It stands where the ground is at its depth; the ground before that is nearer.
            base = np.clip((np.float32(coc_px) - ground_px) * 8 + 0.5, 0, 1)
            alpha = alpha * _across(base.astype(np.float32), side)
        relief = smooth_field(rng, side, 64) * np.float32(min(0.3, 0.05 * reach_px))
        parts.append((alpha, np.asarray(coc_px + relief, np.float32)))
    if rng.random() < NEAR_SHARE:
        near_px = np.float32(rng.uniform(0.25, 1.0) * reach_px)
        parts.append((sample_mask(rng, side), np.full((side, side), near_px, np.float32)))
    return parts


def _sample_subject(rng: np.random.Generator, side: int) -> FloatArray:
    """Sample the coverage of something that fills a good part of the picture, or of an occluder."""
    if rng.random() < 0.3:
        return sample_mask(rng, side)
    mask = np.zeros((2 * side, 2 * side), np.uint8)
    centre = (rng.uniform(0.2, 0.8, 2) * 2 * side).astype(int).tolist()
    axes = (rng.uniform(0.12, 0.5, 2) * 2 * side).astype(int).tolist()
    cv2.ellipse(mask, centre, axes, float(rng.uniform(-30, 30)), 0, 360, 255, -1)
    return _coverage(mask)


def _across(column: FloatArray, side: int) -> FloatArray:
    return np.ascontiguousarray(np.broadcast_to(column[:, None], (side, side)), np.float32)


def smooth_field(rng: np.random.Generator, side: int, sigma_px: float) -> FloatArray:
    """Sample a smooth field with a standard deviation of about 1."""
    small = max(2, int(np.ceil(side / sigma_px)) + 1)
    noise = rng.normal(size=(small, small)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def sample_mask(rng: np.random.Generator, side: int) -> FloatArray:
    """Sample an occluder's coverage: blobs, polygons or thin lines, with antialiased edges."""
    fine = 2 * side
    mask = np.zeros((fine, fine), np.uint8)
    kind = rng.random()
    if kind < 0.35:
        field = smooth_field(rng, fine, rng.uniform(40, 160))
        mask[field > rng.uniform(0.2, 1.0)] = 255
    elif kind < 0.7:
        for _ in range(int(rng.integers(1, 4))):
            centre = rng.uniform(0, fine, 2)
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            radii = rng.uniform(0.08, 0.5, angles.size) * fine
            points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
            cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    else:
        for _ in range(int(rng.integers(1, 7))):
            ends = rng.uniform(-0.2 * fine, 1.2 * fine, (2, 2)).astype(int)
            thickness = int(rng.integers(2, 26))
            cv2.line(mask, ends[0].tolist(), ends[1].tolist(), 255, thickness)
    return _coverage(mask)


def _coverage(mask: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the coverage that a mask of twice the size, 0 and 255, gives at half its size."""
    size = (mask.shape[1] // 2, mask.shape[0] // 2)
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)
