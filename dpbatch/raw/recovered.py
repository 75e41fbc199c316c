"""Light above the composite's clipping, which the photodiode's frame shows.

Each photodiode takes half of the light and its frame has the composite's range, so it holds up to
one stop more: there the composite's light is the sum of the two views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dpbatch.raw.cells import by_position, to_mosaic

if TYPE_CHECKING:
    from dpbatch.raw.frames import RawPair
    from dpbatch.raw.splitter import Splitter

HEADROOM_EV = 1.0
_LEAST_SHARE = 1e-4
"""A photo with fewer clipped samples is not worth a file of another scale."""


def clipping_dn(pair: RawPair) -> int:
    """Return the DN from which on the composite is clipped in some colour; LibRaw's white if none.

    An editor that is told a higher level takes clipped samples for light, and shows them magenta.
    """
    seen = pair.composite_clip.full[np.isfinite(pair.composite_clip.pile)]
    return int(min(seen.min(initial=pair.white_level), pair.white_level))


@dataclass(frozen=True)
class Recovered:
    """The composite frame of a photo, with the light above its clipping where it has any.

    headroom_ev: how far the light may lie above the composite's clipping: HEADROOM_EV, or 0 where
        hardly anything is clipped.
    ceiling_dn: where it is clipped, black included.
    """

    splitter: Splitter
    black: Tensor
    headroom_ev: float
    ceiling_dn: int

    @classmethod
    def of(cls, pair: RawPair, splitter: Splitter, wanted: bool = True) -> Recovered:
        """Prepare a photo. wanted: False to leave the composite as it is, without headroom."""
        black, limit_dn = by_position(pair.composite_black, pair.cfa), clipping_dn(pair)
        headroom_ev = HEADROOM_EV
        if not wanted or splitter.clipped_share < _LEAST_SHARE:
            headroom_ev = 0.0
        lowest = float(pair.composite_black.min())
        ceiling = lowest + 2**headroom_ev * (limit_dn - lowest)
        return cls(splitter, black.to(splitter.device), headroom_ev, int(ceiling))

    def samples(self, rows: slice, columns: slice) -> Tensor:
        """Return a part of the mosaic, (h, w) float32, DN, black included.

        Samples that are not clipped are the composite's own, whole numbers.
        """
        cells = [slice(part.start // 2, -(-part.stop // 2)) for part in (rows, columns)]
        odd = [part.start % 2 for part in (rows, columns)]
        composite = self.splitter.composite(*cells)
        if self.headroom_ev:
            split = self.splitter.split(*cells)
            light = (split.left + split.right + self.black).clamp(max=self.ceiling_dn)
            # A clipped sample is a lower bound of the light.
            recovered = torch.maximum(light.round(), composite)
            composite = torch.where(split.unreliable, recovered, composite)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        return to_mosaic(composite)[odd[0] : odd[0] + height, odd[1] : odd[1] + width]
