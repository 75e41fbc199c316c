"""What the training loop minimises: the losses of LDP and of ViTDeblur behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.models.vitdeblur import Compared
from training.data.rendered import Batch
from training.losses import BlurAwareMap, LossWeights, Terms, charbonnier, total
from training.settings import TrainSettings


class Objective(Protocol):
    """The loss of a network, as the loop computes it."""

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what the network is given of a batch."""

    def terms(self, found: object, batch: Batch) -> tuple[Tensor, Terms]:
        """Return the restored pictures, (B, 3, S, S) RGB float32, and the loss of a batch.

        found: what the network returned for `inputs`.
        """


@dataclass(frozen=True)
class LdpObjective:
    """training.losses.total of what LDP's network or Restormer restores."""

    weights: LossWeights
    blur_aware_map: BlurAwareMap | None

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Objective."""
        views, blur, _ = batch
        return views.contiguous(memory_format=torch.channels_last), blur

    def terms(self, found: object, batch: Batch) -> tuple[Tensor, Terms]:
        """See Objective."""
        assert isinstance(found, Tensor)
        restored, (views, blur, sharp) = found.float(), batch
        aware = self.blur_aware_map
        return restored, total(
            restored, sharp, views, blur[:, :1], weights=self.weights, blur_aware_map=aware
        )


@dataclass(frozen=True)
class ViTDeblurObjective:
    """The loss of ViTDeblur: Charbonnier + token_weight (R + sharpness_weight C).

    R: the distance of the tokens that the network makes of the blurred picture's from those of the
    sharp one, see token_distance. C: how badly it tells a blurred picture from a sharp one, see
    sharpness_error.
    """

    charbonnier_eps: float
    token_weight: float
    sharpness_weight: float
    per_pixel: bool = False

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the blurred and the sharp pictures in the network's order of channels, BGR."""
        views, _, sharp = batch
        return views[:, :3].flip(1), sharp.flip(1)

    def terms(self, found: object, batch: Batch) -> tuple[Tensor, Terms]:
        """See Objective."""
        assert isinstance(found, Compared)
        restored = found.restored.float().flip(1)
        first = charbonnier(restored, batch[2], self.charbonnier_eps, per_pixel=self.per_pixel)
        distance = token_distance(found.predicted.float(), found.true.float())
        sharpness = sharpness_error(found.blurred_logit.float(), found.sharp_logit.float())
        loss = first + self.token_weight * (distance + self.sharpness_weight * sharpness)
        return restored, Terms(loss, first, token_distance=distance, sharpness=sharpness)


def token_distance(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the mean over all tokens (B, tokens, width), the class token too, of 1 - cosine."""
    return (1 - F.cosine_similarity(predicted, true, dim=-1)).mean()


def sharpness_error(blurred_logit: Tensor, sharp_logit: Tensor) -> Tensor:
    """Return the sum of two binary cross entropies: blurred pictures are 0, sharp ones 1."""
    wrong = F.binary_cross_entropy_with_logits(blurred_logit, torch.zeros_like(blurred_logit))
    return wrong + F.binary_cross_entropy_with_logits(sharp_logit, torch.ones_like(sharp_logit))


def objective_of(settings: TrainSettings, blur_aware_map: BlurAwareMap | None) -> Objective:
    """Return the objective of a stage."""
    if settings.is_vitdeblur:
        return ViTDeblurObjective(
            settings.charbonnier_eps,
            settings.token_weight,
            settings.sharpness_weight,
            per_pixel=settings.loss_weights.per_pixel,
        )
    return LdpObjective(settings.loss_weights, blur_aware_map)
