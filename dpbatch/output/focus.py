"""Blend a restored picture over the untouched one where its depth is chosen.

Everything that is asked for becomes one plane of weights in [0, 1], which changes softly with the
depth and so follows the outlines of what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.errors import OutputError
from dpbatch.focus_settings import FocusSettings, parse_range
from dpbatch.output.color import apply_orientation
from ldp.blur.outlines import VOTE_PIXELS, WORK_PIXELS, certainty, enlarged_bands, share_within
from ldp.types import BlurMap, Picture16, Plane, Plane16, reduced_size

SUBJECT_DEPTH = 0.12
"""A subject reaches so far before and behind the depth that was found, as a share of the depths of
the photo; farther where the AF area itself shows more."""
SOFTNESS = 0.06
"""Width of the transition at the end of a range, as a share of the depths of the photo."""
LEAST_SOFTNESS_PX = 0.1
_DEPTHS = (1.0, 99.0)
"""Percentiles of the disparity between which the depths of a photo lie."""
_LEAST_CONFIDENCE = 0.3
_SHARP_SHARE = 0.12
_LARGE = 0.25
"""A depth that so many pixels have, as a share of the mean over all depths, is a region."""
_BINS = 64
_BIN_SIGMA = 2.0
_SHARES_WITHIN = (0.05, 0.55)
"""Up to the first share of its surroundings within the ranges, a pixel is not in them, whatever its
depth; from the second on its depth alone counts."""
_UNSEEN = 1 / 255
"""Change of an even part's brightness, white at 1, that nobody sees; from its double on it counts
in full."""
_SURROUNDINGS_PX = 9
_ASPECT_TOLERANCE = 0.02
_INVERSE = {6: 8, 8: 6}
"""The orientations that do not undo themselves."""


@dataclass(frozen=True)
class AfArea:
    """A part of the frame in the orientation of the sensor: its middle and its size, each a share
    of the frame's width or height, from the top left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class DepthRange:
    """Disparities in px between which a photo is restored, near of the focus plane positive; None
    for no end. softness_px: width of the transition outside. how: it was found, for the report."""

    near_px: float | None
    far_px: float | None
    softness_px: float
    how: str

    @property
    def described(self) -> str:
        """How it was found, and its ends."""
        ends = [f"{end:+.1f}" for end in (self.near_px, self.far_px) if end is not None]
        return f"{self.how} ({' to '.join(ends)} px)"

    def weights(self, disparity_px: Plane) -> Plane:
        """Return 1 within the range, 0 outside, and a smooth step between, in the same shape."""
        weights = np.ones_like(disparity_px)
        if self.near_px is not None:
            weights *= _falling((disparity_px - np.float32(self.near_px)) / self.softness_px)
        if self.far_px is not None:
            weights *= _falling((np.float32(self.far_px) - disparity_px) / self.softness_px)
        return np.asarray(weights, np.float32)

    def takes_in(self, disparity_px: Plane) -> npt.NDArray[np.bool_]:
        """Return where the weight is above 0."""
        return self.weights(disparity_px) > 0


def signed_disparity(blur_map: BlurMap, wanted: str) -> Plane:
    """Return a map's disparities, which something goes by. Raises OutputError without any."""
    if blur_map.disparity_px is None:
        raise OutputError(
            f"this blur estimator gives no signed disparity, which {wanted}; use --blur disparity"
        )
    return blur_map.disparity_px


def depths_px(disparity_px: Plane) -> tuple[float, float]:
    """Return the disparities of the farthest and the nearest depth of a photo."""
    farthest, nearest = (float(value) for value in np.percentile(disparity_px, _DEPTHS))
    return farthest, nearest


def depth_ranges(
    blur_map: BlurMap, settings: FocusSettings, af_areas: Sequence[AfArea] = ()
) -> list[DepthRange]:
    """Return the ranges of which all must hold.

    blur_map: of the photo, its steps at the outlines. af_areas: those in focus, or chosen.

    Raises OutputError where the map has no disparity and one is needed.
    """
    if not settings.needs_depth:
        return []
    disparity_px = signed_disparity(blur_map, "focus control goes by")
    farthest, nearest = depths_px(disparity_px)
    softness_px = max(LEAST_SOFTNESS_PX, SOFTNESS * (nearest - farthest))
    found = []
    if settings.rescue == "subject":
        found.append(_subject(blur_map, disparity_px, nearest - farthest, softness_px, af_areas))
    if settings.focus_range:
        asked = parse_range(settings.focus_range)
        near_px, far_px = asked.near, asked.far
        if asked.is_share:
            shares = [100 - 100 * asked.near, 100 - 100 * asked.far]
            near_px, far_px = (float(value) for value in np.percentile(disparity_px, shares))
        found.append(DepthRange(near_px, far_px, softness_px, f"range {settings.focus_range}"))
    if settings.keep_background:
        found.append(DepthRange(None, 0.0, softness_px, "background kept"))
    if settings.keep_foreground:
        found.append(DepthRange(0.0, None, softness_px, "foreground kept"))
    return found


