"""Develop a dual-pixel raw into two views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpbatch.raw.shading import match_views, measure_shading
from dpbatch.raw.splitter import split
from dpbatch.raw.white_balance import white_balance_gains
from dpbatch.settings import RawSettings
from ldp.srgb import encode_srgb
from ldp.types import ViewPair

if TYPE_CHECKING:
    from dpbatch.raw.reader import DualRaw

# A view has half of the composite's light; this gain makes it as bright as an ordinary photo.
VIEW_GAIN = 2.0


def develop(dual: DualRaw, settings: RawSettings) -> ViewPair:
    """Split, match and develop both views with the same parameters.

    Returns float32 views (H, W, 3) of the active area, sRGB primaries, sRGB-encoded, clipped at
    white (1); negative noise is kept. The pixels stay in the sensor's orientation; `orientation`
    is the EXIF orientation that turns them upright. Raises ValueError for an unknown
    demosaic, DamagedError for a white balance that this file does not give.
    """
    if settings.white_balance != "camera":
        dual = dual.with_white_balance(white_balance_gains(dual, settings.white_balance))
    pair = dual.pair
    mosaics = split(pair, settings.swap)
    if settings.shading:
        match_views(mosaics, measure_shading(mosaics, pair.active))
    left_mosaic, right_mosaic = mosaics.left, mosaics.right
    del mosaics
    left = encode_srgb(dual.render(left_mosaic, demosaic=settings.demosaic, bright=VIEW_GAIN))
    del left_mosaic  # 180 MB at 45 MP, not needed while the right view is rendered
    right = encode_srgb(dual.render(right_mosaic, demosaic=settings.demosaic, bright=VIEW_GAIN))
    return ViewPair(left, right, pair.orientation)
