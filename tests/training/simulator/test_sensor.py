from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpbatch.raw.container import probe
from dpbatch.raw.develop import develop
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from ldp.srgb import encode_srgb
from training.simulator.cr2.layout import CameraTags
from training.simulator.sensor import (
    Sensor,
    sensor_at,
    write_dual_pixel_raw,
    write_ordinary_raw,
)

COLOURS = ((0.18, 0.18, 0.18), (0.4, 0.1, 0.08), (0.05, 0.2, 0.35), (0.5, 0.45, 0.1))


def patches(height: int = 192, width: int = 384) -> np.ndarray:
    picture = np.empty((height, width, 3), np.float32)
    for index, colour in enumerate(COLOURS):
        picture[:, index * width // 4 : (index + 1) * width // 4] = colour
    return picture


def test_a_developed_photo_has_the_colours_that_were_photographed(tmp_path: Path) -> None:
    scene = patches()
    path = tmp_path / "a.CR2"
    write_dual_pixel_raw(path, scene, scene, Sensor(shading=0.2), seed=0, noise=False)
    views = develop(read_dual(path), RawSettings())
    truth = encode_srgb(scene.copy())
    for view in (views.left, views.right):
        for index in range(4):
            middle = slice(index * 96 + 24, index * 96 + 72)
            found = np.median(view[48:144, middle], (0, 1))
            np.testing.assert_allclose(found, truth[96, middle.start], atol=0.006)


def test_noise_is_drawn_for_each_photodiode_and_repeats_with_the_seed(tmp_path: Path) -> None:
    scene = np.full((128, 256, 3), 0.2, np.float32)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dual_pixel_raw(tmp_path / name, scene, scene, Sensor(shading=0), seed)
    files = [(tmp_path / name).read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    (tmp_path / "a").rename(tmp_path / "a.CR2")
    pair = read_dual(tmp_path / "a.CR2")
    first = pair.photodiode.astype(float)
    second = pair.composite - first
    green = (slice(0, None, 2), slice(1, None, 2))
    assert first[green].std() > 10
    assert abs(np.corrcoef(first[green].ravel(), second[green].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("dual", [True, False])
def test_the_probe_tells_dual_from_ordinary(tmp_path: Path, dual: bool) -> None:
    scene = patches()
    path = tmp_path / "a.CR2"
    if dual:
        write_dual_pixel_raw(path, scene, scene, Sensor(), seed=0)
    else:
        write_ordinary_raw(path, scene, Sensor())
    assert probe(path).is_dual_pixel is dual


def test_noise_grows_with_the_iso() -> None:
    low, high = (sensor_at(iso, CameraTags()) for iso in (100, 3200))
    assert high.electrons_per_dn == pytest.approx(low.electrons_per_dn / 32)
    assert high.read_noise_dn > 5 * low.read_noise_dn
