"""Weights of ViTDeblur: its published checkpoint, this library's file, a masked autoencoder's."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ldp.errors import WeightsError
from ldp.models.pickles import read_pickle, tensors_under
from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig, interpolated_positions
from ldp.models.weights import VITDEBLUR_FORMAT, check_tensors, load_into, read_header

CARD = """\
# ViTDeblur, converted

Licence: not stated; the weights begin with MAE's, CC BY-NC 4.0: non-commercial till they say more

Liang et al., IEEE Transactions on Computational Imaging 10:1207, 2024; their code is under
Apache-2.0. A Chinese patent on the method was published in 2026 (CN119151825B). Converted from a
checkpoint by the user; no part of this package.
"""
"""What stands beside a converted checkpoint."""

_MAE = "primary_encoder.pretrain_mae."
_PUBLISHED_NAMES = (
    ("primary.proj.", f"{_MAE}patch_embed.proj."),
    ("primary.", _MAE),
    ("contextual.blocks.", "contextual_encoder.embed_blocks."),
    ("contextual.norm.", "contextual_encoder.embed_norm."),
    ("contextual.head_norm.", "contextual_encoder.fc_norm."),
    ("contextual.", "contextual_encoder."),
    ("decoder.joins.", "decoder.decoder_linears."),
    ("decoder.layer_norm.", "decoder.decoder_dnorm1."),
    ("decoder.context_norm.", "decoder.decoder_anorm."),
    ("decoder.blocks.", "decoder.embed_blocks."),
    ("decoder.norm.", "decoder.decoder_norm."),
    ("decoder.predict.", "decoder.decoder_pred."),
    ("skip.", "inputecoding_step."),
    ("output.", "outputprojr_step."),
)
"""How names here begin, and how they do in the checkpoint; the first that fits counts."""
_MAE_DECODER_WIDTH = 512
_PROJECTED = (256, 128)


def published_name(name: str) -> str:
    """Return a parameter's name in the published checkpoint."""
    for own, published in _PUBLISHED_NAMES:
        if name.startswith(own):
            return published + name.removeprefix(own)
    raise ValueError(f"{name}: no parameter of ViTDeblur")


def unused_shapes(config: ViTDeblurConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the checkpoint stores and the network has no use for, by name.

    A further block and the last norm of the masked autoencoder, the token of what it masks, a norm
    of the decoder, and a projector of a term that the published training logs and does not add.
    """
    width = config.width
    block = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    wide, narrow = _PROJECTED
    projector = {
        "0.weight": (wide, width),
        "0.bias": (wide,),
        "1.weight": (wide,),
        "1.bias": (wide,),
        "1.running_mean": (wide,),
        "1.running_var": (wide,),
        "1.num_batches_tracked": (),
        "3.weight": (narrow, wide),
    }
    return {
        f"{_MAE}mask_token": (1, 1, _MAE_DECODER_WIDTH),
        **{f"{_MAE}blocks.{config.primary_blocks}.{x}": shape for x, shape in block.items()},
        **{f"{_MAE}norm.{part}": (width,) for part in ("weight", "bias")},
        **{f"decoder.decoder_dnorm2.{part}": (width,) for part in ("weight", "bias")},
        **{f"contextual_encoder.projector.{x}": shape for x, shape in projector.items()},
    }


def published_parameters(config: ViTDeblurConfig) -> int:
    """Return the number of values in a published checkpoint of this shape."""
    with torch.device("meta"):
        own = ViTDeblur(config).state_dict().values()
    unused = unused_shapes(config).values()
    count: int = sum(value.numel() for value in own) + sum(map(math.prod, unused))
    return count


def from_published(
    path: Path, tensors: dict[str, Tensor], config: ViTDeblurConfig | None = None
) -> tuple[ViTDeblur, tuple[str, ...]]:
    """Return the network of a published checkpoint, for inference, and the names that it leaves.

    path: for messages. tensors: the checkpoint's, by name. config: the expected shape, the
    published one's if left out; the grid of positions is taken from the checkpoint.

    Raises WeightsError for weights that are missing, foreign, of another shape or not finite, by
    the names that the checkpoint has for them.
    """
    stored = tensors.get(f"{_MAE}pos_embed")
    grid = _grid(path, stored) if stored is not None else ViTDeblurConfig.position_grid
    config = replace(config or ViTDeblurConfig(), position_grid=grid)
    with torch.device("meta"):
        network = ViTDeblur(config)
        unused = {name: torch.empty(shape) for name, shape in unused_shapes(config).items()}
    own = {published_name(name): value for name, value in network.state_dict().items()}
    check_tensors(path, own | unused, tensors)
    found = {name: tensors[published_name(name)].float() for name in network.state_dict()}
    network.load_state_dict(found, assign=True)
    return network.eval(), tuple(sorted(unused))


def load_vitdeblur(path: Path) -> ViTDeblur:
    """Build the network of a weights file of this library, in float32 and evaluation mode.

    Raises WeightsError as ldp.models.weights.load_network does.
    """
    header = read_header(path)
    if header.format != VITDEBLUR_FORMAT:
        raise WeightsError(f"{path}: format {header.format!r}, expected {VITDEBLUR_FORMAT!r}")
    return load_into(path, lambda: ViTDeblur(ViTDeblurConfig(**header.fields)))


def load_encoder(path: Path, network: ViTDeblur) -> None:
    """Load the first blocks of a masked autoencoder's encoder into a network's primary encoder.

    path: a checkpoint of torch.save with the weights under `model` or `state_dict`, by MAE's names
        (ViT-B/16 for the published width). Its positions, of any grid, are interpolated; its other
        blocks, its last norm and its decoder are not read.

    Raises WeightsError as from_published does.
    """
    tensors = tensors_under(path, read_pickle(path), "model", "state_dict")
    own = network.primary.state_dict()
    names = {name: published_name(f"primary.{name}").removeprefix(_MAE) for name in own}
    found = {name: tensors[other].float() for name, other in names.items() if other in tensors}
    if "pos_embed" in found:
        _grid(path, found["pos_embed"])
        found["pos_embed"] = interpolated_positions(
            found["pos_embed"], network.config.position_grid
        )
    check_tensors(path, own, found)
    network.primary.load_state_dict(found)


def _grid(path: Path, positions: Tensor) -> int:
    """Return the side of the grid of stored positions. Raises WeightsError where it has none."""
    count = positions.shape[1] - 1 if positions.ndim == 3 else 0
    grid = math.isqrt(max(0, count))
    if grid < 1 or grid**2 != count:
        raise WeightsError(
            f"{path}: {_MAE}pos_embed is {tuple(positions.shape)}, expected (1, 1 + N x N, width)"
        )
    return grid
