"""Choose a white balance other than the camera's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dpbatch.errors import DamagedError
from dpbatch.settings import parse_gains

if TYPE_CHECKING:
    from dpbatch.raw.frames import RawPair

_RED, _GREEN, _BLUE, _SECOND_GREEN = range(4)


def with_white_balance(pair: RawPair, white_balance: str) -> RawPair:
    """Return a photo with the gains of a white balance.

    white_balance: camera, auto, daylight or "R,G,B". Raises DamagedError where the file gives none.
    """
    if white_balance == "camera":
        return pair
    if white_balance == "auto":
        gains = grey_world_gains(pair)
    elif white_balance == "daylight":
        gains = pair.daylight_wb
    else:
        red, green, blue = parse_gains(white_balance)
        gains = np.array([red, green, blue, green])
    if not (np.isfinite(gains) & (gains > 0)).all():
        raise DamagedError(
            f"{pair.make} {pair.model}: no {white_balance} white balance known for this "
            "photo; use --white-balance camera, or gains R,G,B"
        )
    return replace(pair, camera_wb=gains)


def grey_world_gains(pair: RawPair) -> npt.NDArray[np.float64]:
    """Return the gains that make the photo grey on average.

    Cells of 2x2 photosites count if none of them is clipped. All gains are 0 if none counts or a
    colour has no light.
    """
    colors = pair.cfa
    planes = {(row, column): pair.composite[row::2, column::2] for row, column in np.ndindex(2, 2)}
    usable = np.logical_and.reduce(
        [plane < pair.composite_clip.start[colors[cell]] for cell, plane in planes.items()]
    )
    light = np.zeros(4)
    for cell, plane in planes.items():
        color = colors[cell]
        if usable.any():
            light[color] += plane[usable].mean(dtype=np.float64) - pair.composite_black[color]
    if min(light[[_RED, _GREEN, _BLUE]]) <= 0:
        return np.zeros(4)
    if light[_SECOND_GREEN] <= 0:  # a camera that calls both greens by one index adds them up
        light[_GREEN], light[_SECOND_GREEN] = light[_GREEN] / 2, light[_GREEN] / 2
    green = (light[_GREEN] + light[_SECOND_GREEN]) / 2
    return np.array([green / light[_RED], 1.0, green / light[_BLUE], 1.0])
