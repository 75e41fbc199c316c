"""Join what matching says of depth with what the shape of the blur says.

Matching spreads what it measured over its windows and past outlines, the more the stronger the
blur. The radius, which a network finds in larger pictures, has its steps where the picture has
them, and is told as well for strong blur as for weak. For weak blur matching is the better one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ldp.blur.disparity import DisparityEstimator
from ldp.blur.estimator import BlurEstimator, MatchingEstimator
from ldp.blur.falloff import agreement
from ldp.blur.outline_weights import shipped_placer
from ldp.blur.pyramid import Support, joined
from ldp.blur.reconsider import reconsidered
from ldp.blur.sizes import resized
from ldp.types import BlurMap, Picture, ReducibleViews

_SHAPE_WEIGHT = np.float32(2.0)
"""Of the radius, where both are equally certain and the blur is weak."""
_LOST_RADIUS_PX = 6.0
"""In pixels of the map: with a blur of this radius a match counts half as much."""


def depth_map(
    blur_map: BlurMap, views: ReducibleViews, estimator: BlurEstimator, sharp: Picture | None
) -> BlurMap:
    """Return the map that editors and focus control are given, better than what networks need.

    blur_map: of the views, by this estimator. sharp: (H, W, 3), the restored picture, to correct
        the depths that it shows to be wrong; None to leave that out.
    """
    blur_map = corrected_map(blur_map, views, estimator, sharp)
    if sharp is None or not isinstance(estimator, MatchingEstimator):
        return blur_map
    scale_px = estimator.matching.disparity_scale_px
    return shipped_placer().placed(blur_map, views, sharp, scale_px)


def corrected_map(
    blur_map: BlurMap, views: ReducibleViews, estimator: BlurEstimator, sharp: Picture | None
) -> BlurMap:
    """Return what `depth_map` returns, before its depths are placed at the outlines."""
    if isinstance(estimator, DisparityEstimator):
        blur_map = with_shape(blur_map, views, estimator)
    return blur_map if sharp is None else reconsidered(blur_map, views, sharp)


def with_shape(blur_map: BlurMap, views: ReducibleViews, estimator: DisparityEstimator) -> BlurMap:
    """Return the map joined with the radius of the blur; its confidence stays that of the match.

    The radius becomes a disparity by the ratio that the photo has where both are certain. Where
    they agree nowhere, the map comes back as it is.

    blur_map: by the estimator, of the views. Where it has no radius_px, the estimator's `radius`
        finds it; without one of the two the map comes back as it is.
    """
    disparity_px, confidence = blur_map.disparity_px, blur_map.confidence
    if disparity_px is None or confidence is None:
        return blur_map
    if blur_map.radius_px is None and estimator.radius is not None:
        blur_map = estimator.radius.estimate(views).beside(blur_map)
    if blur_map.radius_px is None or blur_map.radius_confidence is None:
        return blur_map
    # As in the views, but that the disparity was evened over the frame.
    scale = np.float32(disparity_px.shape[1] / views.size[1])
    match_px = disparity_px * scale
    radius_px = resized(blur_map.radius_px, disparity_px.shape) * scale
    radius_confidence = resized(blur_map.radius_confidence, disparity_px.shape)
    agreed = agreement(match_px, confidence, radius_px, radius_confidence)
    if agreed is None:
        return blur_map
    of_match = confidence / (1 + np.square(radius_px / np.float32(_LOST_RADIUS_PX)))
    shape_px = np.float32(agreed.ratio) * radius_px
    of_shape = _SHAPE_WEIGHT * np.float32(agreed.trust) * radius_confidence
    joined_px, _ = joined(match_px, of_match, Support(shape_px, of_shape))
    filled_px = blur_map.magnitude_px
    size_px = np.abs(match_px) if filled_px is None else filled_px * scale
    joined_size_px, _ = joined(size_px, of_match, Support(np.abs(shape_px), of_shape))
    magnitude_px = joined_size_px / scale
    return replace(
        blur_map,
        amount=-np.expm1(-magnitude_px / np.float32(estimator.disparity_scale_px)),
        disparity_px=joined_px / scale,
        magnitude_px=magnitude_px,
    )
