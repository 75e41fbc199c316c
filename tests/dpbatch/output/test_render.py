"""Wide pictures: what they hold, and how they are rendered."""

import numpy as np
import pytest
import torch

from dpbatch.output.color_spaces import SPACES, from_linear_srgb
from dpbatch.output.light import LARGEST_LIGHT, decode_wide, encode_wide
from dpbatch.output.render import render_wide
from dpbatch.output.tone import ToneCurve, apply_look
from ldp.srgb import encode_srgb

CURVE = ToneCurve((0.0, 0.3, 0.6, 1.0), (0.0, 0.4, 0.75, 1.0))


def wide_of(light: np.ndarray) -> np.ndarray:
    """(H, W, 3) linear sRGB as a wide picture."""
    planes = torch.from_numpy(np.ascontiguousarray(light.transpose(2, 0, 1), np.float32))
    return np.ascontiguousarray(encode_wide(planes).numpy().transpose(1, 2, 0))


def random_light(low: float, high: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (40, 30, 3)).astype(np.float32)


def test_colours_outside_srgb_and_light_above_white_survive():
    light = random_light(0.3, 1.9)
    light[:10] = (-0.04, 0.7, -0.02)
    found = decode_wide(wide_of(light))
    np.testing.assert_allclose(found, light, rtol=3e-4, atol=3e-5)


def test_srgb_is_what_the_plain_way_writes():
    light = random_light(0, 1)
    plain = np.rint(encode_srgb(light.copy()) * 65535)
    found = render_wide(wide_of(light), "srgb")
    assert np.abs(found - plain).max() < 30  # 0.12 of a step of 8 bits


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_encoded_as_its_profile_says(name):
    light = random_light(0.01, 0.9)
    inside = (light @ from_linear_srgb(name).T).astype(np.float32)
    wanted = SPACES[name].curve.encode(np.clip(inside, 0, 1))
    found = render_wide(wide_of(light), name) / 65535
    assert np.abs(found - wanted).max() < 4e-4


def test_a_saturated_colour_keeps_its_saturation_in_a_wide_space_only():
    light = np.full((4, 4, 3), (-0.05, 0.6, -0.02), np.float32)
    assert (render_wide(wide_of(light), "srgb")[..., (0, 2)] == 0).all()
    assert (render_wide(wide_of(light), "prophoto") > 1000).all()


def test_exposure_is_a_factor_of_light():
    light = random_light(0.05, 0.4)
    brighter = render_wide(wide_of(light), "linear", exposure_ev=1.0).astype(float)
    plain = render_wide(wide_of(light), "linear").astype(float)
    np.testing.assert_allclose(brighter, 2 * plain, atol=2)


def test_the_look_is_the_cameras_below_the_highlights():
    light = random_light(0.02, 0.35)
    srgb = np.rint(encode_srgb(light.copy()) * 65535).astype(np.uint16)
    expected = apply_look(srgb, CURVE).astype(float)
    dark = expected.max(axis=2) < 0.85 * 65535
    found = render_wide(wide_of(light), "srgb", CURVE).astype(float)
    assert dark.mean() > 0.5
    assert np.abs(found - expected)[dark].max() < 60


def test_highlights_are_rolled_off_with_a_look_and_clipped_without():
    ramp = np.repeat(np.linspace(0.5, LARGEST_LIGHT, 400, dtype=np.float32), 3).reshape(1, 400, 3)
    clipped = render_wide(wide_of(ramp), "srgb")
    assert (clipped[0, 200:] == 65535).all()
    rolled = render_wide(wide_of(ramp), "srgb", CURVE)[0, :, 1].astype(int)
    assert (np.diff(rolled) >= 0).all()
    assert rolled[-1] >= 65534
    white, brighter = rolled[133], rolled[266]
    assert 0.9 * 65535 < white < 0.97 * 65535
    assert brighter - white > 1000  # still to be told apart
    assert np.ptp(render_wide(wide_of(ramp), "srgb", CURVE), axis=2).max() < 30  # grey stays grey
