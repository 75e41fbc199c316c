"""A dual-pixel scene with blown highlights, recorded by sensors that clip in different ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mosaic = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float64]

HEIGHT, WIDTH = 256, 384
WB_RGGB = (2.0, 1.0, 1.0, 1.5)
OVEREXPOSURES = (1.1, 1.5, 2.5)
PATCHES = ((0.45, 0.2, 0.1), (0.1, 0.4, 0.2), (0.15, 0.15, 0.6), (0.5, 0.5, 0.5), (0.7, 0.6, 0.3))
"""Balanced red, green, blue, 1 is where the composite clips at the full 14 bits."""

_BORDER = 24


@dataclass(frozen=True)
class Sensor:
    """How a recorded signal becomes numbers.

    clip: DN, black included. spread_dn: clipped samples are lowered by up to so many DN, evenly, as
        long-exposure noise reduction does. noise_dn: standard deviation, of each frame on its own.
    bits: of a sample. left, top: width of the optically black borders.
    """

    clip: int = 16383
    spread_dn: float = 0
    noise_dn: float = 3
    bits: int = 14
    black: int = 512
    left: int = 148
    top: int = 54
    right: int = 12
    bottom: int = 10

    @property
    def largest(self) -> int:
        """The largest number of a sample."""
        return (1 << self.bits) - 1


def blown_scene(highlights: bool = True) -> npt.NDArray[np.float64]:
    """Return (HEIGHT, WIDTH, 3) balanced light; 1 is where 14 bits end.

    A grey gradient, a row of coloured patches, and three disks that are brighter than 1 by
    OVEREXPOSURES, with soft edges.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.repeat((0.12 + 0.2 * x / WIDTH + 0.03 * np.sin(y / 9))[..., None], 3, axis=2)
    for number, color in enumerate(PATCHES):
        light[_patch(number)] = color
    if highlights:
        for number, excess in enumerate(OVEREXPOSURES):
            near = np.clip((40 - _from_center(number)) / 6, 0, 1)[..., None]
            light += near * (excess - light)
    return light


def patch(number: int) -> tuple[slice, slice]:
    """Return the inside of a coloured patch."""
    rows, columns = _patch(number)
    return slice(rows.start + 8, rows.stop - 8), slice(columns.start + 8, columns.stop - 8)


def inside_highlight(number: int) -> Mask:
    """Return where a disk has its full light, well away from its edge."""
    return np.asarray(_from_center(number) < 26, np.bool_)


def record(light: Field, sensor: Sensor, seed: int = 0) -> tuple[Mosaic, Mosaic]:
    """Return the composite and the left photodiode's frame, with their borders.

    light: as `blown_scene` gives it, 1 is where this sensor's bits end. The photodiode's share
    changes along the rows, as it does in cameras.
    """
    rng = np.random.default_rng(seed)
    height, width = light.shape[:2]
    range_dn = sensor.largest - sensor.black
    signal = np.empty((height, width))
    for (row, column), channel, gain in zip(np.ndindex(2, 2), (0, 1, 1, 2), WB_RGGB, strict=True):
        signal[row::2, column::2] = light[row::2, column::2, channel] * range_dn / gain
    share = 0.5 + 0.1 * (np.arange(width) / width - 0.5)
    frames = []
    for recorded in (signal, signal * share):
        limit = sensor.clip - sensor.black
        lowered = limit - sensor.spread_dn * rng.random(recorded.shape)
        frame = np.where(recorded >= limit, lowered, recorded)
        whole = np.zeros((sensor.top + height + sensor.bottom, sensor.left + width + sensor.right))
        whole[sensor.top : sensor.top + height, sensor.left : sensor.left + width] = frame
        whole += sensor.black + sensor.noise_dn * rng.standard_normal(whole.shape)
        frames.append(np.clip(np.rint(whole), 0, sensor.largest).astype(np.uint16))
    return frames[0], frames[1]


def _patch(number: int) -> tuple[slice, slice]:
    left = _BORDER + 70 * number
    return slice(20, 80), slice(left, left + 60)


def _from_center(number: int) -> Field:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray(np.hypot(y - 170, x - 70 - 120 * number), np.float64)
