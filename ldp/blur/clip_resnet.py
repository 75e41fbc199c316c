"""Features of CLIP's ResNets: of each place of their last map, without the attention pooling."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

STRIDE_PX = 32
"""Pixels of a picture for each place of the last map, in both directions."""


def is_resnet(visual: object) -> bool:
    """Whether open_clip's image encoder is one of OpenAI's ResNets."""
    return hasattr(visual, "attnpool") and hasattr(visual, "layer4")


def dense_features(visual: Any, pictures: Tensor) -> Tensor:
    """Return one feature a place, (n, h, w, features), not normalised.

    A place attends to itself alone: the pooling's projections of values and of its output are
    applied to it, and neither queries, keys nor position embeddings (as in Zhou et al., "Extract
    Free Dense Labels from CLIP", ECCV 2022).

    pictures: (n, 3, h * STRIDE_PX, w * STRIDE_PX), standardised.
    """
    x = visual.stem(pictures)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    pool = visual.attnpool
    values = F.linear(x.permute(0, 2, 3, 1), pool.v_proj.weight, pool.v_proj.bias)
    return F.linear(values, pool.c_proj.weight, pool.c_proj.bias)
