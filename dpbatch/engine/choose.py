"""Which engine a run takes. Nothing here imports Ray."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

from dpbatch.errors import SettingsError
from dpbatch.types import ClusterOptions

ENGINES = ("auto", "local", "ray")

_INSTALL = "pip install 'ray[default]'"
_DEVICES = Path("/dev")


def choose(
    engine: str, options: ClusterOptions, device: str, warn: Callable[[str], None]
) -> ClusterOptions | None:
    """Return the options for the Ray engine, None for the local engine.

    engine: one of ENGINES; auto takes Ray where a cluster is named or this machine has several
        GPUs.
    device: RestoreSettings.device.
    warn: called with a message where GPUs will be idle.

    Raises SettingsError where Ray is wanted and not installed, or excluded by another option.
    """
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    asks_for_ray = options != ClusterOptions()
    if engine == "local":
        if asks_for_ray:
            raise SettingsError(
                "--address, --gpus-per-actor, --cpu-actors and --gpu-actors belong to --engine ray"
            )
        return None
    is_installed = importlib.util.find_spec("ray") is not None
    if engine == "ray" or asks_for_ray or address:
        if address.startswith("ray://"):
            raise SettingsError(
                f"--address {address}: Ray Client is not supported; give HOST:6379 on one of the "
                "cluster's machines, or submit the command with `ray job submit`"
            )
        if not is_installed:
            raise SettingsError(f"--engine ray needs Ray; install it with {_INSTALL}")
        return options
    gpus = gpu_count() if device == "auto" else 0
    if gpus >= 2 and not is_installed:
        warn(f"{gpus} GPUs found, one will be used; {_INSTALL} lets dpbatch use all of them")
    return options if gpus >= 2 and is_installed else None


def uses_gpu(device: str, cluster: ClusterOptions | None) -> bool:
    """Whether photos are restored on a GPU; of a running cluster that is assumed.

    device: RestoreSettings.device. cluster: the result of `choose`.
    """
    if cluster is not None and cluster.cpu_actors:
        return False
    if device != "auto":
        return device.startswith("cuda")
    joins = cluster is not None and bool(cluster.address or os.environ.get("RAY_ADDRESS"))
    return joins or gpu_count() > 0


def gpu_count() -> int:
    """Count this machine's GPUs that PyTorch may use, without importing it; 0 except on Linux."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        names = os.listdir(_DEVICES)  # noqa: PTH208  (only the names are needed)
    except OSError:
        return 0
    return sum(re.fullmatch(r"nvidia\d+", name) is not None for name in names)
