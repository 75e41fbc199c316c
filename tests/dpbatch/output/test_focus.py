from typing import Any

import numpy as np
import pytest

from dpbatch.errors import OutputError, SettingsError
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.color import apply_orientation
from dpbatch.output.focus import (
    AfArea,
    DepthRange,
    blended,
    depth_ranges,
    focus_weights,
    mask_weights,
    sharpest_depth_px,
    without_unseen,
)
from ldp.types import BlurMap

SIZE = (80, 120)
NEAR = np.zeros(SIZE, bool)
NEAR[:, 70:] = True
SHARP = np.where(NEAR[..., None], 50_000, 20_000).astype(np.uint16).repeat(3, 2)


def _map(near_px: float = 3.0, far_px: float = -2.0) -> BlurMap:
    disparity = np.where(NEAR, near_px, far_px).astype(np.float32)
    amount = -np.expm1(-np.abs(disparity) / 4)
    return BlurMap(amount, disparity, np.ones(SIZE, np.float32))


def _weights(settings: FocusSettings, blur_map: BlurMap | None = None, areas=()) -> np.ndarray:
    blur_map = blur_map or _map()
    ranges = depth_ranges(blur_map, settings, areas)
    return focus_weights(blur_map, blur_map, SHARP, settings, ranges)


@pytest.mark.parametrize(
    ("settings", "near", "far"),
    [
        (FocusSettings(), 65535, 65535),
        (FocusSettings(keep_background=True), 65535, 0),
        (FocusSettings(keep_foreground=True), 0, 65535),
        (FocusSettings(focus_range="4:2"), 65535, 0),
        (FocusSettings(focus_range="-1:-3"), 0, 65535),
        (FocusSettings(focus_range="0%:30%"), 65535, 0),
        (FocusSettings(focus_range="60%:100%"), 0, 65535),
        (FocusSettings(strength=0.0), 0, 0),
    ],
)
def test_what_is_chosen_is_restored_and_nothing_else(
    settings: FocusSettings, near: int, far: int
) -> None:
    found = _weights(settings)
    assert (found[NEAR] == near).all()
    assert (found[~NEAR] == far).all()


def test_the_subject_is_at_the_af_area() -> None:
    settings = FocusSettings(rescue="subject")
    at_the_near = AfArea(0.9, 0.5, 0.05, 0.1)
    at_the_far = AfArea(0.1, 0.5, 0.05, 0.1)
    assert (_weights(settings, areas=[at_the_near]) == np.where(NEAR, 65535, 0)).all()
    assert (_weights(settings, areas=[at_the_far]) == np.where(NEAR, 0, 65535)).all()


def test_without_an_af_area_the_subject_is_what_is_sharpest() -> None:
    blur_map = _map(near_px=0.2, far_px=-4.0)
    assert blur_map.disparity_px is not None
    assert sharpest_depth_px(blur_map, blur_map.disparity_px) == pytest.approx(0.2, abs=0.2)
    settings = FocusSettings(rescue="subject")
    assert (_weights(settings, blur_map) == np.where(NEAR, 65535, 0)).all()


def test_a_depth_that_only_an_outline_passes_through_is_no_subject() -> None:
    x = np.broadcast_to(np.arange(400, dtype=np.float32), (300, 400))
    # -4 px to +1 px, past 0
    ramp = np.asarray(np.clip((x - 196) / 8, 0, 1) * 5 - 4, np.float32)
    found = BlurMap(np.abs(ramp), ramp, np.ones_like(ramp))
    assert sharpest_depth_px(found, ramp) == pytest.approx(1, abs=0.2)


def test_weights_fall_softly_and_never_rise_outside_a_range() -> None:
    depth = DepthRange(2.0, -1.0, 0.5, "")
    disparity = np.linspace(-3, 4, 701, dtype=np.float32)[None]
    weights = depth.weights(disparity)[0]
    assert (weights[(disparity[0] <= 2) & (disparity[0] >= -1)] == 1).all()
    assert (weights[(disparity[0] > 2.51) | (disparity[0] < -1.51)] == 0).all()
    assert np.abs(np.diff(weights)).max() < 0.05


def test_a_mask_follows_the_upright_result() -> None:
    rng = np.random.default_rng(0)
    for orientation in range(1, 9):
        plane = rng.integers(0, 65536, (12, 20)).astype(np.uint16)
        upright = apply_orientation(plane, orientation)
        found = mask_weights(upright, orientation, (12, 20), "m.png")
        assert found is not None
        np.testing.assert_allclose(found * 65535, plane, atol=0.01)


def test_a_mask_of_other_proportions_is_refused() -> None:
    with pytest.raises(OutputError, match=r"m\.png: 20 x 20 pixels.*120 x 80"):
        mask_weights(np.zeros((20, 20), np.uint16), 1, SIZE, "m.png")


def test_blending_is_exact_at_both_ends() -> None:
    rng = np.random.default_rng(1)
    original, sharp = (rng.integers(0, 65536, (*SIZE, 3)).astype(np.uint16) for _ in range(2))
    weights = np.where(NEAR, 65535, 0).astype(np.uint16)
    weights[0] = 32768
    found = blended(original, sharp, weights)
    assert (found[1:][NEAR[1:]] == sharp[1:][NEAR[1:]]).all()
    assert (found[1:][~NEAR[1:]] == original[1:][~NEAR[1:]]).all()
    between = (original[0].astype(np.float64) + sharp[0]) / 2
    np.testing.assert_allclose(found[0], between, atol=1.5)


def test_an_even_part_of_unsure_depth_keeps_the_photo_s_own_numbers() -> None:
    shape = (40, 60)
    original = np.full((*shape, 3), 30_000, np.uint16)
    sharp = original.copy()
    sharp[:, :30] += 150  # less than 1/255
    sharp[::2, 30:] += 2000
    weights = np.full(shape, 50_000, np.uint16)
    sure, unsure = np.ones((4, 6), np.float32), np.zeros((4, 6), np.float32)
    chosen = without_unseen(weights, original, sharp, unsure)
    assert not chosen[:, :24].any()
    assert (chosen[:, 36:] == 50_000).all()
    for confidence in (sure, None):
        assert (without_unseen(weights, original, sharp, confidence) == weights).all()


def test_what_is_clipped_counts_as_changed_where_light_above_it_is_blended_too() -> None:
    picture = np.full((60, 90, 3), 30_000, np.uint16)
    picture[:, :45, 0] = 65535
    weights, unsure = np.full((60, 90), 50_000, np.uint16), np.zeros((1, 1), np.float32)
    chosen = without_unseen(weights, picture, picture, unsure, has_more_light=True)
    assert (chosen[:, :45] == 50_000).all()
    assert not chosen[:, 60:].any()
    assert not without_unseen(weights, picture, picture, unsure).any()


def test_a_map_without_a_sign_cannot_choose_a_depth() -> None:
    with pytest.raises(OutputError, match="--blur disparity"):
        depth_ranges(BlurMap(np.zeros(SIZE, np.float32)), FocusSettings(rescue="subject"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"focus_range": "1:2"}, "fall from near to far"),
        ({"focus_range": "40%:10%"}, "rise from near to far"),
        ({"focus_range": "10%:4"}, "NEAR:FAR"),
        ({"focus_range": "near"}, "NEAR:FAR"),
        ({"strength": float("nan")}, "0 to 1"),
        ({"rescue": "nothing"}, "all, subject"),
        ({"rescue": "subject", "focus_range": "2:1"}, "one of the two"),
        ({"keep_background": True, "keep_foreground": True}, "nothing to restore"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FocusSettings(**values)
