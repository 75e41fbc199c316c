"""A restored photo as if the lens had been focused elsewhere, or seen from beside its middle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpbatch.focus_settings import FocusSettings
from dpbatch.output.color import apply_orientation
from dpbatch.output.focus import depths_px, signed_disparity
from ldp.blur.outlines import enlarged_bands
from ldp.blur.ratio import disparity_per_radius
from ldp.restore.depth_layers import Coding, drawn
from ldp.restore.layer_plan import Layers, Lens, layers_of
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import BlurMap, FloatArray, Picture16, Plane16, as_float, to_uint16

LARGEST_SHIFT = 0.5
"""Of the disparity: so far the two halves of the lens see things moved."""
LARGEST_RADIUS = 0.04
"""Of the discs, as a share of the longer side."""
_STILL_RADIUS = 1 / 6000
"""Less is no blur, as a share of the longer side."""
_LEAST_STILL_RADIUS_PX = 0.5
_OUTLINE = 2.5
"""Half the width of the slope at an outline, in pixels of the map."""


@dataclass(frozen=True)
class Redrawing:
    """How the pictures and planes of one photo are drawn anew.

    position: (H, W), in which of the layers each pixel is. outline_px: see `depth_layers.drawn`.
    how: what is done, in words. warnings: where it is not what was asked for.
    """

    position: npt.NDArray[np.float16]
    layers: Layers
    outline_px: float
    how: str
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        blur_map: BlurMap,
        aligned: BlurMap,
        sharp: Picture16,
        focus: FocusSettings,
        orientation: int,
    ) -> Redrawing:
        """Plan what `focus` asks for.

        blur_map: of the photo, as it was measured. aligned: with its steps at the outlines. sharp:
        (H, W, 3), the restored picture. orientation: turns it upright.

        Raises OutputError where the map has no disparity.
        """
        disparity_px = signed_disparity(aligned, "refocus and bokeh shift go by")
        farthest_px, nearest_px = depths_px(disparity_px)
        focus_px = focus.refocus_px
        in_focus_px = 0.0 if focus_px is None else focus_px
        said: list[str] = []
        warnings: list[str] = []
        radius_per_px = 0.0
        if focus_px is not None:
            radius_per_px = 1 / disparity_per_radius(blur_map, sharp.shape[1])
            said.append(f"refocused at {focus_px:+.1f} px")
            if not disparity_px.min() <= focus_px <= disparity_px.max():
                warnings.append(
                    f"no part of the photo is in focus at {focus_px:+.1f} px; its depths are "
                    f"{nearest_px:+.1f} to {farthest_px:+.1f} px"
                )
        strongest_px = max(abs(nearest_px - in_focus_px), abs(farthest_px - in_focus_px))
        shift_px = focus.bokeh_shift
        if abs(shift_px) > LARGEST_SHIFT * strongest_px:
            shift_px = float(np.copysign(LARGEST_SHIFT * strongest_px, shift_px))
            warnings.append(
                f"the bokeh is shifted by {shift_px:+.1f} px, not {focus.bokeh_shift:+.1f}: the "
                "lens sees no more than half of the strongest disparity"
            )
        if focus.bokeh_shift:
            said.append(f"bokeh shifted by {shift_px:+.1f} px")
        shift = shift_px / strongest_px if shift_px else 0.0
        right, down = rightwards(orientation)
        longer_px = max(sharp.shape)
        lens = Lens(
            in_focus_px,
            radius_per_px,
            (shift * right, shift * down),
            max(_LEAST_STILL_RADIUS_PX, _STILL_RADIUS * longer_px),
            LARGEST_RADIUS * longer_px,
        )
        layers = layers_of(lens, float(disparity_px.min()), float(disparity_px.max()))
        position = np.empty(sharp.shape[:2], np.float16)
        for rows, band in enlarged_bands(disparity_px, sharp):
            position[rows] = layers.position(band)
        outline_px = max(1.0, _OUTLINE * sharp.shape[1] / disparity_px.shape[1])
        return cls(position, layers, outline_px, ", ".join(said), tuple(warnings))

    def picture(self, picture: Picture16) -> Picture16:
        """Return a picture (H, W, 3), encoded by the curve of sRGB in any primaries, drawn anew."""
        return drawn(
            picture,
            self.position,
            self.layers,
            Coding(_light, _encoded),
            outline_px=self.outline_px,
        )

    def plane(self, plane: Plane16) -> Plane16:
        """Return a plane (H, W) with its values where the picture has what they are about."""
        if not self.layers.shifts_px.any():
            return plane
        unblurred = replace(self.layers, radii_px=np.zeros_like(self.layers.radii_px))
        moved = drawn(
            plane[..., None],
            self.position,
            unblurred,
            Coding(as_float, to_uint16),
            outline_px=self.outline_px,
        )
        return moved[..., 0]


def rightwards(orientation: int) -> tuple[int, int]:
    """Return the step (x, y) on the sensor that leads to the right in the upright picture."""
    y, x = (apply_orientation(each, orientation) for each in np.mgrid[:2, :2])
    return int(x[0, 1] - x[0, 0]), int(y[0, 1] - y[0, 0])


def _light(picture: Picture16) -> FloatArray:
    return decode_srgb(as_float(picture))


def _encoded(light: FloatArray) -> Picture16:
    return to_uint16(encode_srgb(np.ascontiguousarray(light)))
