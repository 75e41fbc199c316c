"""The protocol of blur map estimators, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ldp.types import BlurMap, ReducibleViews

ESTIMATORS = ("disparity", "learned", "clip", "clip-patch", "clip-patch-stretched")
OPENAI = "openai"
"""open_clip's tag of the CLIP weights that the papers used."""


class BlurEstimator(Protocol):
    """Estimates where a dual-pixel photo is out of focus."""

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of one photo, registered to the mean of its two views."""
        ...
