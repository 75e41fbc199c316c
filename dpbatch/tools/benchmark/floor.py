"""The least time that a machine could take: its copies and products, and what stages need of them.

A stage reads its input once, writes its output once and multiplies what its convolutions multiply;
everything else is taken as free. No program reaches the floor; the share says how far off it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpbatch.tools.benchmark.figures import Machine
from ldp.models.cost import PAPER_SIZE, cost_of
from ldp.models.network import LDPNet
from ldp.models.released import LDPReleased

BYTES_PER_PX = {
    "load": 2 * 2,  # writes two mosaics of uint16
    "develop": 2 * 2 + 2 * 12,  # reads them, writes two views of three floats
    "blur map": 2 * 12,
    "rest of restoring": 2 * 12 + 6,  # reads the views, writes a picture of uint16
    "save": 6 + 4,  # reads it, writes it compressed
}
"""What each stage has to move at least; the network is counted by its convolutions."""

_REPEATS = 5
_COPIED_BYTES = 1 << 28
_MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class NetworkCost:
    """What a network needs for one pixel of its input.

    macs: of convolutions and matrix products. values: that its convolutions read and write.
    """

    macs: float
    values: float


def measure_machine(device: torch.device, precision: torch.dtype) -> Machine:
    """Measure a device for about a second."""
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    side = _MATRIX_SIDE[device.type]
    factor = torch.ones((side, side), dtype=precision, device=device)
    product_s = _best_s(lambda: factor @ factor, device)
    name = str(precision).removeprefix("torch.")
    return Machine(str(device), 2 * _COPIED_BYTES / copy_s, side**3 / product_s, name)


def network_cost(network: nn.Module) -> NetworkCost | None:
    """Count the cost of a network's configuration; None for one that is not known here."""
    if not isinstance(network, LDPNet | LDPReleased):
        return None
    values = 0

    def count(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal values
        values += given[0].numel() + result.numel()

    with torch.device("meta"):
        empty = type(network)(network.config)  # type: ignore[arg-type]  # its own configuration
    hooks = [
        module.register_forward_hook(count)
        for module in empty.modules()
        if isinstance(module, nn.Conv2d)
    ]
    macs = cost_of(empty).macs
    for hook in hooks:
        hook.remove()
    pixels = PAPER_SIZE[0] * PAPER_SIZE[1]
    return NetworkCost(macs / pixels, values / pixels)


def floor_s(
    machine: Machine, photo_px: int, network_px: int, network: NetworkCost | None
) -> Mapping[str, float]:
    """Return the least time for one photo by stage; without the network where it is not known.

    photo_px: pixels of the photo. network_px: pixels that the network was given for it.
    """
    least = {
        stage: count * photo_px / machine.copy_bytes_s for stage, count in BYTES_PER_PX.items()
    }
    if network is not None:
        width = 2 if machine.precision == "bfloat16" else 4
        moved_s = network.values * width * network_px / machine.copy_bytes_s
        least["network"] = max(moved_s, network.macs * network_px / machine.macs_s)
    return least


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    """Return the shortest time of several, after one that loads libraries and touches memory."""
    best = float("inf")
    for attempt in range(_REPEATS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if attempt:
            best = min(best, time.perf_counter() - start)
    return best
