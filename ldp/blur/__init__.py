"""Blur maps: where a dual-pixel photo is out of focus, and to which side."""

from __future__ import annotations

from typing import Protocol

from ldp.types import BlurMap, ViewPair


class BlurEstimator(Protocol):
    """What the restoring stage asks of any blur map's maker."""

    def estimate(self, views: ViewPair) -> BlurMap:
        """The blur map of one photo, registered to the mean of its two views."""
        ...


def load_estimator(name: str, device: str = "auto", clip_weights: str = "openai") -> BlurEstimator:
    """The estimator of a name that a network's header or a user gives.

    name: clip, clip-patch; anything else is disparity, which needs no weights. device: as
    ldp.restore.deblur.choose_device takes it, for the CLIP maps. Raises ClipUnavailableError,
    ValueError for a device that is not there.
    """
    if name == "clip":
        from ldp.blur.clip_dense import ClipEstimator
        from ldp.restore.deblur import choose_device

        return ClipEstimator.load(choose_device(device), clip_weights)
    if name == "clip-patch":
        from ldp.blur.clip_patch import ClipPatchEstimator
        from ldp.restore.deblur import choose_device

        return ClipPatchEstimator.load(choose_device(device), clip_weights)
    from ldp.blur.disparity import DisparityEstimator

    return DisparityEstimator()
