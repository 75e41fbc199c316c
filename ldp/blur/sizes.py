"""Planes and pictures at another size."""

from __future__ import annotations

import cv2

from ldp.types import FloatArray, Picture, as_float


def resized(picture: Picture, size: tuple[int, int]) -> FloatArray:
    """Return a plane or a picture as float32 at a size (h, w)."""
    if picture.shape[:2] == size:
        return as_float(picture)
    way = cv2.INTER_AREA if picture.shape[0] > size[0] else cv2.INTER_LINEAR
    # Before it turns to float: a picture of 45 MP takes 540 MB as one.
    resized: Picture = cv2.resize(picture, size[::-1], interpolation=way)  # type: ignore[assignment]
    return as_float(resized)
