import cv2
import numpy as np

from training.simulator.layers import depth_surfaces, slice_edges
from training.simulator.optics import KernelShape
from training.simulator.render import Surface, render

SIDE = 96
SHAPE = KernelShape()


def texture(seed):
    noise = np.random.default_rng(seed).random((12, 12, 3)).astype(np.float32)
    return cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def disk():
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.hypot(y - SIDE / 2, x - SIDE / 2) < 25


def test_one_depth_is_one_surface():
    colour, coc = texture(0), np.full((SIDE, SIDE), 3.0, np.float32)
    (surface,) = depth_surfaces(colour, coc)
    np.testing.assert_array_equal(surface.colour, colour)
    np.testing.assert_array_equal(surface.alpha, 1)
    np.testing.assert_allclose(surface.coc_px, 3.0, rtol=1e-6)


def test_surfaces_in_focus_show_the_picture():
    colour = texture(0)
    ramp = np.tile(np.linspace(-5, 5, SIDE, dtype=np.float32), (SIDE, 1))
    coc = np.where(disk(), np.float32(6), ramp)
    sharp = np.zeros_like(colour)
    for surface in depth_surfaces(colour, coc):
        alpha = surface.alpha[..., None]
        sharp = sharp * (1 - alpha) + surface.colour * alpha
    np.testing.assert_allclose(sharp, colour, atol=1e-5)


def test_the_farthest_surface_covers_all_and_radii_change_slowly():
    coc = np.where(disk(), np.float32(7), np.float32(-6))
    coc[:20] = 0
    surfaces = depth_surfaces(texture(0), coc)
    np.testing.assert_array_equal(surfaces[0].alpha, 1)
    assert [round(float(s.coc_px[48, 48])) for s in surfaces][-1] == 7
    for surface in surfaces:
        assert np.abs(np.diff(surface.coc_px, axis=1)).max() < 0.5
        assert np.ptp(surface.coc_px) < 1.6


def test_a_near_disk_before_a_far_plane_looks_as_if_both_were_known():
    """Behind the disk the plane is made up, so that it counts only where the blur shows it."""
    plane, front = np.full((SIDE, SIDE, 3), 0.2, np.float32), texture(1)
    mask = disk()
    known = render(
        [
            Surface(plane, np.ones((SIDE, SIDE), np.float32), np.full(mask.shape, -4, np.float32)),
            Surface(front, mask.astype(np.float32), np.full(mask.shape, 5, np.float32)),
        ],
        SHAPE,
    )
    colour = np.where(mask[..., None], front, plane)
    coc = np.where(mask, np.float32(5), np.float32(-4))
    found = render(depth_surfaces(colour, coc), SHAPE)
    for one, other in ((found.left, known.left), (found.right, known.right)):
        np.testing.assert_allclose(one, other, atol=0.01)
    np.testing.assert_allclose(found.coc_px, known.coc_px, atol=1e-3)


def test_slices_are_cut_where_little_lies() -> None:
    coc = np.concatenate([np.full(500, -4.0), np.linspace(-1.2, -1, 20), np.full(500, 2.0)])
    edges = slice_edges(coc.astype(np.float32).reshape(20, 51))
    assert len(edges) == 2
    assert all(-3.9 < edge < 1.9 and not -1.2 <= edge <= -1 for edge in edges)
    assert slice_edges(np.zeros((4, 4), np.float32)) == ()
