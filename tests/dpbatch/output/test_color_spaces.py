"""Colour spaces and their profiles agree with a colour engine."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from dpbatch.output.color_spaces import SPACES, from_linear_srgb, icc_profile

LINEAR_SRGB = bytes(
    imagecodecs.cms_profile(
        "rgb",
        whitepoint=[0.3127, 0.3290, 1.0],
        primaries=[0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0],
        gamma=1.0,
    )
)


def test_srgb_profile_means_srgb_to_a_colour_engine():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile("srgb")))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    converted = ImageCms.profileToProfile(
        Image.fromarray(picture), profile, ImageCms.createProfile("sRGB")
    )
    difference = np.asarray(converted).astype(int) - picture
    assert np.abs(difference).max() <= 1
    assert ImageCms.getProfileDescription(profile).strip() == "sRGB"


@pytest.mark.parametrize("name", SPACES)
def test_a_colour_engine_reads_from_the_profile_what_was_encoded(name):
    light = np.random.default_rng(0).uniform(0.02, 0.98, (64, 64, 3)).astype(np.float32)
    inside = light @ from_linear_srgb(name).T.astype(np.float32)
    encoded = SPACES[name].curve.encode(inside)
    read = imagecodecs.cms_transform(
        encoded,
        icc_profile(name),
        LINEAR_SRGB,
        colorspace="RGB",
        outcolorspace="RGB",
        outdtype="float32",
    )
    assert np.abs(read - light).max() < 2e-4
    assert len(icc_profile(name)) < 1000
    opened = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile(name)))
    assert ImageCms.getProfileDescription(opened).strip() == SPACES[name].title


@pytest.mark.parametrize("name", SPACES)
def test_white_is_white_and_the_curve_ends_at_zero_and_one(name):
    np.testing.assert_allclose(from_linear_srgb(name) @ np.ones(3), 1, atol=1e-12)
    ends = SPACES[name].curve.encode(np.array([0, 1], np.float32))
    np.testing.assert_allclose(ends, (0, 1), atol=1e-4)
    # Continuous where the straight part meets the power.
    curve = SPACES[name].curve
    near = np.float32(curve.slope * curve.from_) * np.array([0.999, 1.001], np.float32)
    assert np.ptp(curve.encode(near)) < 2e-4


def test_the_wide_spaces_hold_what_srgb_does_not():
    saturated = np.array([-0.05, 0.6, -0.02])  # a green outside sRGB
    for name in ("prophoto", "linear", "rec2020", "adobe-rgb"):
        assert (from_linear_srgb(name) @ saturated >= 0).all(), name
