"""Blown highlights are neutral and all else is left alone, wherever and however a sensor clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dpbatch.raw.clipping import ClipLevels, measure_clipping
from dpbatch.raw.develop import develop
from dpbatch.raw.frames import RawPair
from dpbatch.raw.highlights import ClipRamp
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from dpbatch.tools.inspect import measure_frames
from ldp.types import ViewPair
from tests.helpers.blown import (
    HEIGHT,
    OVEREXPOSURES,
    PATCHES,
    WB_RGGB,
    WIDTH,
    Sensor,
    blown_scene,
    inside_highlight,
    patch,
    record,
)
from tests.helpers.cr3_writer import Cr3Camera, write_cr3
from training.simulator.cr2.writer import write_cr2_frames

CFA = np.array([[0, 1], [3, 2]], np.int8)
LEVELS = (12000, 13105, 14500, 16383)
SPREADS = (0, 400)
NOISES = (3, 12)


def developed(
    folder: Path, light: npt.NDArray[np.float64], sensor: Sensor, kind: str
) -> tuple[ViewPair, RawPair]:
    composite, photodiode = record(light, sensor)
    path = folder / f"a.{kind}"
    if kind == "cr2":
        write_cr2_frames(path, (composite, photodiode), wb_rggb=WB_RGGB, black_level=sensor.black)
    else:
        camera = Cr3Camera(
            bits=sensor.bits,
            black=sensor.black,
            crop=(sensor.left, sensor.top),
            active_origin=(sensor.left - 12, sensor.top - 12),
        )
        write_cr3(path, composite, photodiode, camera=camera)
    pair = read_dual(path)
    return develop(pair, RawSettings()), pair


def check(views: ViewPair, reference: ViewPair) -> None:
    for view, plain in ((views.left, reference.left), (views.right, reference.right)):
        for number in range(len(OVEREXPOSURES)):
            inside = inside_highlight(number)[: view.shape[0], : view.shape[1]]
            blown = view[: inside.shape[0], : inside.shape[1]][inside]
            assert np.ptp(blown, axis=1).max() < 0.03
            assert blown.min() > 0.97
        for number in range(len(PATCHES)):
            here, there = (v[patch(number)].mean(axis=(0, 1)) for v in (view, plain))
            assert np.abs(here - there).max() < 0.005


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("level", LEVELS)
def test_blown_highlights_of_a_cr2(tmp_path: Path, level: int, spread: int, noise: int) -> None:
    sensor = Sensor(clip=level, spread_dn=spread, noise_dn=noise)
    plain = Sensor(noise_dn=noise)
    reference, _ = developed(tmp_path, blown_scene(highlights=False), plain, "cr2")
    views, pair = developed(tmp_path, blown_scene(), sensor, "cr2")
    check(views, reference)
    frames = measure_frames(pair)
    found = [value for value in frames.composite_clip_level if value is not None]
    assert found
    assert level - spread - 4 * noise <= min(found) <= max(found) <= level + 4 * noise
    least, most = (
        float(np.mean(pair.composite >= level - factor * spread - 3 * noise)) for factor in (1, 3)
    )
    assert 0.99 * least <= frames.composite_clipped <= 1.01 * most


@pytest.mark.parametrize("bits", [14, 12])
@pytest.mark.parametrize(
    ("level", "spread", "noise"), [(12000, 400, 12), (13105, 0, 3), (16383, 400, 12)]
)
def test_blown_highlights_of_a_cr3(
    tmp_path: Path, bits: int, level: int, spread: int, noise: int
) -> None:
    step = 1 << (14 - bits)
    plain = Sensor(clip=16383 // step, noise_dn=noise / step, bits=bits, black=512 // step)
    sensor = replace(plain, clip=level // step, spread_dn=spread / step)
    reference, _ = developed(tmp_path, blown_scene(highlights=False), plain, "cr3")
    views, _ = developed(tmp_path, blown_scene(), sensor, "cr3")
    check(views, reference)


def measured(
    light: npt.NDArray[np.float64], sensor: Sensor, white_level: int = 16383
) -> tuple[ClipLevels, ClipLevels]:
    inside = np.s_[sensor.top : sensor.top + HEIGHT, sensor.left : sensor.left + WIDTH]
    composite, photodiode = (frame[inside] for frame in record(light, sensor))
    black = np.full(4, float(sensor.black))
    return measure_clipping(
        composite,
        photodiode,
        cfa=CFA,
        blacks=(black, black),
        white_level=white_level,
    )


@pytest.mark.parametrize("noise", [0, 3, 12, 60])
@pytest.mark.parametrize("level", [0.0, 0.75, 0.85, 0.95])
def test_nothing_clipped_invents_nothing(level: float, noise: float) -> None:
    """A bright and even area is a peak at the upper end of the histogram too."""
    light = blown_scene(highlights=False)
    if level:
        light[100:200, 100:300] = level
    for clip in measured(light, Sensor(noise_dn=noise)):
        assert np.isnan(clip.pile).all()
        assert (clip.start == 16383).all()


def test_a_gradient_up_to_white_is_clipped_only_at_its_end() -> None:
    light = np.repeat(np.linspace(0, 1.3, WIDTH)[None, :, None], HEIGHT, axis=0)
    light = np.repeat(light, 3, axis=2)
    composite, _ = measured(light, Sensor(clip=13105, noise_dn=12))
    assert composite.pile[1] == pytest.approx(13105, abs=30)
    assert 12800 < composite.start[1] < composite.full[1] <= 13105 - 36


def test_a_white_level_that_is_stated_too_low_is_not_believed() -> None:
    light = blown_scene(highlights=False)
    y, x = np.mgrid[:100, :WIDTH]
    light[100:200] = (0.6 + 0.3 * (x + y / 100) / WIDTH)[..., None]
    composite, photodiode = measured(light, Sensor(noise_dn=20), white_level=12000)
    assert composite.start[1] == 16383
    assert photodiode.start[1] == 12000


def test_samples_go_over_from_trusted_to_clipped() -> None:
    clip = ClipLevels(np.full(4, 1000.0), np.full(4, 1100.0), np.full(4, 1150.0))
    samples = torch.tensor([0.0, 1000, 1025, 1050, 1075, 1100, 2000]).expand(4, 1, -1)
    weight = ClipRamp(clip, CFA, torch.device("cpu"))(samples)[0, 0].numpy()
    assert weight[[0, 1, 5, 6]].tolist() == [0, 0, 1, 1]
    assert weight[3] == pytest.approx(0.5)
    assert (np.diff(weight) >= 0).all()


def test_a_scene_that_is_all_blown_is_white(tmp_path: Path) -> None:
    """Nothing but noise is left to measure the views' ratio by."""
    light = np.full((HEIGHT, WIDTH, 3), 1.7) + 0.2 * np.sin(np.arange(WIDTH) / 20)[:, None]
    views, _ = developed(tmp_path, light, Sensor(clip=12000, noise_dn=12), "cr2")
    for view in (views.left, views.right):
        assert view.min() > 0.97


def test_small_glints_stay_neutral(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.full((HEIGHT, WIDTH), 0.2)
    for row, column in np.random.default_rng(0).integers(20, 230, (12, 2)):
        light += 3 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.5**2))
    scene = np.repeat(light[..., None], 3, axis=2)
    views, _ = developed(tmp_path, scene, Sensor(clip=13105, spread_dn=300, noise_dn=6), "cr2")
    left, right = (np.ptp(view, axis=2) for view in (views.left, views.right))
    # The left view is recorded and only demosaiced; the other may be no more colourful.
    assert np.percentile(right, 99.9) < np.percentile(left, 99.9) + 0.03
