"""Which layers of depth a picture is drawn in, and how each is blurred and moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ldp.types import FloatArray, Plane

_RADIUS_STEP_PX = 1.0
_RADIUS_STEP = 0.2
"""The radii of neighbouring layers differ by the larger of the two, in px and as a share."""
_SHIFT_STEP_PX = 0.5
_STILL_PX = 0.25
"""What would move by less stays in its place."""


@dataclass(frozen=True)
class Layers:
    """The layers, from the farthest to the nearest.

    depths_px: (n,) disparities, rising, and what layer each is in: (n,) `positions`, rising; one
    layer may reach from one disparity to another. radii_px: (m,) of their discs. shifts_px: (m, 2)
    by which they move to the right and down.
    """

    depths_px: FloatArray
    positions: FloatArray
    radii_px: FloatArray
    shifts_px: FloatArray

    def is_still(self, number: int) -> bool:
        """Return whether a layer is neither blurred nor moved."""
        return not self.radii_px[number] and not self.shifts_px[number].any()

    @property
    def reach_px(self) -> int:
        """How far around a pixel others may change it."""
        shift_px = 2 * float(np.abs(self.shifts_px).max())
        return int(np.ceil(2.5 * float(self.radii_px.max()) + shift_px)) + 8

    def position(self, disparity_px: Plane) -> Plane:
        """Return in which layer a depth is, with the share of the next nearer one as fraction."""
        return np.asarray(np.interp(disparity_px, self.depths_px, self.positions), np.float32)


@dataclass(frozen=True)
class Lens:
    """What the picture is drawn with.

    focus_px: the disparity that is sharp and stays. radius_per_px: of the discs, for each px of
    disparity from there; 0 for no blur. shift_per_px: by how much what is a px nearer moves to the
    right and down. still_radius_px: less is no blur. largest_radius_px: more is drawn as this.
    """

    focus_px: float = 0.0
    radius_per_px: float = 0.0
    shift_per_px: tuple[float, float] = (0.0, 0.0)
    still_radius_px: float = 0.5
    largest_radius_px: float = 200.0


def layers_of(lens: Lens, farthest_px: float, nearest_px: float) -> Layers:
    """Return the layers of a photo with these disparities."""
    nearer = _distances(lens, nearest_px - lens.focus_px)
    farther = _distances(lens, lens.focus_px - farthest_px)
    still_px = nearer[0]
    distances = np.array([*(-each for each in reversed(farther[1:])), 0.0, *nearer[1:]])
    in_focus = len(farther) - 1
    positions = np.arange(len(distances), dtype=np.float64)
    depths = np.insert(distances, in_focus + 1, still_px)
    depths[in_focus] = -still_px
    return Layers(
        np.asarray(lens.focus_px + depths, np.float32),
        np.insert(positions, in_focus, in_focus).astype(np.float32),
        np.minimum(np.abs(distances) * lens.radius_per_px, lens.largest_radius_px).astype(
            np.float32
        ),
        np.outer(distances, lens.shift_per_px).astype(np.float32),
    )


def _distances(lens: Lens, largest_px: float) -> list[float]:
    """Return the distances of the layers to one side of the focus, in px of disparity, rising.

    The first is that up to which there is neither blur nor movement.
    """
    shift = float(np.hypot(*lens.shift_per_px))
    limits = [(lens.radius_per_px, lens.still_radius_px), (shift, _STILL_PX)]
    distance = min((limit / rate for rate, limit in limits if rate), default=largest_px)
    found = [max(distance, 1e-3)]
    while found[-1] < largest_px:
        steps = []
        if lens.radius_per_px:
            radius_px = found[-1] * lens.radius_per_px
            steps.append(max(_RADIUS_STEP_PX, _RADIUS_STEP * radius_px) / lens.radius_per_px)
        if shift:
            steps.append(_SHIFT_STEP_PX / shift)
        found.append(found[-1] + min(steps))
    return found
