import numpy as np
import pytest

from training.optics import KernelShape, circle_of_confusion_px, view_disparity_px, view_kernels

SHAPES = [
    KernelShape(),
    KernelShape(ramp=1.9, rim=2.5, rim_order=10, softness_px=0.9, aspect=1.18),
    KernelShape(ramp=0.25, rim=-0.4, rim_order=2, softness_px=0.3, aspect=0.85),
    KernelShape(ramp=0.6, softness_px=0.0),
]
RADII = [0.0, 0.05, 0.6, 3.3, 12.0, -0.6, -7.5]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius_px", RADII)
def test_kernels_are_normalised_mirror_images(shape, radius_px):
    left, right = view_kernels(radius_px, shape)
    assert left.shape[0] == left.shape[1]
    assert left.shape[0] % 2 == 1
    assert left.min() >= 0
    assert float(left.sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(right, left[:, ::-1])
    # Together they are the whole aperture, which has no sides.
    both = left + right
    np.testing.assert_allclose(both, both[:, ::-1], atol=1e-7)
    np.testing.assert_allclose(both, both[::-1], atol=1e-6)
    # Nothing is cut off at the kernel's border.
    border = both.sum() - both[1:-1, 1:-1].sum()
    assert border < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_far_of_focus_swaps_the_views(shape):
    near, far = view_kernels(4.0, shape), view_kernels(-4.0, shape)
    np.testing.assert_array_equal(near[0], far[1])
    np.testing.assert_array_equal(near[1], far[0])


def test_the_ramp_does_not_change_the_whole_aperture():
    flat, steep = (sum(view_kernels(6.0, KernelShape(ramp=ramp, rim=0.8))) for ramp in (0.0, 1.6))
    np.testing.assert_allclose(flat, steep, atol=1e-6)


@pytest.mark.parametrize("ramp", [0.3, 1.0])
@pytest.mark.parametrize("radius_px", [2.0, 5.0, 11.0])
def test_views_of_a_plain_disk_lie_half_ramp_radii_apart(ramp, radius_px):
    shape = KernelShape(ramp=ramp)
    expected = 0.5 * ramp * radius_px
    # Near of focus: the left view's detail lies farther to the right.
    assert view_disparity_px(radius_px, shape) == pytest.approx(expected, rel=0.06)
    assert view_disparity_px(-radius_px, shape) == pytest.approx(-expected, rel=0.06)


def test_disparity_grows_with_the_radius_from_nothing_within_a_pixel():
    radii = np.concatenate([np.linspace(0, 0.4, 3), np.linspace(0.7, 5, 40)])
    found = [view_disparity_px(float(radius), KernelShape(ramp=1.9)) for radius in radii]
    np.testing.assert_allclose(found[:3], 0, atol=1e-6)
    assert np.all(np.diff(found[2:]) > 0)


def test_without_blur_the_views_are_the_same_point():
    left, right = view_kernels(0.0, KernelShape(softness_px=0.0))
    np.testing.assert_array_equal(left, right)
    assert left[left.shape[0] // 2, left.shape[1] // 2] == 1


def test_a_disk_is_as_large_as_its_radius():
    left, right = view_kernels(8.0, KernelShape(softness_px=0.0))
    disk = (left + right) / 2
    assert disk.max() == pytest.approx(1 / (np.pi * 8**2), rel=0.03)
    x = np.arange(disk.shape[1]) - disk.shape[1] // 2
    # The variance of an even disk along an axis is r^2 / 4, that of a pixel 1 / 12.
    assert (disk.sum(0) * x**2).sum() == pytest.approx(8**2 / 4 + 1 / 12, rel=0.01)


def test_circle_of_confusion_by_hand():
    """50 mm at f/2 focused at 2 m, 6 um pixels. At 1 m: (2 - 1) / 1 * 0.05^2 / (2 * 1.95) =
    641.03 um across, 320.51 um or 53.42 px radius. At 4 m: -1/2 of that; in focus: 0."""
    depth_m = np.array([1.0, 2.0, 4.0, 1e9], np.float32)
    found = circle_of_confusion_px(depth_m, 2.0, 50.0, 2.0, 6.0)
    np.testing.assert_allclose(found, [53.419, 0, -26.709, -53.419], atol=2e-3)
