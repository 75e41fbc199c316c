"""Put a restored picture back onto the camera's colour filter array.

A raw editor does with the result what it does with the camera's own file: its profile, white
balance and highlights. So nothing is replaced that the network did not change. What it did change
is added as a difference of light to the numbers of the composite frame; colours outside sRGB and
light above white, which the network's pictures cannot hold, stay those of the composite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpbatch.raw.camera_space import CameraSpace
from dpbatch.raw.checks import Mosaic

Change = npt.NDArray[np.int16]

CHANGE_OF_WHITE = 32767
"""The number that stands for a change by as much light as white has."""
LARGEST_DN = 65535
_EXCESS_KEPT_TO = 0.2
"""Light above white stays where the network leaves white, and is gone where it takes this much."""
_CELL_ROWS_AT_ONCE = 128


def restored_mosaic(base: Mosaic, change: Change, camera: CameraSpace, ceiling_dn: int) -> Mosaic:
    """Return the mosaic of the restored picture.

    base: (H, W), the composite frame, masked borders included; its highlights may be recovered.
    change: (h, w, 3) of the active area, restored less unrestored light, linear, sRGB primaries,
        CHANGE_OF_WHITE for white. Unrestored light is that of the development of the composite, at
        most white.
    ceiling_dn: where the result is clipped.

    A photosite where nothing changes keeps its number. Elsewhere the change of its colour is added.
    Where the base has more light than white, its excess fades as the network makes it darker.
    """
    top, left, height, width = camera.active
    if change.shape != (height, width, 3):
        raise ValueError(f"change is {change.shape}, the active area {(height, width, 3)}")
    result = base.copy()
    inside = result[top : top + height, left : left + width]
    matrix = (camera.balanced_from_srgb / CHANGE_OF_WHITE).astype(np.float32)
    for first in range(0, height, 2 * _CELL_ROWS_AT_ONCE):
        rows = slice(first, first + 2 * _CELL_ROWS_AT_ONCE)
        if not change[rows].any():
            continue
        for row, column in np.ndindex(2, 2):
            color = camera.at(row, column)
            samples = inside[rows][row::2, column::2]
            difference = change[rows][row::2, column::2]
            changed = difference.any(axis=2)
            light = difference[changed].astype(np.float32) @ matrix[_channel(color)]
            samples[changed] = _added(samples[changed], light, camera, color, ceiling_dn)
    return result


def _added(
    samples: Mosaic,
    light: npt.NDArray[np.float32],
    camera: CameraSpace,
    color: int,
    ceiling_dn: int,
) -> Mosaic:
    """Return samples of one colour with a change of balanced light added."""
    full_dn = np.float32(camera.full_dn[color])
    white = np.float32(camera.black[color]) + full_dn
    excess = np.maximum(samples - white, 0)
    kept = np.clip(1 + light / np.float32(_EXCESS_KEPT_TO), 0, 1)
    kept = kept * kept * (3 - 2 * kept)
    restored = samples - excess * (1 - kept) + light * full_dn
    return np.asarray(np.rint(np.clip(restored, 0, ceiling_dn)), np.uint16)


def _channel(color: int) -> int:
    """Return the channel of a colour index: the second green is green."""
    return 1 if color == 3 else color
