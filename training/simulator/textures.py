"""Draw textures that photographs seldom fill a picture with: pebbles, stones, threads, noise.

Depth is hardest to tell where everything has edges and the same brightness.
"""

from __future__ import annotations

import cv2
import numpy as np

from ldp.types import FloatArray
from training.simulator.layouts import smooth_field


def drawn_texture(rng: np.random.Generator, side: int) -> FloatArray:
    """Draw a texture, (side, side, 3) linear light in [0, 1]."""
    draw = (_noise, _pebbles, _stones, _threads)[int(rng.integers(4))]
    plane = cv2.GaussianBlur(draw(rng, side), (0, 0), 0.6)
    plane = (plane - plane.mean()) / (plane.std() + 1e-6)
    light = np.exp(plane * rng.uniform(0.1, 0.6)) * rng.uniform(0.05, 0.4)
    tint = rng.uniform(0.85, 1.15, 3)
    return np.asarray(np.clip(light[..., None] * tint, 0, 1), np.float32)


def matched_texture(rng: np.random.Generator, texture: FloatArray, other: FloatArray) -> FloatArray:
    """Return a texture with about the mean of another, and its contrast or its own at that mean."""
    mean, wanted = texture.mean((0, 1)), other.mean((0, 1))
    contrast = wanted.mean() / (mean.mean() + 1e-6)
    if rng.random() < 0.5:
        contrast = other.std() / (texture.std() + 1e-6)
    matched = (texture - mean) * np.clip(contrast, 0.2, 4) + wanted * rng.uniform(0.85, 1.15)
    return np.asarray(np.clip(matched, 0, 1), np.float32)


def _noise(rng: np.random.Generator, side: int) -> FloatArray:
    plane = np.zeros((side, side), np.float32)
    for sigma_px in (1, 2, 4, 8, 16, 32):
        strength = sigma_px ** rng.uniform(-0.2, 0.9)
        plane += np.float32(strength) * smooth_field(rng, side, sigma_px * rng.uniform(0.8, 1.3))
    return plane


def _pebbles(rng: np.random.Generator, side: int) -> FloatArray:
    plane = np.zeros((side, side), np.float32)
    radius = rng.uniform(2, 14)
    for _ in range(int(rng.integers(300, 6000))):
        middle = rng.uniform(0, side, 2).astype(int).tolist()
        axes = (radius * rng.uniform(0.5, 1.5, 2) + 1).astype(int).tolist()
        turned = float(rng.uniform(0, 180))
        cv2.ellipse(plane, middle, axes, turned, 0, 360, float(rng.normal()), -1, cv2.LINE_AA)
    return plane


def _stones(rng: np.random.Generator, side: int) -> FloatArray:
    height = int(rng.integers(8, 60))
    width = int(height * rng.uniform(1, 3))
    joint = int(rng.integers(1, max(2, height // 6) + 1))
    plane = np.full((side, side), rng.normal(), np.float32)
    for row in range(-1, side // height + 2):
        begin = int(row * width * rng.choice([0.5, 0.33])) % width
        for column in range(-1, side // width + 2):
            corner = column * width + begin, row * height
            end = corner[0] + width - joint, corner[1] + height - joint
            cv2.rectangle(plane, corner, end, float(0.5 * rng.normal() + 2), -1)
    plane += np.float32(0.3) * (smooth_field(rng, side, 1.5) + smooth_field(rng, side, 5))
    angle = float(rng.choice([0, 90, rng.uniform(0, 360)]))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.5)
    turned = cv2.warpAffine(plane, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned, np.float32)


def _threads(rng: np.random.Generator, side: int) -> FloatArray:
    plane = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(200, 2500))):
        begin = rng.uniform(-50, side + 50, 2)
        end = begin + rng.normal(size=2) * rng.uniform(10, 120)
        light, thickness = float(rng.normal()), int(rng.integers(1, 5))
        ends = begin.astype(int).tolist(), end.astype(int).tolist()
        cv2.line(plane, ends[0], ends[1], light, thickness, cv2.LINE_AA)
    return plane
