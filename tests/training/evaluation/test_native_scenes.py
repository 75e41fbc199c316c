"""Scenes at a camera's own resolution: what is true of all of them."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from training.evaluation.native import estimator_for, inside, width_height
from training.evaluation.native_scenes import (
    NativeScene,
    held_out_scenes,
    make_pair,
    standard_scenes,
)
from training.simulator.scenes import ESTIMATOR

SIZE = (72, 96)


def photo(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def test_a_size_is_two_sides() -> None:
    assert width_height("1500x1000") == (1500, 1000)
    for text in ("12", "0x5", "5x", "-4x8", "4x8x2", "1.5x2"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected WxH in px"):
            width_height(text)


def test_a_score_leaves_out_as_much_of_the_border_as_mirrored_content_reaches_into() -> None:
    rows = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 20, 3), np.float32)
    np.testing.assert_array_equal(inside(rows, 4), rows[4:8, 4:16])
    np.testing.assert_array_equal(inside(rows, 6), rows)


def test_whole_frames_are_judged_with_the_estimator_of_any_photo() -> None:
    assert estimator_for((4000, 6000), "disparity") == "disparity"
    assert estimator_for((900, 1200), "disparity") == ESTIMATOR
    assert estimator_for((900, 1200), "learned") == "learned"


def test_held_out_scenes_have_all_radii_both_ratios_and_mixed_depths_of_their_own() -> None:
    scenes = held_out_scenes()
    single = {(abs(scene.radii_px[0]), scene.ratio) for scene in scenes if not scene.mixed}
    assert single == {(r, ratio) for r in (5.0, 20.0, 45.0, 80.0) for ratio in (0.15, 0.6)}
    mixed = {scene.radii_px for scene in scenes if scene.mixed}
    assert len(mixed) >= 4
    assert not mixed & {scene.radii_px for scene in standard_scenes()}


def test_a_held_out_scene_has_another_seed_and_every_depth_of_its_layers() -> None:
    radii_px = (-4.0, 0.0, 3.0)
    made, other = (
        make_pair(NativeScene("", radii_px, 0.6, held_out), [photo(0), photo(1)], SIZE, 0)
        for held_out in (True, False)
    )
    assert not np.array_equal(made.truth, other.truth)
    assert set(np.unique(made.radius_px)) <= set(radii_px)
    near = float((made.radius_px == 3.0).mean())
    assert 0.3 < near < 0.5
    np.testing.assert_allclose(made.disparity_px, 0.6 * made.radius_px, atol=1e-6)
