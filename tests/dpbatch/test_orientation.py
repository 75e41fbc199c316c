"""A photo comes out upright however the camera was held, and near stays near."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from dpbatch import __version__
from dpbatch.output.metadata import ProcessingNote
from dpbatch.photo import RestoredPhoto, developed, load, save
from dpbatch.settings import OutputSettings, RawSettings
from dpbatch.types import Photo
from ldp.blur.disparity import DisparityEstimator
from ldp.srgb import encode_srgb
from training.simulator.cr2.layout import CameraTags
from training.simulator.optics import KernelShape
from training.simulator.render import Surface, render
from training.simulator.sensor import Sensor, write_dual_pixel_raw

TURNS = {1: 0, 3: 2, 6: 1, 8: -1}
"""EXIF orientation -> quarter turns to the left from the upright picture to the sensor."""


def upright_scene() -> np.ndarray:
    """Texture that has no symmetry: bright at the top left, reddish at the right."""
    noise = np.random.default_rng(0).random((176, 176), np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.0)
    texture = (texture - texture.mean()) / texture.std() * 0.08 + 0.25
    scene = np.repeat(texture[..., None], 3, 2)
    scene[:60, :60] += 0.3
    scene[:, 120:, 0] += 0.2
    return np.clip(scene, 0.02, 0.9).astype(np.float32)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("coc_px", [3.0, -3.0])
def test_upright_and_near_stays_near(tmp_path: Path, orientation: int, coc_px: float) -> None:
    scene = upright_scene()
    on_sensor = np.ascontiguousarray(np.rot90(scene, TURNS[orientation]))
    plane = np.full(on_sensor.shape[:2], coc_px, np.float32)
    pair = render([Surface(on_sensor, np.ones_like(plane), plane)], KernelShape(ramp=1.2))
    source = tmp_path / "a.CR2"
    sensor = Sensor(tags=CameraTags(orientation=orientation))
    write_dual_pixel_raw(source, pair.left, pair.right, sensor, seed=0)

    photo = Photo("raw", (source,), "a")
    loaded = load(photo, RawSettings())
    views = developed(loaded, RawSettings())
    blur_map = DisparityEstimator(field_falloff=0.0).estimate(views)
    mean = np.clip((views.left + views.right) / 2, 0, 1)
    restored = RestoredPhoto(
        (mean * 65535).astype(np.uint16),
        blur_map,
        views.orientation,
        loaded.metadata,
    )
    target = tmp_path / "out" / "a.tif"
    note = ProcessingNote(__version__, "a.CR2")
    save(restored, target, OutputSettings(layers=("disparity",)), note)

    written = tifffile.imread(target) / 65535
    truth = encode_srgb(cv2.GaussianBlur(scene, (0, 0), 2.0).astype(np.float32))
    assert np.abs(written - truth).mean() < 0.03
    for turns in (1, 2, 3):
        assert np.abs(np.rot90(written, turns) - truth).mean() > 0.05
    disparity = tifffile.imread(target.with_name("a.disparity.tif")).astype(float) - 32768
    assert np.sign(np.median(disparity)) == np.sign(coc_px)
