"""Drawn depths like photographs': what is in focus, before and behind, and what stands on what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.data.rendered import crop_settings
from training.settings import TrainSettings
from training.simulator.layouts import scene_layout
from training.simulator.scenes import SceneSettings, sample_scene

SIDE = 48
REACH_PX = 8.0


def seen(seed: int) -> np.ndarray:
    """The radius of what is seen at each pixel."""
    coc_px = np.zeros((SIDE, SIDE), np.float32)
    for alpha, part in scene_layout(np.random.default_rng(seed), SIDE, REACH_PX):
        coc_px = np.where(alpha > 0.5, part, coc_px)
    return coc_px


def test_a_third_is_in_focus_a_tenth_near_and_the_rest_far() -> None:
    coc_px = np.stack([seen(seed) for seed in range(200)])
    assert np.abs(coc_px).max() <= REACH_PX
    assert 0.25 < np.mean(np.abs(coc_px) < 1) < 0.4
    assert 0.05 < np.mean(coc_px > 1) < 0.15
    assert 0.5 < np.mean(coc_px < -1) < 0.7
    # Something is in focus in nearly every scene, and what is behind it is far.
    assert np.mean([(np.abs(scene) < 1).any() for scene in coc_px]) > 0.9
    assert np.mean([scene.min() < -0.5 * REACH_PX for scene in coc_px]) > 0.9


def test_parts_come_from_the_farthest_to_the_nearest_where_they_cover_each_other() -> None:
    tolerance_px = 0.75  # the reliefs of neighbours
    for seed in range(60):
        parts = scene_layout(np.random.default_rng(seed), SIDE, REACH_PX)
        assert np.all(parts[0][0] == 1)
        behind = parts[0][1]
        for alpha, coc_px in parts[1:]:
            covered = alpha > 0.99
            assert np.all(coc_px[covered] > behind[covered] - tolerance_px)
            behind = np.where(covered, coc_px, behind)


def test_the_ground_comes_nearer_downwards_and_evenly() -> None:
    grounds = 0
    for seed in range(40):
        parts = scene_layout(np.random.default_rng(seed), SIDE, REACH_PX)
        alpha, coc_px = parts[1]
        if np.ptp(alpha, axis=1).any() or alpha[-1].min() < 1:
            continue  # no ground: it reaches across the whole picture's width
        grounds += 1
        steps = np.diff(coc_px[alpha[:, 0] == 1][:, 0])
        assert steps.min() > 0
        np.testing.assert_allclose(steps, steps.mean(), atol=1e-4)
    assert 12 < grounds < 36


def test_a_recipe_chooses_them() -> None:
    settings = crop_settings(TrainSettings(depths="scene")).scenes
    assert settings.depths == "scene"
    assert crop_settings(TrainSettings()).scenes.depths == "random"
    photo = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    small = SceneSettings(side_px=32, radius_px=6.0, in_focus_share=0, depths="scene")
    pairs = [
        sample_scene(np.random.default_rng(3), [photo], chosen)
        for chosen in (small, small, replace(small, depths="random"))
    ]
    np.testing.assert_array_equal(pairs[0].left, pairs[1].left)
    assert not np.array_equal(pairs[0].left, pairs[2].left)
    assert pairs[0].disparity_px.min() < 0
