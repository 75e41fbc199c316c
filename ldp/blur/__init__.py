"""Blur maps: where a dual-pixel photo is out of focus, and to which side."""

from __future__ import annotations

from typing import Protocol

from ldp.types import BlurMap, ViewPair


class BlurEstimator(Protocol):
    """What the restoring stage asks of any blur map's maker."""

    def estimate(self, views: ViewPair) -> BlurMap:
        """The blur map of one photo, registered to the mean of its two views."""
        ...
