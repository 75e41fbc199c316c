"""The ratio of disparity to radius of the blur, by which a disparity tells how wide a disc is."""

from __future__ import annotations

from ldp.blur.falloff import agreement
from ldp.blur.sizes import resized
from ldp.types import BlurMap

USUAL_RATIO = 0.45
"""Disparity over radius in the middle of the kernels that networks are trained on."""


def disparity_per_radius(blur_map: BlurMap, width: int) -> float:
    """Return how many px of disparity go with a px of the blur's radius in a photo.

    It is measured where the map is sure of both, and USUAL_RATIO where that is hardly anywhere.

    blur_map: with the disparities evened over the frame. width: of the photo in px.
    """
    disparity_px, radius_px = blur_map.disparity_px, blur_map.radius_px
    confidence = blur_map.confidence
    if disparity_px is None or radius_px is None or confidence is None:
        return USUAL_RATIO
    of_radius = blur_map.radius_confidence
    if of_radius is None:
        of_radius = confidence
    shape = disparity_px.shape
    scale = shape[1] / width
    agreed = agreement(
        disparity_px * scale,
        resized(confidence, shape),
        resized(radius_px, shape) * scale,
        resized(of_radius, shape),
    )
    return USUAL_RATIO if agreed is None or agreed.trust == 0 else agreed.ratio
