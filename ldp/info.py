"""Facts about a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a network is from; ModelInfo describes the fields."""

    name: str = ""
    training_radius_px: float | None = None
    licence: str = ""
    blur_map: str = "disparity"
    weights_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Source):
    """Facts about a model.

    name: of the weights file, without its suffix; "" for a network in memory.
    training_radius_px: the largest circle of confusion, as a radius, that the network was trained
        on; larger blur comes back less sharp. None where neither the file nor its card gives it.
    licence: of the weights, as their card names it; "" where there is none.
    blur_map: the estimator whose maps the network was trained with.
    weights_sha256: of the weights file; "" for a network in memory.
    parameters: trained values.
    macs: multiply-accumulate operations for a photo of 1680x1120, see ldp.models.cost.
    """

    parameters: int
    macs: int
