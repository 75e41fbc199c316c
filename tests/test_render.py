import cv2
import numpy as np
import pytest

from training.optics import KernelShape, view_disparity_px, view_kernels
from training.render import Surface, render

SHAPE = KernelShape(ramp=1.0, rim=0.5, softness_px=0.4)
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


def test_in_the_mirror_the_views_are_mirrored_and_swapped():
    slope = np.linspace(-3, 4, SIDE, dtype=np.float32)
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[20:60, 10:50] = 1
    scene = [
        Surface(texture(0), np.ones_like(alpha), np.tile(slope, (SIDE, 1))),
        Surface(texture(1), alpha, np.full_like(alpha, 5)),
    ]
    flipped = [Surface(s.colour[:, ::-1], s.alpha[:, ::-1], s.coc_px[:, ::-1]) for s in scene]
    pair, mirrored = render(scene, SHAPE), render(flipped, SHAPE)
    np.testing.assert_allclose(mirrored.left, pair.right[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(mirrored.right, pair.left[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(mirrored.disparity_px, pair.disparity_px[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("coc_px", [-6.0, 0.4, 5.0])
def test_even_blur_is_the_kernels_and_keeps_the_energy(coc_px):
    scene = surface(coc_px)
    pair = render([scene], SHAPE)
    kernels = view_kernels(coc_px, SHAPE)
    # Their mean is the picture through the whole, symmetric aperture.
    whole = cv2.filter2D(
        scene.colour, cv2.CV_32F, (kernels[0] + kernels[1]) / 2, borderType=cv2.BORDER_REFLECT_101
    )
    np.testing.assert_allclose((pair.left + pair.right) / 2, whole, atol=1e-5)
    # A lone point becomes the kernel itself, with all its light.
    point = np.zeros((SIDE, SIDE, 3), np.float32)
    point[40, 50] = 1
    seen = render([Surface(point, scene.alpha, scene.coc_px)], SHAPE)
    for view, kernel in zip((seen.left, seen.right), kernels, strict=True):
        reach = kernel.shape[0] // 2
        around = view[40 - reach : 41 + reach, 50 - reach : 51 + reach, 0]
        np.testing.assert_allclose(around, kernel, atol=1e-6)
        assert view[..., 0].sum() == pytest.approx(1, abs=1e-4)


def test_a_white_picture_stays_white_under_changing_blur():
    slope = np.linspace(-8, 8, SIDE, dtype=np.float32)
    white = np.ones((SIDE, SIDE, 3), np.float32)
    pair = render([Surface(white, white[..., 0], np.tile(slope[:, None], (1, SIDE)))], SHAPE)
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
