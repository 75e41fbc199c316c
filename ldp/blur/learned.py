"""The learned blur map: the radius of the blur, from a network that comes with the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from ldp.blur.disparity import DisparityEstimator
from ldp.blur.falloff import weighted_median
from ldp.blur.net_weights import load_network, save_network
from ldp.blur.radius import RadiusEstimator, RadiusMap
from ldp.blur.radius_net import RadiusNet, RadiusNetConfig
from ldp.blur.ratio import USUAL_RATIO
from ldp.types import BlurMap, ReducibleViews

WEIGHTS = Path(__file__).parents[1] / "weights" / "blur" / "radius.safetensors"
FORMAT = "ldp-radius-1"
"""Written in the header of a weights file."""
RATIOS = (0.1, 0.8)
"""Those of real cameras lie between."""
LEAST_RADIUS_PX = 2.0
LEAST_SHARE = 1e-3
"""Of the photo, that must be blurred by LEAST_RADIUS_PX and known for certain; more of it where it
is less certain."""


@dataclass(frozen=True)
class LearnedEstimator:
    """Blur map of the blur's radius.

    matching: tells, over all of the photo, how disparity and radius go together for this camera and
        lens. The map is the radius times this ratio: as clean as the radius, and in the pixels that
        networks are trained with.
    """

    radius: RadiusEstimator
    matching: DisparityEstimator = field(default_factory=DisparityEstimator)

    @classmethod
    def load(cls, device: torch.device) -> LearnedEstimator:
        """Load the network that comes with the package. Raises WeightsError."""
        return cls(load_radius_estimator(device))

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of one photo, registered to the mean of its two views."""
        return self.estimate_from(views, self.matching.estimate(views))

    def estimate_from(self, views: ReducibleViews, matched: BlurMap) -> BlurMap:
        """See ldp.blur.estimator.MatchingEstimator."""
        found = self.radius.estimate(views)
        disparity_px = found.radius_px * np.float32(photo_ratio(found, matched))
        scale_px = np.float32(self.matching.disparity_scale_px)
        return BlurMap(
            amount=np.asarray(-np.expm1(-np.abs(disparity_px) / scale_px), np.float32),
            disparity_px=disparity_px,
            confidence=found.confidence,
            radius_px=found.radius_px,
            falloff=matched.falloff,
        )


def photo_ratio(found: RadiusMap, matched: BlurMap) -> float:
    """Return the ratio of disparity to radius of a photo: one value for all of it.

    It is the median by how well both are known, and USUAL_RATIO where that is hardly anywhere.
    """
    assert matched.disparity_px is not None
    assert matched.confidence is not None
    radius_px = found.radius_px
    size = (radius_px.shape[1], radius_px.shape[0])
    disparity_px, confidence = (
        np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
        for plane in (matched.disparity_px, matched.confidence)
    )
    blurred = np.abs(radius_px) > LEAST_RADIUS_PX
    weight = (confidence * found.confidence)[blurred]
    if weight.sum() < LEAST_SHARE * radius_px.size:
        return USUAL_RATIO
    ratio = disparity_px[blurred] / radius_px[blurred]
    median = weighted_median(ratio, weight.astype(np.float64))
    return min(max(median, RATIOS[0]), RATIOS[1])


def load_radius_estimator(device: torch.device, path: Path = WEIGHTS) -> RadiusEstimator:
    """Load the estimator of the radius. Raises WeightsError where the file cannot be used."""
    return RadiusEstimator(load_radius_network(path).to(device), device)


def save_radius_network(
    network: RadiusNet, path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write weights with the network's configuration, as float16. notes: for the header."""
    save_network(network, path, FORMAT, notes)


def load_radius_network(path: Path) -> RadiusNet:
    """Load the network of a weights file, in float32, ready for inference.

    Raises WeightsError where the file is missing, damaged, or another network's.
    """
    return load_network(
        path, FORMAT, lambda config: RadiusNet(RadiusNetConfig(tuple(config["channels"])))
    )
