from dataclasses import replace

import cv2
import numpy as np
import pytest

from training.simulator.optics import KernelShape, LensField, view_disparity_px, view_kernels
from training.simulator.render import FrameArea, Surface, light_shares, patches, render

SHAPE = KernelShape(ramp=1.0, rim=0.5, softness_px=0.4)
OFF_AXIS = replace(SHAPE, clip_x=0.2, clip_y=-0.4, shading=-0.3)
FIELD = LensField(SHAPE, disparity_loss=0.5, shading=-0.4, cats_eye=0.4, light_loss=0.5)
SIDE = 96


def texture(seed=0, sigma_px=1.2):
    noise = np.random.default_rng(seed).standard_normal((SIDE, SIDE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return np.clip(0.5 + 0.15 * smooth / smooth.std(), 0, 1)


def surface(coc_px, alpha=1.0, seed=0):
    def plane(value):
        return np.broadcast_to(np.float32(value), (SIDE, SIDE)).astype(np.float32)

    return Surface(texture(seed), plane(alpha), plane(coc_px))


def measured_disparity_px(left, right):
    """x_left - x_right: the peak of the views' cross-correlation along x, through a parabola."""
    reach = 8
    left, right = left[:, reach:-reach] - left.mean(), right - right.mean()
    width = left.shape[1]
    products = [(left * right[:, x : x + width]).mean() for x in range(2 * reach + 1)]
    peak = int(np.argmax(products))
    before, top, after = products[peak - 1 : peak + 2]
    return reach - peak - (before - after) / (2 * (before - 2 * top + after))


def test_without_blur_both_views_are_the_sharp_picture():
    pair = render([surface(0.0)], KernelShape(softness_px=0.0))
    np.testing.assert_allclose(pair.left, pair.sharp, atol=1e-6)
    np.testing.assert_allclose(pair.right, pair.sharp, atol=1e-6)
    np.testing.assert_array_equal(pair.sharp, texture())
    assert not pair.disparity_px.any()


@pytest.mark.parametrize("lens", [SHAPE, FIELD], ids=["kernel", "field"])
def test_in_the_mirror_the_views_are_mirrored_and_swapped(lens):
    slope = np.linspace(-3, 4, SIDE, dtype=np.float32)
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[20:60, 10:50] = 1
    scene = [
        Surface(texture(0), np.ones_like(alpha), np.tile(slope, (SIDE, 1))),
        Surface(texture(1), alpha, np.full_like(alpha, 5)),
    ]
    flipped = [Surface(s.colour[:, ::-1], s.alpha[:, ::-1], s.coc_px[:, ::-1]) for s in scene]
    pair, mirrored = render(scene, lens), render(flipped, lens)
    np.testing.assert_allclose(mirrored.left, pair.right[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(mirrored.right, pair.left[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(mirrored.disparity_px, pair.disparity_px[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPE, OFF_AXIS], ids=["on axis", "off axis"])
@pytest.mark.parametrize("coc_px", [-6.0, 0.4, 5.0])
def test_even_blur_is_the_kernels_and_keeps_the_energy(coc_px, shape):
    scene = surface(coc_px)
    pair = render([scene], shape)
    kernels = view_kernels(coc_px, shape)
    # Their mean is the picture through both views' kernels; a point's image is not turned.
    both = np.ascontiguousarray((kernels[0] + kernels[1])[::-1, ::-1]) / 2
    whole = cv2.filter2D(scene.colour, cv2.CV_32F, both, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose((pair.left + pair.right) / 2, whole, atol=1e-5)
    # A lone point becomes the kernel itself, with all its light.
    point = np.zeros((SIDE, SIDE, 3), np.float32)
    point[40, 50] = 1
    seen = render([Surface(point, scene.alpha, scene.coc_px)], shape)
    for view, kernel in zip((seen.left, seen.right), kernels, strict=True):
        reach = kernel.shape[0] // 2
        around = view[40 - reach : 41 + reach, 50 - reach : 51 + reach, 0]
        np.testing.assert_allclose(around, kernel, atol=1e-6)
        assert view[..., 0].sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("lens", [SHAPE, FIELD], ids=["kernel", "field"])
def test_a_white_picture_stays_white_under_changing_blur(lens):
    slope = np.linspace(-8, 8, SIDE, dtype=np.float32)
    white = np.ones((SIDE, SIDE, 3), np.float32)
    pair = render([Surface(white, white[..., 0], np.tile(slope[:, None], (1, SIDE)))], lens)
    np.testing.assert_allclose(pair.left, 1, atol=1e-5)
    np.testing.assert_allclose(pair.right, 1, atol=1e-5)


@pytest.mark.parametrize("coc_px", [-7.0, -2.0, 3.0, 6.0])
def test_the_views_are_as_far_apart_as_their_kernels(coc_px):
    pair = render([surface(coc_px)], KernelShape(ramp=1.0, softness_px=0.4))
    expected = view_disparity_px(coc_px, KernelShape(ramp=1.0, softness_px=0.4))
    np.testing.assert_allclose(pair.disparity_px, expected, atol=0.02)
    found = measured_disparity_px(pair.left, pair.right)
    assert np.sign(found) == np.sign(coc_px)
    assert found == pytest.approx(expected, rel=0.25)


def test_a_near_surface_hides_a_far_one():
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[:, : SIDE // 2] = 1
    near, far = surface(4.0, alpha, seed=1), surface(-4.0, seed=2)
    pair = render([far, near], SHAPE)
    only_near, only_far = render([surface(4.0, seed=1)], SHAPE), render([far], SHAPE)
    inside, outside = slice(0, SIDE // 2 - 10), slice(SIDE // 2 + 10, None)
    for which in ("left", "right", "sharp"):
        found = getattr(pair, which)
        np.testing.assert_allclose(
            found[:, inside], getattr(only_near, which)[:, inside], atol=1e-5
        )
        np.testing.assert_allclose(
            found[:, outside], getattr(only_far, which)[:, outside], atol=1e-5
        )
    assert np.all(pair.coc_px[:, inside] == 4)
    assert np.all(pair.coc_px[:, outside] == -4)
    assert pair.disparity_px[0, 0] > 1 > -1 > pair.disparity_px[0, -1]


def test_a_field_that_does_not_change_is_one_kernel():
    slope = np.linspace(-3, 4, SIDE, dtype=np.float32)
    scene = [Surface(texture(0), np.ones((SIDE, SIDE), np.float32), np.tile(slope, (SIDE, 1)))]
    one, many = render(scene, OFF_AXIS), render(scene, LensField(OFF_AXIS))
    for which in ("left", "right", "sharp", "disparity_px", "coc_px"):
        np.testing.assert_allclose(getattr(many, which), getattr(one, which), atol=1e-5)


@pytest.mark.parametrize("coc_px", [-5.0, 6.0])
@pytest.mark.parametrize(("row", "column"), [(24, 24), (48, 144), (70, 170)])
def test_at_every_place_a_point_becomes_the_fields_kernel(coc_px, row, column):
    height, width = 96, 192
    point = np.zeros((height, width, 3), np.float32)
    point[row, column] = 1
    even = np.full((height, width), coc_px, np.float32)
    pair = render([Surface(point, np.ones_like(even), even)], FIELD)
    at = 2 * (column + 0.5) / width - 1, (2 * (row + 0.5) - height) / width
    kernels = view_kernels(coc_px, FIELD.shape_at(*at))
    x = np.arange(width)
    reach = kernels[0].shape[0] // 2
    places = []
    for view, kernel in zip((pair.left, pair.right), kernels, strict=True):
        seen = view[..., 0]
        # As an even scene stays even, a point gets brighter where the kernels draw together.
        assert seen.sum() == pytest.approx(1, abs=0.05)
        around = seen[row - reach : row + reach + 1, column - reach : column + reach + 1]
        assert np.abs(around - kernel).sum() < 0.15
        places.append(float(seen.sum(0) @ x / seen.sum()))
    expected = view_disparity_px(coc_px, FIELD.shape_at(*at))
    assert pair.disparity_px[row, column] == pytest.approx(expected, rel=0.03)
    assert places[0] - places[1] == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("middle", [0.0, -0.75])
def test_textures_are_as_far_apart_as_the_field_says(middle):
    area = FrameArea(x=middle, y=0.2, width=0.2)
    pair = render([surface(5.0)], FIELD, area=area)
    shape = FIELD.shape_at(middle, 0.2)
    expected = view_disparity_px(5.0, shape)
    assert pair.disparity_px[48, 48] == pytest.approx(expected, rel=0.04)
    assert measured_disparity_px(pair.left, pair.right) == pytest.approx(expected, rel=0.25)
    # So small a part of the frame may have the kernel of its middle.
    fast = render([surface(5.0)], shape)
    for which in ("left", "right"):
        error = getattr(fast, which) - getattr(pair, which)
        assert error.std() < 0.05 * getattr(pair, which).std()


def test_a_field_leaves_what_is_in_focus_alone():
    pair = render([surface(0.0)], FIELD)
    np.testing.assert_allclose(pair.left, pair.sharp, atol=1e-5)
    np.testing.assert_allclose(pair.right, pair.sharp, atol=1e-5)


def test_a_fields_weights_add_up_to_one():
    total = np.zeros((60, 90), np.float32)
    for patch in patches(60, 90, FIELD, FrameArea(0.3, 0.1, 0.9)):
        assert patch.weight is not None
        total[patch.rows, patch.columns] += patch.weight[..., 0]
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_what_falls_on_both_photodiodes_is_the_composite():
    """Through the whole aperture of each place, which the ramp and the shading do not change."""
    pair = render([surface(5.0)], FIELD)
    whole = render([surface(5.0)], replace(FIELD, axis=replace(SHAPE, ramp=0.0), shading=0.0))
    left, right = light_shares(SIDE, SIDE, FIELD)
    light = left + right
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j] * (SIDE - 1) / SIDE
    np.testing.assert_allclose(light, 1 - 0.5 * (x**2 + y**2) / (13 / 9), atol=1e-5)
    composite = left[..., None] * pair.left + right[..., None] * pair.right
    np.testing.assert_allclose(composite, light[..., None] * whole.left, atol=3e-3)


def test_the_views_lose_light_at_opposite_sides():
    left, right = light_shares(64, SIDE, FIELD)
    np.testing.assert_allclose(left, right[:, ::-1], atol=1e-5)
    share = (left / (left + right))[32]
    assert np.all(np.diff(share) < 0)
    assert share[0] > 0.55 > 0.45 > share[-1]
