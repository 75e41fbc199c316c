"""Put restored light back onto the camera's colour filter array.

A raw editor does with the result what it does with the camera's own file: its profile, white
balance and highlights. So nothing is replaced that the network did not change. What it did change
is added as a difference of light to the numbers of the composite frame; colours outside sRGB and
light above white, which the network's pictures cannot hold, stay those of the composite.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dpbatch.raw.camera_space import CHANNELS, CameraSpace

_EXCESS_KEPT_TO = 0.2
"""Light above white stays where the network leaves white, and is gone where it takes this much."""


def with_change(light: Tensor, change: Tensor, white: float | Tensor = 1.0) -> Tensor:
    """Return light with a change added that was made to what of it is not above white.

    light, change: of one shape, in the same linear units; white: the white of these units, and the
        change's unit.

    Where the light is above white, the excess fades as the change makes it darker.
    """
    excess = (light - white).clamp(min=0)
    kept = (1 + change / (_EXCESS_KEPT_TO * white)).clamp(0, 1)
    kept = kept * kept * (3 - 2 * kept)
    return light - excess * (1 - kept) + change


class Remosaic:
    """Adds changes of light to the samples of a photo's mosaic."""

    def __init__(self, camera: CameraSpace, ceiling_dn: float, device: torch.device) -> None:
        """ceiling_dn: where results are clipped."""
        self._matrix = torch.from_numpy(camera.balanced_from_srgb.astype(np.float32)).to(device)
        self._camera = camera
        self._ceiling_dn = ceiling_dn

    def samples(self, base: Tensor, change: Tensor, origin: tuple[int, int]) -> Tensor:
        """Return samples of the restored picture, (h, w) uint16.

        base: (h, w) float32, DN, black included: the composite frame, its highlights recovered.
        change: (3, h, w), restored less unrestored light, linear, sRGB primaries, white at 1.
        origin: row and column of the part in the picture.

        A sample whose light does not change keeps its number.
        """
        camera_change = (self._matrix @ change.flatten(1)).view(change.shape)
        restored = torch.empty_like(base)
        for row, column in np.ndindex(2, 2):
            color = int(self._camera.cfa[(origin[0] + row) % 2, (origin[1] + column) % 2])
            place = (slice(row, None, 2), slice(column, None, 2))
            black, full_dn = float(self._camera.black[color]), float(self._camera.full_dn[color])
            difference = camera_change[int(CHANNELS[color])][place] * full_dn
            restored[place] = with_change(base[place] - black, difference, full_dn) + black
        restored = restored.clamp_(0, self._ceiling_dn)
        is_changed = (change != 0).any(0)
        return (torch.where(is_changed, restored, base) + 0.5).to(torch.uint16)
