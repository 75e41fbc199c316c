"""Choose a white balance other than the camera's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dpbatch.errors import DamagedError
from dpbatch.settings import parse_gains

if TYPE_CHECKING:
    from dpbatch.raw.frames import RawPair
from dpbatch.raw.reader import DualRaw

_RED, _GREEN, _BLUE, _SECOND_GREEN = range(4)


def white_balance_gains(dual: DualRaw, white_balance: str) -> npt.NDArray[np.float64]:
    """Return the gains per colour index, (4,), of a white balance.

    white_balance: auto, daylight or "R,G,B". Raises DamagedError where the file gives none.
    """
    if white_balance == "auto":
        gains = grey_world_gains(dual.pair)
    elif white_balance == "daylight":
        gains = dual.daylight_wb
    else:
        red, green, blue = parse_gains(white_balance)
        gains = np.array([red, green, blue, green])
    if not (np.isfinite(gains) & (gains > 0)).all():
        raise DamagedError(
            f"{dual.pair.make} {dual.pair.model}: no {white_balance} white balance known for this "
            "photo; use --white-balance camera, or gains R,G,B"
        )
    return gains


def grey_world_gains(pair: RawPair) -> npt.NDArray[np.float64]:
    """Return the gains that make the photo grey on average.

    Cells of 2x2 photosites count if none of them is clipped. All gains are 0 if none counts or a
    colour has no light.
    """
    top, left, height, width = pair.active
    mosaic = pair.composite[top : top + height, left : left + width]
    colors = np.roll(pair.cfa, (-top, -left), axis=(0, 1))
    planes = {(row, column): mosaic[row::2, column::2] for row, column in np.ndindex(2, 2)}
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