def _subject(
    blur_map: BlurMap,
    disparity_px: Plane,
    depths_px: float,
    softness_px: float,
    af_areas: Sequence[AfArea],
) -> DepthRange:
    """Return the depth at the AF areas; without any, that of the sharpest large region."""
    margin_px = max(LEAST_SOFTNESS_PX, SUBJECT_DEPTH * depths_px)
    inside = _inside(af_areas, disparity_px.shape)
    if inside.any():
        # The area may reach over an outline of the subject: its middle half is enough.
        far_px, middle_px, near_px = np.percentile(disparity_px[inside], [25, 50, 75])
        near_px, far_px = max(near_px, middle_px + margin_px), min(far_px, middle_px - margin_px)
        return DepthRange(float(near_px), float(far_px), softness_px, "subject at the AF area")
    middle_px = sharpest_depth_px(blur_map, disparity_px)
    how = "subject in the sharpest large region"
    return DepthRange(middle_px + margin_px, middle_px - margin_px, softness_px, how)


def sharpest_depth_px(blur_map: BlurMap, disparity_px: Plane) -> float:
    """Return the disparity of the depth that most of the sharp and surely measured pixels have.

    A depth that few pixels have is passed over: between a near object and a far one a map goes
    through all depths, also through that of the focus plane.
    """
    low, high = depths_px(disparity_px)
    if high - low < 1e-6:
        return low
    size = reduced_size(disparity_px.shape, VOTE_PIXELS)
    depth_px, confidence = (
        np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
        for plane in (disparity_px, _confidence(blur_map, disparity_px))
    )
    sure = certainty(depth_px, confidence) * (confidence >= _LEAST_CONFIDENCE)
    # Beside the blur that the photo has: a small one is sharp beside a large one only.
    sharp_px = _SHARP_SHARE * max(abs(low), abs(high))
    sharpness = sure * np.exp(-np.square(depth_px / np.float32(sharp_px)))
    all_sure, sharp = (
        cv2.GaussianBlur(
            np.histogram(depth_px, _BINS, (low, high), weights=weights)[0][None].astype(np.float32),
            (0, 0),
            _BIN_SIGMA,
        )[0]
        for weights in (sure, sharpness)
    )
    is_large = all_sure >= _LARGE * all_sure.mean()
    best = int(np.argmax(np.where(is_large, sharp, -1)))
    return low + (best + 0.5) * (high - low) / _BINS


def _confidence(blur_map: BlurMap, disparity_px: Plane) -> Plane:
    """Return the confidence of a map's disparities; 1 where it does not say."""
    if blur_map.confidence is None:
        return np.ones_like(disparity_px)
    return blur_map.confidence


def mask_weights(mask: Plane16, orientation: int, size: tuple[int, int], name: str) -> Plane:
    """Return a user's mask as weights in the orientation of the sensor.

    mask: (h, w) uint16 in the geometry of the upright result, of any size with its proportions.
    size: (H, W) of the picture in the orientation of the sensor. Raises OutputError.
    """
    turned = apply_orientation(mask, _INVERSE.get(orientation, orientation))
    height, width = size
    proportions = (turned.shape[1] / turned.shape[0]) / (width / height)
    if abs(proportions - 1) > _ASPECT_TOLERANCE:
        upright = (height, width) if orientation >= 5 else (width, height)
        raise OutputError(
            f"{name}: {mask.shape[1]} x {mask.shape[0]} pixels, expected the proportions of the "
            f"result, {upright[0]} x {upright[1]}"
        )
    large = cv2.resize(turned, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32) / np.float32(65535)


def focus_weights(
    blur_map: BlurMap,
    aligned: BlurMap,
    sharp: Picture16,
    settings: FocusSettings,
    ranges: Sequence[DepthRange],
    mask: Plane | None = None,
) -> Plane16:
    """Return the weight of the restored picture, (H, W) uint16, 65535 where it is kept whole.

    blur_map: of the photo, as it was measured. aligned: with its steps at the outlines
    (ldp.blur.outlines.align). sharp: (H, W, 3) uint16. mask: see `mask_weights`.
    """
    height, width = sharp.shape[:2]
    weights = np.empty((height, width), np.uint16)
    if ranges:
        bands = enlarged_bands(_depth_weights(blur_map, aligned, sharp, ranges), sharp)
    else:
        bands = iter([(slice(0, height), np.ones((height, width), np.float32))])
    for rows, band in bands:
        band = band * np.float32(settings.strength)
        if mask is not None:
            band *= mask[rows]
        weights[rows] = np.rint(band.clip(0, 1) * np.float32(65535))
    return weights


