"""Blur maps: where a dual-pixel photo is out of focus, and to which side."""

from __future__ import annotations

from typing import Protocol

from ldp.types import BlurMap, ViewPair

ESTIMATORS = ("disparity", "clip", "clip-patch")
OPENAI = "openai"
"""open_clip's tag of the CLIP weights that the papers used."""


class BlurEstimator(Protocol):
    """The way from a pair of views to a blur map."""

    def estimate(self, views: ViewPair) -> BlurMap:
        """Return the blur map of one photo, registered to the mean of its two views."""
        ...


def load_estimator(name: str, *, device: str = "auto", clip_weights: str = OPENAI) -> BlurEstimator:
    """Return the estimator of a name.

    name: disparity, which needs no weights; clip, of LDP's paper; clip-patch, of its released code.
    device: auto, cpu, cuda or cuda:N, for the CLIP maps.
    clip_weights: see ldp.blur.clip_model.load_clip.

    Raises ValueError for another name, DeviceError, ClipUnavailableError.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"blur {name!r}: expected one of {', '.join(ESTIMATORS)}")
    if name == "disparity":
        from ldp.blur.disparity import DisparityEstimator

        return DisparityEstimator()
    from ldp.devices import choose_device

    if name == "clip":
        from ldp.blur.clip_dense import ClipEstimator

        return ClipEstimator.load(choose_device(device), clip_weights)
    from ldp.blur.clip_patch import ClipPatchEstimator

    return ClipPatchEstimator.load(choose_device(device), clip_weights)
