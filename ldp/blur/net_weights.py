"""Files of the small networks that come with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ldp.errors import WeightsError

Network = TypeVar("Network", bound=nn.Module)


def save_network(
    network: nn.Module, path: Path, format_name: str, notes: dict[str, str] | None = None
) -> None:
    """Write weights as float16.

    network: has a `config`, a dataclass. format_name: written in the header, with the
    configuration. notes: for the header.
    """
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in network.state_dict().items()
    }
    config: Any = network.config
    header = {**(notes or {}), "format": format_name, "config": json.dumps(asdict(config))}
    save_file(tensors, path, metadata=header)


def load_network(
    path: Path, format_name: str, make: Callable[[dict[str, Any]], Network]
) -> Network:
    """Load what save_network wrote, in float32, ready for inference.

    make: returns the network of a configuration. Raises WeightsError where the file is missing,
    damaged, or another network's, or its weights are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            notes = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if notes.get("format") != format_name:
            found = notes.get("format")
            raise ValueError(f"the header says format {found!r}, expected {format_name!r}")
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise ValueError("some of its weights are not finite")
        network = make(json.loads(notes["config"]))
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        kind = format_name.split("-")[1]
        raise WeightsError(f"{path}: not the weights of the {kind} network: {error}") from error
    return network.eval()
