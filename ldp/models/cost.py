"""What a network costs: parameters and MACs, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ldp.models.network import SIZES, LDPNet, NetworkConfig, parameter_count
from ldp.models.released import LDPReleased, ReleasedConfig

PAPER_SIZE = (1120, 1680)
"""Height and width at which the field counts MACs: a photo of the DPDD data set."""

RELEASED = "released"


@dataclass(frozen=True)
class Cost:
    """parameters: trained values.

    macs: multiply-accumulate operations of the convolutions and matrix products for a photo of
    PAPER_SIZE, restored whole and with global statistics.
    """

    parameters: int
    macs: int

    def __str__(self) -> str:
        height, width = PAPER_SIZE
        return (
            f"{self.parameters / 1e6:.2f} M parameters, "
            f"{self.macs / 1e9:.0f} GMACs at {width}x{height}"
        )


def cost_of(network: LDPNet | LDPReleased) -> Cost:
    """Count the cost of a network with PyTorch's own counter.

    network: on the meta device, which computes nothing.
    """
    planes = (6, len(network.config.map_planes))
    views, blur = (torch.empty(1, count, *PAPER_SIZE, device="meta") for count in planes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(views, blur)
    # PyTorch counts a multiply-accumulate operation as two.
    return Cost(parameter_count(network), counter.get_total_flops() // 2)


def cost_of_config(config: NetworkConfig | ReleasedConfig) -> Cost:
    """Count the cost of a network of this configuration; needs no weights."""
    with torch.device("meta"):
        return cost_of(
            LDPReleased(config) if isinstance(config, ReleasedConfig) else LDPNet(config)
        )


def cost_of_size(size: str) -> Cost:
    """Count the cost of one of ldp.models.network.SIZES, or of `released`; needs no weights.

    Raises ValueError for a size that is not known.
    """
    if size == RELEASED:
        return cost_of_config(ReleasedConfig())
    if size not in SIZES:
        raise ValueError(f"size {size!r}: expected one of {', '.join((*SIZES, RELEASED))}")
    return cost_of_config(SIZES[size])
