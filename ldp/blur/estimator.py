"""The protocol of blur map estimators, and their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ldp.blur.disparity import DisparityEstimator
    from ldp.types import BlurMap, ReducibleViews

_STRETCHED = "-stretched"
ESTIMATORS = ("disparity", "learned", "clip", "clip-patch", f"clip-patch{_STRETCHED}")
OPENAI = "openai"
"""open_clip's tag of the CLIP weights that the papers used."""


@dataclass(frozen=True)
class ClipChoice:
    """How `clip` makes its maps: as the LDP paper's, or as one of the paper's ablations has them.

    network: open_clip's name of the CLIP, empty for the paper's ViT-B/32. prompts, dp_format: see
    ldp.blur.clip_dense.ClipEstimator.of.
    """

    network: str = ""
    prompts: tuple[str, ...] = ()
    dp_format: str = "mirrored"


PAPER_CLIP = ClipChoice()


def unstretched(name: str) -> str:
    """Return the estimator whose maps one of maps over a photo's own range stretches, else `name`.

    Both have the same CLIP, and networks of the one can be given maps of the other.
    """
    return name.removesuffix(_STRETCHED)


class BlurEstimator(Protocol):
    """Estimates where a dual-pixel photo is out of focus."""

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of one photo, registered to the mean of its two views."""
        ...


@runtime_checkable
class MatchingEstimator(BlurEstimator, Protocol):
    """An estimator that matches the views on the CPU, which can be done apart, ahead of time."""

    @property
    def matching(self) -> DisparityEstimator:
        """What matches the views."""

    def estimate_from(self, views: ReducibleViews, matched: BlurMap) -> BlurMap:
        """Return the same map as `estimate`. matched: matching.estimate(views)."""


def estimated(estimator: BlurEstimator, views: ReducibleViews, matched: BlurMap | None) -> BlurMap:
    """Return the blur map of one photo.

    matched: what matching gave ahead of time, used where the estimator does match; None before.
    """
    if matched is not None and isinstance(estimator, MatchingEstimator):
        return estimator.estimate_from(views, matched)
    return estimator.estimate(views)
