"""The noise level of a single picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ldp.restore.noise import noise_level
from ldp.types import FloatArray


def scene(side: int = 300) -> FloatArray:
    """Smooth areas of all brightnesses, with edges and fine texture in a third of them."""
    rng = np.random.default_rng(0)
    small = rng.random((7, 9, 3)).astype(np.float32)
    picture = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC) * 0.6 + 0.2
    picture[: side // 3] += rng.uniform(-0.15, 0.15, (side // 3, side, 3)).astype(np.float32)
    return np.asarray(picture, np.float32)


@pytest.mark.parametrize("deviation", [0.003, 0.01, 0.04])
def test_the_level_is_the_deviation_of_white_noise_whatever_the_scene(deviation: float) -> None:
    rng = np.random.default_rng(1)
    picture = scene() + rng.normal(0, deviation, (300, 300, 3)).astype(np.float32)
    assert noise_level(picture) == pytest.approx(deviation, rel=0.2)
    sixteen_bit = (picture.clip(0, 1) * 65535).astype(np.uint16)
    assert noise_level(sixteen_bit) == pytest.approx(noise_level(picture), rel=0.05)


def test_a_picture_without_noise_has_none() -> None:
    assert noise_level(scene()) < 0.001


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_areas_do_not_count(level: float) -> None:
    picture = scene() + np.random.default_rng(1).normal(0, 0.02, (300, 300, 3)).astype(np.float32)
    picture[:, :200] = level
    assert noise_level(picture) == pytest.approx(0.02, rel=0.25)
    assert noise_level(np.full((64, 64, 3), level, np.float32)) == 0


def test_noise_beyond_what_networks_are_trained_on_is_given_as_the_strongest() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.2, (64, 64, 3)).astype(np.float32)
    assert noise_level(noise) == 0.06


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (17, 18), (18, 18)])
def test_small_pictures_have_a_level_too(size: tuple[int, int]) -> None:
    assert 0 <= noise_level(np.full((*size, 3), 0.5, np.float32)) < 0.001