def _depth_weights(
    blur_map: BlurMap, aligned: BlurMap, sharp: Picture16, ranges: Sequence[DepthRange]
) -> Plane:
    """Return the weights of the depths of an aligned map, at its size.

    Where an outline passes through the ranges on the way from one depth to another, they are 0.
    """
    disparity_px = aligned.disparity_px
    assert disparity_px is not None

    def is_within(measured_px: Plane) -> npt.NDArray[np.bool_]:
        taken_in = [depth.takes_in(measured_px) for depth in ranges]
        return np.asarray(np.logical_and.reduce(taken_in), bool)

    plane = np.ones_like(disparity_px)
    for depth in ranges:
        plane *= depth.weights(disparity_px)
    low, high = (np.float32(share) for share in _SHARES_WITHIN)
    share = share_within(blur_map, sharp, is_within)
    return np.asarray(np.minimum(plane, ((share - low) / (high - low)).clip(0, 1)), np.float32)


def without_unseen(
    weights: Plane16,
    original: Picture16,
    sharp: Picture16,
    confidence: Plane | None,
    *,
    has_more_light: bool = False,
) -> Plane16:
    """Return weights that are 0 where depth is not sure and the restored picture looks the same.

    An even part (a sky, a wall) shows no depth, so that the map may have the wrong one there; the
    photo's own numbers are right for either.

    weights: see `blended`. confidence: of the map, (h, w) of any size, in [0, 1]; None for sure.
    has_more_light: whether light above white is blended too, in which white may hide a change.
    """
    if confidence is None:
        return weights
    size = reduced_size(weights.shape, WORK_PIXELS)
    side = (_SURROUNDINGS_PX, _SURROUNDINGS_PX)
    whole = _squared_change(original, sharp, is_white_changed=has_more_light)
    squares = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    sure = cv2.resize(confidence, size, interpolation=cv2.INTER_LINEAR)
    change = np.sqrt(cv2.blur(squares, side))
    unseen = np.float32(_UNSEEN) * (1 - cv2.blur(sure, side).clip(0, 1)) ** 4
    times = np.asarray(change / np.maximum(unseen, np.float32(1e-9)), np.float32)
    share = np.asarray(cv2.resize(1 - _falling(times - 1), weights.shape[::-1]), np.float32)
    return np.asarray(np.rint(weights * share), np.uint16)


def _squared_change(original: Picture16, sharp: Picture16, *, is_white_changed: bool) -> Plane:
    """Return the mean square of the change of the three colours, white at 1, (H, W).

    is_white_changed: 1 where a colour is clipped in both.
    """
    squares = np.empty(original.shape[:2], np.float32)
    step = 256
    for start in range(0, len(original), step):
        rows = slice(start, start + step)
        change = cv2.absdiff(original[rows], sharp[rows]).astype(np.float32)
        change *= np.float32(1 / 65535)
        squares[rows] = np.square(change).mean(axis=2)
        if is_white_changed:
            is_clipped = np.minimum(original[rows], sharp[rows]).max(axis=2) == 65535
            squares[rows][is_clipped] = 1
    return squares


def blended(original: Picture16, sharp: Picture16, weights: Plane16) -> Picture16:
    """Return original + weight * (sharp - original), (H, W, 3).

    Where the weight is 0 it is the original's own value, and where it is 65535 that of `sharp`.
    """
    result = np.empty_like(original)
    step = 256
    for start in range(0, len(original), step):
        rows = slice(start, start + step)
        weight = weights[rows, :, None].astype(np.float32) / np.float32(65535)
        before = original[rows].astype(np.float32)
        change = weight * (sharp[rows].astype(np.float32) - before)
        result[rows] = np.rint(before + change)
    return result


def _inside(areas: Sequence[AfArea], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which pixels of a plane lie in one of the areas."""
    height, width = shape[:2]
    inside = np.zeros((height, width), bool)
    for area in areas:
        top, bottom = _span(area.y, area.height, height)
        left, right = _span(area.x, area.width, width)
        inside[top:bottom, left:right] = True
    return inside


def _span(middle: float, extent: float, length: int) -> tuple[int, int]:
    start = int(np.floor((middle - extent / 2) * length))
    end = int(np.ceil((middle + extent / 2) * length))
    return max(0, min(start, length - 1)), max(1, min(max(end, start + 1), length))


def _falling(position: Plane) -> Plane:
    """Return 1 up to 0 and 0 from 1 on, with a smooth step between."""
    share = np.clip(position, 0, 1)
    return np.asarray(1 - share * share * (3 - 2 * share), np.float32)
