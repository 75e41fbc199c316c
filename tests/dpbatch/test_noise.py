"""No ISO makes the result worse than the mean of the two views."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from skimage import data

import ldp
from dpbatch.raw.develop import develop
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings
from ldp.srgb import decode_srgb
from ldp.types import FloatArray, ViewPair, as_float
from training.evaluation.metrics import psnr_db
from training.simulator.cr2.writer import write_dpraw_cr2
from training.simulator.optics import KernelShape
from training.simulator.render import Surface, render

BLACK, WHITE = 512, 16383
WB_RGGB = (2.0, 1.0, 1.0, 1.5)
SIDE_PX = 256
Noise = Literal["photodiodes", "frames"]


@pytest.fixture(scope="module")
def model() -> ldp.Model:
    return ldp.load("tiny", device="cpu")


def mosaic(linear: FloatArray) -> FloatArray:
    """RGGB samples, before white balance, of half the composite's light, in DN above black."""
    samples = np.empty(linear.shape[:2], np.float32)
    for index, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        plane = linear[row::2, column::2, (0, 1, 1, 2)[index]]
        samples[row::2, column::2] = plane / np.float32(WB_RGGB[index])
    return samples * np.float32((WHITE - BLACK) / 2)


def photo(path: Path, views: tuple[FloatArray, FloatArray], iso: int, noise: Noise) -> ViewPair:
    """Two views as a camera takes them. iso: 0 for no noise.

    noise: of two photodiodes, or of the two frames that a file holds, of which one is the sum.
    """
    left, right = (mosaic(view) for view in views)
    rng = np.random.default_rng(iso)

    def grain(signal: FloatArray) -> FloatArray:
        electrons_per_dn = 440 / max(iso, 1)
        read_dn = float(np.hypot(1.5, 1.5 / electrons_per_dn))
        deviation = np.sqrt(np.maximum(signal, 0) / electrons_per_dn + read_dn**2)
        return np.asarray(rng.standard_normal(signal.shape) * deviation * (iso > 0), np.float32)

    composite = left + right
    if noise == "photodiodes":
        left, right = left + grain(left), right + grain(right)
    else:
        left = left + grain(left)
        right = composite + grain(composite) - left
    write_dpraw_cr2(
        path,
        left,
        right,
        wb_rggb=WB_RGGB,
        black_level=BLACK,
        photodiode_black=BLACK,
        white_level=WHITE,
    )
    return develop(read_dual(path), RawSettings(shading=False))


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["photodiodes", "frames"])
@pytest.mark.parametrize("radius_px", [0.0, 4.0])
@pytest.mark.parametrize("iso", [100, 3200, 12_800, 25_600])
@pytest.mark.parametrize("exposure", [0.8, 0.15])
def test_a_result_is_no_worse_than_the_mean_of_the_views(
    tmp_path: Path, model: ldp.Model, noise: Noise, radius_px: float, iso: int, exposure: float
) -> None:
    encoded = np.ascontiguousarray(data.astronaut()[:SIDE_PX, 100 : 100 + SIDE_PX])
    light = decode_srgb(encoded.astype(np.float32) / np.float32(255)) * np.float32(exposure)
    size = light.shape[:2]
    surface = Surface(light, np.ones(size, np.float32), np.full(size, -radius_px, np.float32))
    pair = render([surface], KernelShape(ramp=1.2, rim=0.8))
    path = tmp_path / "a.CR2"
    truth = mean_of(photo(path, (light, light), 0, noise))
    views = photo(path, (pair.left, pair.right), iso, noise)
    before_db = score_db(mean_of(views), truth)
    after_db = score_db(model.restore(views).sharp, truth)
    # Even dark areas in focus, whose disparity is a guess, cost up to 0.023 dB at ISO 100.
    assert after_db > before_db - 0.025
    if radius_px and iso <= 3200:
        assert after_db > before_db + 1


def score_db(picture: FloatArray, truth: FloatArray) -> float:
    return psnr_db(np.clip(picture, 0, 1).astype(np.float64), truth.astype(np.float64))


def mean_of(views: ViewPair) -> FloatArray:
    return (as_float(views.left) + as_float(views.right)) / np.float32(2)
