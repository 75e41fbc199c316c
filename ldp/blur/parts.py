"""Divide a picture into small parts that end at its edges, and join neighbouring parts again."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray, Plane

Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_BORDER_REACH_PX = 2
"""A pixel this close to another part belongs to the border of the two."""
_TIE_STEP = 0.03
"""A step between the colours on both sides, white at 1, that weakens a tie to 1/e."""


@dataclass(frozen=True)
class Parts:
    """n parts of a picture and the e borders between them.

    part_of: (h, w), the part of each pixel. border_of: (h, w), the border that the pixel belongs
        to, -1 inside a part. area_px: (n,).
    pairs: (e, 2), the parts of each border, the lower number first.
    ties: (e,), the length of each border in px, less where colours change across it.
    """

    part_of: Labels
    border_of: Labels
    area_px: FloatArray
    pairs: Labels
    ties: FloatArray

    def means(self, plane: Plane, weights: Plane | None = None) -> FloatArray:
        """Return the mean of a plane (h, w) in each part, (n,), by weights above 0."""
        if weights is None:
            return self.sums(plane) / self.area_px
        return self.sums(weights * plane) / self.sums(weights)

    def sums(self, plane: Plane) -> FloatArray:
        """Return the sum of a plane (h, w) in each part, (n,)."""
        return _summed(self.part_of, plane, len(self.area_px))

    def groups(self, chosen: Mask) -> list[npt.NDArray[np.intp]]:
        """Return the chosen parts, (n,), as groups of neighbours: the numbers of each group."""
        parents = np.arange(len(chosen))

        def root(part: int) -> int:
            while parents[part] != part:
                parents[part] = parents[parents[part]]
                part = int(parents[part])
            return part

        for first, second in self.pairs[chosen[self.pairs].all(axis=1)].tolist():
            parents[root(first)] = root(second)
        roots = np.array([root(int(part)) for part in np.flatnonzero(chosen)], np.intp)
        return [np.flatnonzero(chosen)[roots == each] for each in np.unique(roots)]


def divide(picture: FloatArray, side_px: int) -> Parts:
    """Divide a picture, (h, w, 3) in [0, 1], into parts of about side_px by side_px.

    Each grows from the most even place in a square of a grid, to where it meets another one: at
    an edge, where there is one (a watershed).
    """
    part_of, count = _grown(picture, side_px)
    height, width = part_of.shape
    other = np.full((height, width), -1, np.int32)
    padded = np.pad(part_of, _BORDER_REACH_PX, mode="edge")
    for reach in range(1, _BORDER_REACH_PX + 1):
        for down, across in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
            top, left = _BORDER_REACH_PX + down, _BORDER_REACH_PX + across
            beside = padded[top : top + height, left : left + width]
            other = np.where((other < 0) & (beside != part_of), beside, other)
    codes = np.where(other >= 0, _codes(part_of, other, count), -1)
    found, border_of = np.unique(codes, return_inverse=True)
    if found[0] == -1:
        found, border_of = found[1:], border_of - 1
    return Parts(
        part_of,
        border_of.reshape(height, width).astype(np.int32),
        np.bincount(part_of.ravel(), minlength=count).astype(np.float32),
        np.stack([found // count, found % count], axis=1).astype(np.int32),
        _ties(picture, part_of, found, count),
    )


def _grown(picture: FloatArray, side_px: int) -> tuple[Labels, int]:
    """Return the part of each pixel, and how many there are."""
    height, width = picture.shape[:2]
    steps = cv2.GaussianBlur(np.square(gradient_x(picture)) + np.square(_down(picture)), (0, 0), 1)
    unevenness = steps.sum(axis=2)
    seeds = np.zeros((height, width), np.int32)
    number = 0
    for top in range(0, height, side_px):
        for left in range(0, width, side_px):
            square = unevenness[top : top + side_px, left : left + side_px]
            row, column = divmod(int(square.argmin()), square.shape[1])
            number += 1
            seeds[top + row, left + column] = number
    grown = cv2.watershed(np.rint(picture.clip(0, 1) * 255).astype(np.uint8), seeds)
    # OpenCV leaves lines between parts, and the frame's border: the part beside them takes them.
    labels = np.maximum(grown, 0).astype(np.float32)
    for _ in range(side_px):
        labels = np.where(labels == 0, cv2.dilate(labels, np.ones((3, 3), np.uint8)), labels)
    found, part_of = np.unique(labels, return_inverse=True)
    return part_of.reshape(height, width).astype(np.int32), len(found)


def gradient_x(picture: FloatArray) -> FloatArray:
    """Return the change of a picture, (h, w, 3) or (h, w), a pixel along x."""
    return np.asarray(cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=1 / 8), np.float32)


def _down(picture: FloatArray) -> FloatArray:
    return np.asarray(cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=1 / 8), np.float32)


def _ties(
    picture: FloatArray, part_of: Labels, borders: npt.NDArray[np.int64], count: int
) -> FloatArray:
    """Return how much ties the parts of each border; borders: their codes in rising order."""
    ties = np.zeros(len(borders), np.float32)
    for axis in (0, 1):
        # The step from the pixel before to the one behind the two: an edge is not one pixel wide.
        padded = np.pad(picture, [(1, 1) if each == axis else (0, 0) for each in (0, 1, 2)], "edge")
        length = padded.shape[axis]
        before, behind = (
            padded.take(range(start, length - 3 + start), axis=axis) for start in (0, 3)
        )
        step = np.sqrt(np.square(behind - before).sum(axis=2))
        length = part_of.shape[axis]
        first, second = (
            part_of.take(range(start, length - 1 + start), axis=axis) for start in (0, 1)
        )
        is_border = first != second
        codes = _codes(first[is_border], second[is_border], count)
        weights = np.exp(step[is_border] / np.float32(-_TIE_STEP))
        ties += _summed(np.searchsorted(borders, codes), weights, len(borders))
    return ties


def _codes(first: Labels, second: Labels, count: int) -> npt.NDArray[np.int64]:
    """Return one number for each pair of parts, whatever their order."""
    return np.minimum(first, second).astype(np.int64) * count + np.maximum(first, second)


def _summed(where: npt.NDArray[np.integer], values: FloatArray, count: int) -> FloatArray:
    return np.bincount(where.ravel(), values.ravel(), count).astype(np.float32)
