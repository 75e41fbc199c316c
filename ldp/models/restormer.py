"""Restormer, a network of others: the LDP paper's losses are tried on it (supplement, Table 3).

Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022.
The network itself is that of the library deepinv, an optional dependency (the extra `restormer`),
which is imported where one is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ldp.errors import RestormerUnavailableError

if TYPE_CHECKING:
    from ldp.types import MapPlane


@dataclass(frozen=True)
class RestormerConfig:
    """The shape of a network; it is stored with the weights. By default, that of dual-pixel pairs.

    width: channels at full resolution; each of the four levels doubles them.
    blocks: at each level; the decoder has those of the upper three once more.
    refinement: blocks at full resolution behind the decoder.
    heads: of the attention, at each level.
    expansion: channels inside a feed-forward network, by those outside.
    crop_px: side of the training crops.
    """

    width: int = 48
    blocks: tuple[int, ...] = (4, 6, 6, 8)
    refinement: int = 4
    heads: tuple[int, ...] = (1, 2, 4, 8)
    expansion: float = 2.66
    crop_px: int = 256

    @property
    def stride(self) -> int:
        """Both sides of a network's input are multiples of it."""
        return 8

    @property
    def shuffle(self) -> int:
        """The first layer has the pixels of the views."""
        return 1

    @property
    def map_planes(self) -> tuple[MapPlane, ...]:
        """The planes of the blur map that come with the views. The network does not read them."""
        return ("amount",)

    @property
    def pooled_map_side(self) -> None:
        """None: there is nothing to pool."""


RESTORMER_SIZES: dict[str, RestormerConfig] = {"restormer": RestormerConfig()}


class Restormer(nn.Module):
    """Restormer as published for dual-pixel pairs, with no residual to the mean of the views."""

    def __init__(self, config: RestormerConfig) -> None:
        """Build it with random weights. Raises RestormerUnavailableError without deepinv."""
        super().__init__()
        self.config = config
        self.body = _library_network(config)

    def forward(self, views: Tensor, blur: Tensor) -> Tensor:
        """Return the sharp picture, (B, 3, H, W), not clipped.

        views: (B, 6, H, W), left RGB then right RGB, sRGB-encoded, white at 1; H and W multiples of
            config.stride. blur: any, since it is not read.
        """
        restore = cast(Callable[[Tensor], Tensor], self.body.forward_restormer)
        return restore(views)

    def use_local_statistics(self, crop_px: int | None) -> None:
        """Do nothing: its attention is over all pixels that it is given, a tile's or a picture's.

        As its authors run it, it is given the whole picture: see ldp.restore.whole.
        """


def _library_network(config: RestormerConfig) -> nn.Module:
    try:
        # Networks may be built on the meta device; what the library makes at its import may not.
        with torch.device("cpu"):
            from deepinv.models import Restormer as Body
    except ImportError as error:
        raise RestormerUnavailableError(
            f"Restormer needs the library deepinv ({error}): pip install deepinv"
        ) from error
    body: nn.Module = Body(
        in_channels=6,
        out_channels=3,
        dim=config.width,
        num_blocks=config.blocks,
        num_refinement_blocks=config.refinement,
        heads=config.heads,
        ffn_expansion_factor=config.expansion,
        bias=False,
        LayerNorm_type="WithBias",
        dual_pixel_task=True,
        pretrained=None,
    )
    return body
