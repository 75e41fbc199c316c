"""The weights of the outline network, which come with the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ldp.blur.net_weights import load_network, save_network
from ldp.blur.outline_net import OutlineNet, OutlineNetConfig
from ldp.blur.placing import OutlinePlacer

WEIGHTS = Path(__file__).parents[1] / "weights" / "blur" / "outlines.safetensors"
FORMAT = "ldp-outline-1"
"""Written in the header of a weights file."""


@cache
def shipped_placer() -> OutlinePlacer:
    """Return what places depths on the CPU, by the weights of the package. Raises WeightsError."""
    return OutlinePlacer(load_outline_network(WEIGHTS))


def save_outline_network(
    network: OutlineNet, path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write weights with the network's configuration, as float16. notes: for the header."""
    save_network(network, path, FORMAT, notes)


def load_outline_network(path: Path) -> OutlineNet:
    """Load the network of a weights file, in float32, ready for inference. Raises WeightsError."""
    return load_network(
        path, FORMAT, lambda config: OutlineNet(OutlineNetConfig(tuple(config["channels"])))
    )
