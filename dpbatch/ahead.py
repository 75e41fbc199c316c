"""What is found of a photo on the processor before its turn to be restored: blur, camera's look.

On a machine with a GPU the processes that load photos do this, so that the GPU does not wait for
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpbatch.output.tone import ToneCurve
    from ldp import BlurMap, ViewPair
    from ldp.blur.disparity import DisparityEstimator
    from ldp.restore.photo_views import PhotoViews


@dataclass(frozen=True)
class FoundAhead:
    """matched: what matching the views says; None where the blur map is not made of it.

    curve: the camera's tone curve where it is wanted and found. warnings: of finding it.
    """

    matched: BlurMap | None
    curve: ToneCurve | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class UnfittedLook:
    """What the camera's tone curve is fitted to, which takes 0.1 s.

    Beside a CPU that restores, the process that saves does it; a GPU applies the curve, and has to
    have it. small: the photo, scaled down. preview: the camera's JPEG.
    """

    small: ViewPair
    preview: bytes

    @classmethod
    def of(cls, preview: bytes, views: PhotoViews) -> UnfittedLook | None:
        """Return that of a photo; None without a preview, so where its look is not wanted."""
        if not preview:
            return None
        from dpbatch.output.look import READ_PIXELS, mean_pair

        return cls(mean_pair(views.reduced(READ_PIXELS)), preview)

    def fit(self) -> tuple[ToneCurve | None, tuple[str, ...]]:
        """Return the curve, and warnings where the preview does not fit the photo."""
        return curve_of_preview(self.small, self.preview)


def find_ahead(views: PhotoViews, preview: bytes, blur: str) -> FoundAhead:
    """Find what restoring would otherwise find first.

    views: the photo on the CPU. preview, blur: the camera's JPEG and the name of the blur map, or
        empty where they are not wanted.
    """
    matching = matching_of(blur)
    matched = None
    if matching is not None and matching.reduces(views):
        matched = matching.estimate(views)
    unfitted = UnfittedLook.of(preview, views)
    return FoundAhead(matched, *(unfitted.fit() if unfitted else (None, ())))


def curve_of_preview(views: ViewPair, preview: bytes) -> tuple[ToneCurve | None, tuple[str, ...]]:
    """Return the tone curve that a photo's preview shows, and warnings where it does not fit.

    views: the photo, at any size. preview: a JPEG file.
    """
    from dpbatch.output.look import fit_preview

    curve = fit_preview(views, preview)
    if curve is not None:
        return curve, ()
    return None, ("the preview does not fit the photo; the look is neutral",)


@cache
def matching_of(blur: str) -> DisparityEstimator | None:
    """Return what matches views for a blur map, loaded once in a process."""
    from ldp.blur.loading import load_matching

    return load_matching(blur)
