"""Tensors as users hand them in, to the library's arrays and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldp.types import Deblurred, Picture, Plane, TensorBlurMap, TensorDeblurred, ViewPair

Array = Picture | npt.NDArray[np.float16] | npt.NDArray[np.float64]
"""(H, W, 3) RGB, sRGB-encoded: uint8 or uint16 over their whole range, or floats, white at 1."""


def view_pairs(left: Tensor, right: Tensor) -> list[ViewPair]:
    """Return (3, H, W) tensors as one pair of views, or (B, 3, H, W) as B of them.

    left, right: uint8, uint16 or any float type, on any device.

    Raises ValueError where they are no such pictures, or differ in shape or type.
    """
    if left.shape != right.shape or left.dtype != right.dtype:
        raise ValueError(
            f"left is {tuple(left.shape)} {left.dtype}, right {tuple(right.shape)} {right.dtype}: "
            "two views of one photo have the same shape and type"
        )
    if left.ndim not in (3, 4) or left.shape[-3] != 3 or not left.numel():
        raise ValueError(
            f"left and right are {tuple(left.shape)}, expected (3, H, W) or (B, 3, H, W)"
        )
    batches = (_pictures(view if view.ndim == 4 else view[None]) for view in (left, right))
    return [ViewPair(*views) for views in zip(*batches, strict=True)]


def to_tensors(results: Sequence[Deblurred], like: Tensor) -> TensorDeblurred:
    """Return the results in the layout of the views that they were made of, on their device."""
    sharp = torch.stack([torch.from_numpy(x.sharp).permute(2, 0, 1) for x in results])
    maps = [x.blur_map for x in results]
    amount = _stacked([x.amount for x in maps], like)
    assert amount is not None
    return TensorDeblurred(
        _placed(sharp, like),
        TensorBlurMap(
            amount,
            disparity_px=_stacked([x.disparity_px for x in maps], like),
            confidence=_stacked([x.confidence for x in maps], like),
            soft=_stacked([x.soft for x in maps], like),
            radius_px=_stacked([x.radius_px for x in maps], like),
        ),
    )


def _pictures(batch: Tensor) -> list[Picture]:
    """(B, 3, H, W) -> B arrays (H, W, 3)."""
    if batch.is_floating_point():
        batch = batch.float()
    return list(batch.detach().permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _stacked(planes: Sequence[Plane | None], like: Tensor) -> Tensor | None:
    found = [torch.from_numpy(plane)[None] for plane in planes if plane is not None]
    return _placed(torch.stack(found), like) if len(found) == len(planes) else None


def _placed(batch: Tensor, like: Tensor) -> Tensor:
    return (batch if like.ndim == 4 else batch[0]).contiguous().to(like.device)


def own_float(view: Array) -> Picture:
    """Return a view of any float type as float32, others as they are."""
    return view.astype(np.float32, copy=False) if view.dtype.kind == "f" else cast(Picture, view)
