"""Recover light above the composite's clipping from the photodiode's frame.

Each photodiode takes half of the light and its frame has the composite's range, so it shows up to
one stop more: there the composite's light is the sum of the two views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpbatch.raw.checks import Mosaic

if TYPE_CHECKING:
    from dpbatch.raw.frames import RawPair
    from dpbatch.raw.splitter import SplitMosaics

HEADROOM_EV = 1.0
_LEAST_SHARE = 1e-4
"""A photo with fewer recovered samples is not worth a file of another scale."""


@dataclass(frozen=True)
class Recovered:
    """A composite frame with light above its clipping.

    mosaic: (H, W) uint16. Samples that are not clipped are the composite's own.
    ceiling_dn: where it is clipped, black included.
    headroom_ev: how far that lies above the composite's own clipping; 0 or HEADROOM_EV.
    """

    mosaic: Mosaic
    ceiling_dn: int
    headroom_ev: float


def clipping_dn(pair: RawPair) -> int:
    """Return the DN from which on the composite is clipped in some colour; LibRaw's white if none.

    An editor that is told a higher level takes clipped samples for light, and shows them magenta.
    """
    seen = pair.composite_clip.full[np.isfinite(pair.composite_clip.pile)]
    return int(min(seen.min(initial=pair.white_level), pair.white_level))


def recover_highlights(pair: RawPair, mosaics: SplitMosaics) -> Recovered:
    """Return the composite with what the views show above its clipping.

    Where hardly anything is clipped, the composite is returned as it is, without headroom.
    """
    limit_dn = clipping_dn(pair)
    rows, columns = np.nonzero(mosaics.unreliable)
    if rows.size < _LEAST_SHARE * pair.composite.size:
        return Recovered(pair.composite, limit_dn, 0.0)
    black = pair.composite_black[pair.cfa[rows % 2, columns % 2]]
    ceiling = black.min() + 2**HEADROOM_EV * (limit_dn - black.min())
    light = mosaics.left[rows, columns] + mosaics.right[rows, columns] + black
    # A clipped sample is a lower bound of the light.
    light = np.clip(light, pair.composite[rows, columns], ceiling)
    mosaic = pair.composite.copy()
    mosaic[rows, columns] = np.rint(light).astype(np.uint16)
    return Recovered(mosaic, int(ceiling), HEADROOM_EV)
