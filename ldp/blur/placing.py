"""Place the depths of a map at the outlines of the restored picture, by a small network.

Around a near thing a map is often too small: what is behind is matched surely, the blurred rim is
not, and where the picture has edges everywhere they do not tell which one is the outline. The
network (ldp.blur.outline_net) looks at the map, at the restored picture, and at how well the two
views fit each other at several depths, at about the size at which its scenes were rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ldp.blur.outline_changes import believed
from ldp.blur.outline_net import LARGEST_STRIDE_PX, LEVELS, OutlineNet, mixed
from ldp.blur.outline_planes import OutlinePlanes, outline_planes
from ldp.types import BlurMap, FloatArray, Picture, Plane, ReducibleViews


@dataclass(frozen=True)
class OutlinePlacer:
    """Places depths. network: on the device."""

    network: OutlineNet
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def placed(
        self,
        blur_map: BlurMap,
        views: ReducibleViews,
        sharp: Picture,
        disparity_scale_px: float,
    ) -> BlurMap:
        """Return the map with placed_px and placed_amount, or as it is where it has no disparity or
        one depth.

        views: those the map was estimated from. sharp: (H, W, 3), the restored picture, in the
        orientation of the views. disparity_scale_px: see ldp.blur.disparity.DisparityEstimator.
        """
        planes = outline_planes(blur_map, views, sharp)
        if planes is None:
            return blur_map
        found, magnitude_px = self._found(planes)
        depth, share = believed(planes, found)
        placed_px = planes.disparity_px(depth) / planes.scale
        # Between what is near and what is far a disparity passes through 0, its magnitude does not.
        amount = -np.expm1(-magnitude_px / planes.scale / np.float32(disparity_scale_px))
        return replace(
            blur_map,
            placed_px=np.asarray(placed_px, np.float32),
            placed_amount=planes.amount + share * (amount - planes.amount),
        )

    def _found(self, planes: OutlinePlanes) -> tuple[Plane, Plane]:
        """Return the depth of every pixel, on the scale of the map's own, and the magnitude of its
        disparity in px of this size, (h, w) each."""
        height, width = planes.own.shape
        down, across = (-side % LARGEST_STRIDE_PX for side in (height, width))

        def padded(array: FloatArray, step: int) -> torch.Tensor:
            widths = ((0, 0), (0, down // step), (0, across // step))
            tensor = torch.from_numpy(np.pad(array, widths, "edge"))
            return tensor[None].to(self.device)

        with torch.inference_mode():
            found = self.network(padded(planes.fine, 1), padded(planes.coarse, 2))
            both = found, mixed(found, padded(planes.own[None], 1))
        shares, depth = (each[0, :, :height, :width].cpu().numpy() for each in both)
        levels_px = planes.disparity_px(np.linspace(0, 1, LEVELS, dtype=np.float32))
        magnitude_px = np.tensordot(np.abs(levels_px), shares[:LEVELS], 1)
        magnitude_px += shares[LEVELS] * np.abs(planes.disparity_px(planes.own))
        return np.asarray(depth[0], np.float32), np.asarray(magnitude_px, np.float32)
