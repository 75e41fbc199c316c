"""The blur map from dual-pixel disparity, signed and sub-pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ldp.blur.falloff import evening
from ldp.blur.pyramid import coarse_to_fine
from ldp.types import BlurMap, ReducibleViews, as_float

if TYPE_CHECKING:
    from ldp.blur.radius import RadiusEstimator

_SHORTEST_REACH_PX = 4.0


@dataclass(frozen=True)
class DisparityEstimator:
    """Signed disparity between the two views by multi-scale matching, as a blur map.

    The disparity of a dual-pixel photo is proportional to the blur, with the sign of the side of
    the focus plane (Wadhwa et al., "Synthetic Depth-of-Field with a Single-Camera Mobile Phone",
    ACM TOG 2018; Punnappurath et al., ICCP 2020).

    disparity_scale_px: amount = 1 - exp(-|disparity_px| / this), in pixels of the full-size view: a
        fixed scale, not the photo's own range, so that amounts are comparable between photos.
    search_share: the largest disparity searched, as a share of the picture's width.
    field_falloff: the share of a disparity that is lost at the frame's left and right edge, where
        the same blur shifts the views less: about 0.6 on an EOS R6 Mark II with RF 50 mm, nothing
        on other lenses. The measured disparity is divided by 1 - field_falloff * |x|^1.5, x from -1
        to 1 across the frame, scaled to mean 1, so that one depth has one value all over an
        uncropped photo. 0 keeps the shift as measured. None measures the falloff in every photo, if
        `radius` is given and the photo shows it clearly, and else keeps the shift as measured.
    map_pixels: the map has at most about this many values; larger views are reduced first.
    radius: tells the radius of the blur from its shape, on a small picture; where the views cannot
        be matched, the disparity then follows the radius, as far as both agree elsewhere.
    """

    disparity_scale_px: float = 4.0
    search_share: float = 0.01
    field_falloff: float | None = None
    map_pixels: int = 2_000_000
    radius: RadiusEstimator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a falloff that leaves no disparity at the edge of the frame."""
        if self.field_falloff is not None and not 0 <= self.field_falloff < 1:
            raise ValueError(f"field_falloff {self.field_falloff}: expected 0 to below 1")

    @property
    def matching(self) -> DisparityEstimator:
        """See MatchingEstimator."""
        return self

    def estimate_from(self, views: ReducibleViews, matched: BlurMap) -> BlurMap:
        """See MatchingEstimator."""
        return matched

    def reduces(self, views: ReducibleViews) -> bool:
        """Whether it looks at a smaller copy of these views."""
        return views.size[0] * views.size[1] > self.map_pixels

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of the views: amount, disparity_px and confidence."""
        small = views.reduced(self.map_pixels)
        left, right = as_float(small.left), as_float(small.right)
        width = left.shape[1]
        reach_px = max(_SHORTEST_REACH_PX, self.search_share * width)
        found = coarse_to_fine(left, right, reach_px, self.radius)
        falloff = found.falloff if self.field_falloff is None else self.field_falloff
        scale = np.float32(views.size[1] / width) * evening(width, falloff)
        # Between a near object and a far one the filled disparity passes through zero, which would
        # draw a sharp line around everything in front; the filled magnitude does not.
        magnitude_px = found.magnitude_px * scale
        return BlurMap(
            amount=-np.expm1(-magnitude_px / np.float32(self.disparity_scale_px)),
            disparity_px=found.disparity_px * scale,
            confidence=found.confidence,
            magnitude_px=magnitude_px,
            falloff=falloff,
        )
