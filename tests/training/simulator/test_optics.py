from dataclasses import replace

import numpy as np
import pytest

from training.simulator.optics import (
    CORNER,
    KernelShape,
    LensField,
    circle_of_confusion_px,
    left_share,
    view_disparity_px,
    view_kernels,
)

SHAPES = [
    KernelShape(),
    KernelShape(ramp=1.9, rim=2.5, rim_order=10, softness_px=0.9, aspect=1.18),
    KernelShape(ramp=0.25, rim=-0.4, rim_order=2, softness_px=0.3, aspect=0.85),
    KernelShape(ramp=0.6, softness_px=0.0),
]
OFF_AXIS = [
    KernelShape(clip_x=0.3, clip_y=-0.2, shading=-0.3),
    KernelShape(ramp=1.7, rim=1.5, softness_px=0.3, aspect=0.9, clip_y=0.5),
    KernelShape(ramp=0.4, clip_x=-0.5, shading=0.6),
]
FIELD = LensField(
    KernelShape(ramp=1.1, rim=0.5), disparity_loss=0.4, shading=-0.3, cats_eye=0.5, light_loss=0.6
)
PLACES = [(0.0, 0.0), (0.5, 0.1), (-0.9, 0.0), (1.0, -2 / 3)]
RADII = [0.0, 0.05, 0.6, 3.3, 12.0, -0.6, -7.5]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius_px", RADII)
def test_kernels_are_normalised_mirror_images(shape, radius_px):
    left, right = view_kernels(radius_px, shape)
    assert left.shape[0] == left.shape[1]
    assert left.shape[0] % 2 == 1
    assert left.min() >= 0
    assert float(left.sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(right, left[:, ::-1], atol=1e-7)
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
    np.testing.assert_allclose(near[0], far[1], atol=1e-7)
    np.testing.assert_allclose(near[1], far[0], atol=1e-7)


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


def centroid(kernel):
    places = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    return float(kernel.sum(0) @ places), float(kernel.sum(1) @ places)


@pytest.mark.parametrize("shape", OFF_AXIS)
@pytest.mark.parametrize("radius_px", [0.6, 3.3, 12.0])
def test_far_of_focus_a_cats_eye_is_turned(shape, radius_px):
    near, far = view_kernels(radius_px, shape), view_kernels(-radius_px, shape)
    for one, other in zip(near, far, strict=True):
        np.testing.assert_allclose(other, one[::-1, ::-1], atol=1e-6)
        assert float(other.sum()) == pytest.approx(1, abs=1e-5)
    # To swap the views, as without a cat's eye, is not enough.
    if radius_px > 1:
        assert np.abs(far[0] - near[1]).max() > 0.2 * near[1].max()


@pytest.mark.parametrize("shape", OFF_AXIS)
@pytest.mark.parametrize("radius_px", [5.0, -5.0])
def test_a_mirrored_place_has_mirrored_and_swapped_views(shape, radius_px):
    left, right = view_kernels(radius_px, shape)
    mirror = replace(shape, clip_x=-shape.clip_x, shading=-shape.shading)
    mirrored = view_kernels(radius_px, mirror)
    np.testing.assert_allclose(mirrored[0], right[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(mirrored[1], left[:, ::-1], atol=1e-6)
    assert left_share(mirror) == pytest.approx(1 - left_share(shape), abs=1e-5)
    flipped = view_kernels(radius_px, replace(shape, clip_y=-shape.clip_y))
    np.testing.assert_allclose(flipped[0], left[::-1], atol=1e-6)
    np.testing.assert_allclose(flipped[1], right[::-1], atol=1e-6)


@pytest.mark.parametrize("shape", OFF_AXIS)
@pytest.mark.parametrize("radius_px", [0.0, -0.1])
def test_a_point_in_focus_has_no_sides_anywhere(shape, radius_px):
    left, right = view_kernels(radius_px, shape)
    np.testing.assert_allclose(left, right, atol=1e-7)


@pytest.mark.parametrize("shape", [*SHAPES, *OFF_AXIS])
def test_both_photodiodes_together_see_the_whole_aperture(shape):
    share = left_share(shape)
    left, right = view_kernels(7.0, shape)
    plain = view_kernels(7.0, replace(shape, ramp=0.0, shading=0.0))
    np.testing.assert_allclose(plain[0], plain[1], atol=1e-7)
    np.testing.assert_allclose(share * left + (1 - share) * right, plain[0], atol=2e-5)


def test_a_plain_disks_light_is_shared_as_the_shading_says():
    share = left_share(KernelShape(ramp=0.5, shading=-0.3))
    assert share == pytest.approx(0.35, abs=1e-3)


@pytest.mark.parametrize(("clip_x", "clip_y"), [(0.5, 0.0), (0.0, -0.4), (0.3, 0.4)])
def test_a_cats_eye_is_where_two_disks_overlap(clip_x, clip_y):
    radius_px, apart = 16.0, float(np.hypot(clip_x, clip_y))
    shape = KernelShape(ramp=0.0, softness_px=0.0, clip_x=clip_x, clip_y=clip_y)
    kernel = view_kernels(radius_px, shape)[0]
    # Two unit disks overlap in 2 acos(s / 2) - s / 2 sqrt(4 - s^2), half way between them.
    area = 2 * np.arccos(apart / 2) - apart / 2 * np.sqrt(4 - apart**2)
    assert kernel.max() == pytest.approx(1 / (area * radius_px**2), rel=0.01)
    expected = (radius_px * clip_x / 2, radius_px * clip_y / 2)
    np.testing.assert_allclose(centroid(kernel), expected, atol=0.05)


@pytest.mark.parametrize("given", [{"clip_x": 1.0}, {"clip_x": 0.8, "clip_y": 0.8}, {"shading": 1}])
def test_a_view_without_light_is_refused(given):
    with pytest.raises(ValueError, match="a view gets no light"):
        KernelShape(**given)


@pytest.mark.parametrize(("x", "y"), PLACES)
def test_a_field_is_symmetric_about_its_axis(x, y):
    here = FIELD.shape_at(x, y)
    mirror = replace(here, clip_x=-here.clip_x, shading=-here.shading)
    assert FIELD.shape_at(-x, y) == mirror
    assert FIELD.shape_at(x, -y) == replace(here, clip_y=-here.clip_y)


def test_a_field_is_its_axis_kernel_in_the_middle_and_all_over_without_change():
    assert FIELD.shape_at(0, 0) == FIELD.axis
    assert LensField(FIELD.axis).shape_at(0.7, 0.5) == FIELD.axis
    corner = FIELD.shape_at(1, 2 / 3)
    assert np.hypot(corner.clip_x, corner.clip_y) == pytest.approx(0.5)
    light = FIELD.light_at(
        np.array([0, 1, CORNER], np.float32), np.array([0, 2 / 3, 0], np.float32)
    )
    np.testing.assert_allclose(light, [1, 0.4, 0.4], atol=1e-6)


def test_the_views_come_closer_towards_the_sides():
    found = [view_disparity_px(6.0, FIELD.shape_at(x, 0)) for x in np.linspace(0, 1, 9)]
    assert np.all(np.diff(found) < 0)
    # Without other changes as much as it says: the ratio is proportional to a ramp below 1.
    alone = LensField(KernelShape(ramp=0.8), disparity_loss=0.6)
    edge, middle = (view_disparity_px(6.0, alone.shape_at(x, 0)) for x in (1, 0))
    assert edge / middle == pytest.approx(0.4, abs=0.01)


def test_a_front_rim_takes_the_outer_side_of_what_is_far():
    shape = FIELD.shape_at(0.9, 0.0)
    assert sum(centroid(kernel)[0] for kernel in view_kernels(8.0, shape)) > 1
    assert sum(centroid(kernel)[0] for kernel in view_kernels(-8.0, shape)) < -1
