"""What a network costs: parameters and MACs, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ldp.models.network import SIZES, LDPNet, NetworkConfig, parameter_count
from ldp.models.released import LDPReleased, ReleasedConfig
from ldp.models.restormer import RESTORMER_SIZES, Restormer, RestormerConfig
from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig
from ldp.models.vitdeblur_weights import published_parameters

PAPER_SIZE = (1120, 1680)
"""Height and width at which the field counts MACs: a photo of the DPDD data set."""

RELEASED = "released"
VITDEBLUR = "vitdeblur"


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


def cost_of(network: LDPNet | LDPReleased | Restormer) -> Cost:
    """Count the cost of a network with PyTorch's own counter.

    network: on the meta device, which computes nothing.
    """
    planes = (6, len(network.config.map_planes))
    views, blur = (torch.empty(1, count, *PAPER_SIZE, device="meta") for count in planes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(views, blur)
    # PyTorch counts a multiply-accumulate operation as two.
    return Cost(parameter_count(network), counter.get_total_flops() // 2)


def cost_of_config(config: NetworkConfig | ReleasedConfig | RestormerConfig) -> Cost:
    """Count the cost of a network of this configuration; needs no weights.

    Raises RestormerUnavailableError where the library of a Restormer is missing.
    """
    with torch.device("meta"):
        if isinstance(config, RestormerConfig):
            return cost_of(Restormer(config))
        return cost_of(
            LDPReleased(config) if isinstance(config, ReleasedConfig) else LDPNet(config)
        )


@dataclass(frozen=True)
class WindowCost:
    """What ViTDeblur costs.

    parameters: values in its published checkpoint. used: those that restoring uses. macs:
    multiply-accumulate operations for a window; of window_px.
    """

    parameters: int
    used: int
    macs: int
    window_px: int

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.1f} M parameters as published, {self.used / 1e6:.1f} M of "
            f"them used; {self.macs / 1e9:.1f} GMACs a window of {self.window_px} px"
        )


def cost_of_vitdeblur(config: ViTDeblurConfig) -> WindowCost:
    """Count the cost of ViTDeblur's windows; needs no weights."""
    window = (1, 3, config.window_px, config.window_px)
    with torch.device("meta"):
        network = ViTDeblur(config)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.window_features(torch.empty(window))
    training_only = (network.contextual.head_norm, network.contextual.head)
    used = sum(value.numel() for value in network.state_dict().values())
    used -= sum(parameter_count(part) for part in training_only)
    macs = counter.get_total_flops() // 2
    return WindowCost(published_parameters(config), used, macs, config.window_px)


def cost_of_size(size: str) -> Cost | WindowCost:
    """Count the cost of a size of LDP's network or Restormer, of `released` or `vitdeblur`.

    Nothing is loaded. Raises ValueError for a size that is not known, and as cost_of_config does.
    """
    if size == RELEASED:
        return cost_of_config(ReleasedConfig())
    if size == VITDEBLUR:
        return cost_of_vitdeblur(ViTDeblurConfig())
    sizes: dict[str, NetworkConfig | RestormerConfig] = {**SIZES, **RESTORMER_SIZES}
    if size not in sizes:
        known = ", ".join((*SIZES, RELEASED, VITDEBLUR, *RESTORMER_SIZES))
        raise ValueError(f"size {size!r}: expected one of {known}")
    return cost_of_config(sizes[size])
