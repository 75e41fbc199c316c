"""Made-up textures of the ray-traced test set: reflectances, (side, side, 3) float32 in [0, 1]."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray

SIDE = 768


def leaves(rng: np.random.Generator) -> FloatArray:
    """Return ellipses of all sizes over each other, whose statistics are near those of photos."""
    picture = _filled(_colour(rng))
    palette = [_colour(rng) for _ in range(6)]
    count = 8000
    # Radii with a density of r^-3: as much of each size.
    radii = SIDE / 6 * (rng.random(count) * (90**2 - 1) + 1) ** -0.5
    for radius in sorted(radii, reverse=True):
        axes = (max(2, int(radius)), max(1, int(radius * rng.uniform(0.3, 1))))
        centre = rng.integers(0, SIDE, 2).tolist()
        shade = palette[int(rng.integers(len(palette)))] * rng.uniform(0.6, 1.3)
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(picture, centre, axes, angle, 0, 360, shade.tolist(), -1, cv2.LINE_AA)
    return _grained(rng, picture, 0.2)


def bricks(rng: np.random.Generator) -> FloatArray:
    """Return rows of bricks, or tiles, with joints."""
    height = int(rng.integers(24, 80))
    width = int(height * rng.uniform(1, 3))
    joint = int(rng.integers(2, 6))
    picture = _filled(_colour(rng))
    brick = _colour(rng)
    shift = int(width * rng.choice([0, 0.5]))
    for row, top in enumerate(range(0, SIDE, height)):
        for left in range(-(row % 2) * shift, SIDE, width):
            shade = brick * rng.uniform(0.75, 1.25)
            corner = (left + width - joint, top + height - joint)
            cv2.rectangle(picture, (left, top), corner, shade.tolist(), -1)
    return _grained(rng, picture, 0.3)


def lettering(rng: np.random.Generator) -> FloatArray:
    """Return lines of letters of several sizes on paper."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    top = 20
    while top < SIDE:
        size = float(rng.choice([0.6, 0.9, 1.3, 2.6]))
        top += int(34 * size)
        letters = "".join(chr(int(code)) for code in rng.integers(65, 123, int(60 / size)))
        font, weight = int(rng.integers(0, 5)), max(1, round(2 * size))
        cv2.putText(mask, letters, (16, top), font, size, 255, weight, cv2.LINE_AA)
    ink = mask[..., None].astype(np.float32) / np.float32(255)
    picture = (_colour(rng) * 0.3 + 0.55) * (1 - ink) + _colour(rng) * 0.3 * ink
    return _grained(rng, np.asarray(picture, np.float32), 0.06)


def weave(rng: np.random.Generator) -> FloatArray:
    """Return stripes in one or two directions, as cloth and boards have."""
    along = np.arange(SIDE) / SIDE
    bands = [
        np.interp(along, np.linspace(0, 1, 40), rng.random(40))
        + 0.3 * np.sign(np.sin(2 * np.pi * along * rng.uniform(8, 60)))
        for _ in range(2)
    ]
    mix = bands[0][None, :] + bands[1][:, None] * rng.choice([0, 1])
    mix = (mix - mix.min()) / max(1e-6, np.ptp(mix))
    return _grained(rng, _between(rng, mix), 0.2)


def clouded(rng: np.random.Generator) -> FloatArray:
    """Return soft noise of all scales, as plaster, rock and lawn have."""
    return _grained(rng, _between(rng, _octaves(rng, rng.uniform(0.5, 0.85))), 0.2)


def plain(rng: np.random.Generator) -> FloatArray:
    """Return one colour with almost no texture, as walls and table tops have."""
    return _grained(rng, _filled(_colour(rng) * 0.6 + 0.2), 0.03)


MADE_UP = (leaves, bricks, lettering, weave, clouded, plain)


def _colour(rng: np.random.Generator) -> FloatArray:
    """Return a colour, dark ones as often as light ones, half of them nearly grey."""
    grey = np.exp(rng.uniform(np.log(0.04), np.log(0.75)))
    hue = rng.uniform(-1, 1, 3) * rng.choice([0.1, 0.5])
    return np.asarray(np.clip(grey * (1 + hue), 0.02, 0.9), np.float32)


def _filled(colour: FloatArray) -> FloatArray:
    return np.ascontiguousarray(np.broadcast_to(colour, (SIDE, SIDE, 3)), np.float32)


def _between(rng: np.random.Generator, share: npt.NDArray[Any]) -> FloatArray:
    """Return two colours mixed by a share (SIDE, SIDE)."""
    weight = share[..., None].astype(np.float32)
    return np.asarray(_colour(rng) * (1 - weight) + _colour(rng) * weight, np.float32)


def _octaves(rng: np.random.Generator, persistence: float) -> FloatArray:
    """Return noise in [0, 1], whose amplitude falls by `persistence` from octave to octave."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in range(2, 10):
        small = rng.normal(size=(2**octave, 2**octave)).astype(np.float32)
        field = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        total += np.asarray(field, np.float32) * np.float32(persistence**octave)
    return np.asarray((total - total.min()) / (total.max() - total.min()), np.float32)


def _grained(rng: np.random.Generator, picture: FloatArray, amount: float) -> FloatArray:
    """Return a texture that is a little uneven everywhere, so that no part of it is flat."""
    grain = _octaves(rng, 0.8)[..., None] - np.float32(0.5)
    return np.clip(picture * (1 + np.float32(4 * amount) * grain), 0.01, 0.95).astype(np.float32)
