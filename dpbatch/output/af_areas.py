"""Where the camera focused, from Canon's MakerNote.

The tags AFInfo2 and AFInfo3 are one array of shorts: its size in bytes, the AF area mode, the
number of areas, the number of valid ones, width and height of the picture, width and height of the
frame that the areas lie in; then for every area its width, its height, its x and its y from the
middle of the frame, y upwards, in the orientation of the sensor; then which areas are in focus and
which are selected, a bit each.
"""

from __future__ import annotations

import exiv2
import numpy as np
import numpy.typing as npt

from dpbatch.output.carrier import open_image
from dpbatch.output.focus import AfArea

_AF_INFO = (0x0026, 0x003C)
_HEADER, _COUNT, _FRAME_WIDTH, _FRAME_HEIGHT = 8, 2, 6, 7
_BITS = 16


def af_areas(carrier: bytes) -> tuple[AfArea, ...]:
    """Return the areas that the camera has in focus; without these, the selected ones; () without
    both, and where the file does not say.

    carrier: of `PhotoMetadata`.
    """
    if not carrier:
        return ()
    try:
        for datum in open_image(carrier).exifData():
            if datum.groupName() == "Canon" and datum.tag() in _AF_INFO:
                values = [int(datum.toInt64(index)) for index in range(datum.count())]
                return areas_of(np.array(values, np.int64).astype(np.uint16))
    except exiv2.Exiv2Error:
        pass
    return ()


def areas_of(values: npt.NDArray[np.uint16]) -> tuple[AfArea, ...]:
    """Return the areas of an AFInfo2 array that are in focus, or selected."""
    if len(values) < _HEADER:
        return ()
    count = int(values[_COUNT])
    words = -(-count // _BITS)
    frame_width, frame_height = float(values[_FRAME_WIDTH]), float(values[_FRAME_HEIGHT])
    if not count or not frame_width or not frame_height:
        return ()
    if len(values) < _HEADER + 4 * count + words:
        return ()
    sizes = values[_HEADER : _HEADER + 2 * count].reshape(2, count)
    places = values[_HEADER + 2 * count : _HEADER + 4 * count].view(np.int16).reshape(2, count)
    flags = values[_HEADER + 4 * count : _HEADER + 4 * count + 2 * words]
    for marked in (flags[:words], flags[words:]):
        numbers = [n for n in _marked(marked) if n < count and sizes[0, n] and sizes[1, n]]
        if numbers:
            return tuple(
                AfArea(
                    x=0.5 + float(places[0, n]) / frame_width,
                    y=0.5 - float(places[1, n]) / frame_height,
                    width=float(sizes[0, n]) / frame_width,
                    height=float(sizes[1, n]) / frame_height,
                )
                for n in numbers
            )
    return ()


def _marked(words: npt.NDArray[np.uint16]) -> list[int]:
    """Return the numbers of the bits that are set, the lowest bit of the first word first."""
    return [
        _BITS * at + bit
        for at, word in enumerate(words)
        for bit in range(_BITS)
        if int(word) >> bit & 1
    ]
