"""Render a scene as a dual-pixel camera with a thin lens sees it, by ray tracing with Mitsuba 3."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldp.types import FloatArray
from training.errors import TrainingError

if TYPE_CHECKING:
    from types import ModuleType

VARIANTS = ("llvm_ad_rgb", "scalar_rgb")
AMBIENT = 0.35
"""Light from everywhere, of which the sun's is 1 - AMBIENT."""
_TRUTH_PASSES = 8


@dataclass(frozen=True)
class ThinLens:
    """The camera: a thin lens with a round aperture, and how its photodiodes share the light.

    width, height: of the picture in px. focal_px: focal length in px. focus_m: distance of the
    plane of focus. aperture_m: the aperture's radius. ramp_slope: see `left_weights`.
    """

    width: int
    height: int
    focal_px: float
    focus_m: float
    aperture_m: float
    ramp_slope: float

    def coc_px(self, depth_m: FloatArray) -> FloatArray:
        """Return the signed radius of the circle of confusion, near of the focus positive."""
        from_focus = 1 / depth_m - np.float32(1 / self.focus_m)
        return np.asarray(from_focus * np.float32(self.focal_px * self.aperture_m), np.float32)

    @cached_property
    def disparity_per_radius(self) -> float:
        """Disparity of the views over the radius of the circle of confusion."""
        x = aperture_positions(4096)[:, 0]
        weights = left_weights(x, self.ramp_slope)
        return float(-2 * (weights * x).sum() / weights.sum())


@dataclass(frozen=True)
class Rendered:
    """left, right, sharp: (H, W, 3) linear light, the views at the composite's brightness.
    depth_m: (H, W), along the optical axis."""

    left: FloatArray
    right: FloatArray
    sharp: FloatArray
    depth_m: FloatArray


def aperture_positions(count: int) -> npt.NDArray[np.float64]:
    """Return positions spread evenly over a disk of radius 1, (count, 2) of x and y.

    They are pairs that mirror each other in x, so that both views get the same light.
    """
    half = np.arange(count // 2) + 0.5
    radius, angle = np.sqrt(half / len(half)), half * (np.pi * (3 - np.sqrt(5)))
    one = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return np.concatenate([one, one * (-1, 1)])


def left_weights(x: npt.NDArray[np.float64], slope: float) -> npt.NDArray[np.float64]:
    """Return the share of the left view in the light at aperture positions x in [-1, 1].

    The share is a ramp, 0.5 - slope x, between 0 and 1; the right view has the rest. With a slope
    of at most 0.5 the disparity is slope times the radius; an infinite one gives half apertures,
    0.85 times the radius.
    """
    if np.isinf(slope):
        return np.asarray(x < 0, np.float64)
    return np.clip(0.5 - slope * x, 0, 1)


def load_mitsuba(variant: str, threads: int = 0) -> ModuleType:
    """Return Mitsuba with a variant set; threads: 0 for one a core. Raises TrainingError."""
    try:
        import drjit
        import mitsuba

        mitsuba.set_variant(variant)
    except ImportError as error:
        raise TrainingError(
            f"Mitsuba {variant} is not usable ({error}): pip install 'dpbatch[judge]', and a "
            "recent LLVM for llvm_ad_rgb; --variant scalar_rgb needs none"
        ) from error
    if threads:
        drjit.set_thread_count(threads)
    return mitsuba


def render_scene(
    mitsuba: ModuleType, shapes: dict[str, Any], lens: ThinLens, positions: int = 128
) -> Rendered:
    """Render a scene through a lens.

    shapes: Mitsuba's scene dictionary, objects with x to the left and z forwards of the lens, and a
        directional emitter.
    positions: an even number of aperture positions, each with one ray a pixel.
    """
    scene = mitsuba.load_dict(
        {
            "type": "scene",
            # One ray to the sun from what is seen. It is the only emitter that is sampled, so
            # there is no noise; the albedo stands for the light from everywhere.
            "integrator": {
                "type": "aov",
                "aovs": "albedo:albedo,position:position",
                "light": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0},
            },
            **shapes,
        }
    )

    def seen(x: float, y: float, samples: int, seed: int) -> FloatArray:
        sensor = _pinhole(mitsuba, lens, x * lens.aperture_m, y * lens.aperture_m)
        return np.array(mitsuba.render(scene, sensor=sensor, spp=samples, seed=seed), np.float32)

    aperture = aperture_positions(positions)
    weights = left_weights(aperture[:, 0], lens.ramp_slope)
    left = np.zeros((lens.height, lens.width, 3))
    right = np.zeros_like(left)
    for number, ((x, y), weight) in enumerate(zip(aperture, weights, strict=True)):
        light = _light(seen(x, y, 1, number))
        left += weight * light
        right += (1 - weight) * light
    # In passes: all rays of a pass are in memory at once.
    passes = [_light(seen(0, 0, 4, positions + number)) for number in range(_TRUTH_PASSES)]
    # One ray a pixel: a mean of two distances at an edge would be neither.
    depth_m = seen(0, 0, 1, positions + _TRUTH_PASSES)[..., 8]
    return Rendered(
        left=np.asarray(left / weights.sum(), np.float32),
        right=np.asarray(right / weights.sum(), np.float32),
        sharp=np.mean(passes, axis=0, dtype=np.float32),
        depth_m=depth_m,
    )


def _light(channels: FloatArray) -> FloatArray:
    return channels[..., :3] + np.float32(AMBIENT) * channels[..., 3:6]


def _pinhole(mitsuba: ModuleType, lens: ThinLens, x_m: float, y_m: float) -> Any:
    """Return the camera at a position of the aperture, x to the right as seen in the picture."""
    origin = [-x_m, y_m, 0]
    return mitsuba.load_dict(
        {
            "type": "perspective",
            "fov": float(2 * np.degrees(np.arctan(lens.width / 2 / lens.focal_px))),
            "fov_axis": "x",
            "near_clip": 0.01,
            "to_world": mitsuba.ScalarTransform4f().look_at(
                origin=origin, target=[-x_m, y_m, 1], up=[0, 1, 0]
            ),
            # The shear: a point in focus is seen at one place from everywhere.
            "principal_point_offset_x": -x_m / lens.focus_m * lens.focal_px / lens.width,
            "principal_point_offset_y": y_m / lens.focus_m * lens.focal_px / lens.height,
            "film": {
                "type": "hdrfilm",
                "width": lens.width,
                "height": lens.height,
                "rfilter": {"type": "box"},
                "component_format": "float32",
            },
            "sampler": {"type": "multijitter"},
        }
    )
