"""`dpbatch simulate`: write the Dual Pixel RAW file of a sharp picture and its depth map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpbatch.errors import AbortError, OutputError, SettingsError
from dpbatch.output.atomic import atomic_file
from training.errors import TrainingError
from training.simulator.exposure import DepthScale, Lens, expose_scene
from training.simulator.render import RenderedPair
from training.simulator.sensor import write_dual_pixel_raw


@dataclass(frozen=True)
class Camera:
    """The values of the command's options; see training.simulator.exposure for their meaning."""

    near_m: float | None = None
    far_m: float | None = None
    depth_scale: float | None = None
    focal_length_mm: float = 50.0
    f_number: float = 1.8
    focus_m: float = 1.5
    pixel_pitch_um: float | None = None
    iso: int = 100
    seed: int = 0


def simulate_raw(out: Path, picture: Path, depth: Path, camera: Camera) -> RenderedPair:
    """Write FILE.CR2 whole or not at all; return what was rendered, in the sensor's orientation.

    Raises SettingsError where the files or the options cannot be used, AbortError where the result
    cannot be written.
    """
    given = (camera.near_m is not None, camera.far_m is not None, camera.depth_scale is not None)
    if given not in ((True, True, False), (False, False, True)):
        raise SettingsError("give either --near-m with --far-m, or --depth-scale")
    try:
        scale = DepthScale(camera.near_m, camera.far_m, camera.depth_scale)
        lens = Lens(camera.focal_length_mm, camera.f_number, camera.focus_m, camera.pixel_pitch_um)
        exposure = expose_scene(picture, depth, scale, lens, camera.iso)
    except TrainingError as error:
        raise SettingsError(str(error)) from error
    try:
        with atomic_file(out) as temporary:
            write_dual_pixel_raw(
                temporary, exposure.left, exposure.right, exposure.sensor, camera.seed
            )
    except ValueError as error:
        raise SettingsError(f"{picture}: {error}") from error
    except OutputError as error:
        raise AbortError(str(error)) from error
    return exposure.pair
