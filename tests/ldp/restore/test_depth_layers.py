"""Laws of pictures that are drawn anew in layers of depth."""

import cv2
import numpy as np
import pytest

from ldp.restore.depth_layers import Coding, drawn
from ldp.restore.layer_plan import Lens, layers_of
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import FloatArray, Picture16, Plane, as_float, to_uint16
from training.simulator.optics import KernelShape
from training.simulator.render import RenderedPair, Surface, render

SIZE = (128, 192)
LINEAR = Coding(as_float, to_uint16)
SRGB = Coding(
    lambda picture: decode_srgb(as_float(picture)),
    lambda light: to_uint16(encode_srgb(np.ascontiguousarray(light))),
)
NEAR = np.zeros(SIZE, bool)
NEAR[32:96, 64:128] = True
TWO_DEPTHS = np.where(NEAR, 4.0, -4.0).astype(np.float32)
PLAIN_IRIS = KernelShape(ramp=1e-4, rim=0, softness_px=1e-4)


def noise(seed: int = 0, size: tuple[int, int] = SIZE) -> Picture16:
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random((*size, 3), np.float32), (0, 0), 1)
    return to_uint16((smooth - smooth.min()) / np.ptp(smooth) * np.float32(0.9))


def draw(picture: Picture16, disparity_px: Plane, lens: Lens, coding: Coding = LINEAR) -> Picture16:
    layers = layers_of(lens, float(disparity_px.min()), float(disparity_px.max()))
    return drawn(picture, layers.position(disparity_px), layers, coding)


def iris(radius_px: float) -> FloatArray:
    """An even disc by the share of each pixel within the circle, found on a grid of 101 x 101."""
    reach = int(np.ceil(radius_px)) + 1
    side, fine = 2 * reach + 1, 101
    x = (np.arange(side * fine) + 0.5) / fine - side / 2
    inside = (x[:, None] ** 2 + x[None] ** 2 <= radius_px**2).astype(np.float32)
    kernel = inside.reshape(side, fine, side, fine).mean((1, 3))
    return np.asarray(kernel / kernel.sum(), np.float32)


def test_what_is_in_focus_stays_to_the_last_bit() -> None:
    picture = noise()
    everywhere = np.full(SIZE, 2.5, np.float32)
    np.testing.assert_array_equal(draw(picture, everywhere, Lens(2.5, 2.0)), picture)
    in_focus = draw(picture, TWO_DEPTHS, Lens(4.0, 1.0), SRGB)
    inside = cv2.erode(NEAR.astype(np.uint8), np.ones((5, 5))) > 0
    np.testing.assert_array_equal(in_focus[inside], picture[inside])


@pytest.mark.parametrize("radius_px", [1.5, 5.5, 17.1, 40.0])
def test_an_even_depth_is_blurred_by_the_disc_of_its_distance_from_the_focus(
    radius_px: float,
) -> None:
    picture = noise()
    depth = np.full(SIZE, 3.0 - radius_px / 2, np.float32)
    found = as_float(draw(picture, depth, Lens(3.0, 2.0)))
    wanted = cv2.filter2D(as_float(picture), -1, iris(radius_px), borderType=cv2.BORDER_REFLECT)
    error = np.sqrt(np.square(found - wanted).mean())
    lost = np.sqrt(np.square(as_float(picture) - wanted).mean())
    assert error < 0.02 * lost


def test_light_is_neither_lost_nor_made() -> None:
    lamps = np.full((*SIZE, 3), 2000, np.uint16)
    lamps[20::40, 20::40] = 65535
    for depth in (TWO_DEPTHS, np.linspace(-4, 4, SIZE[1], dtype=np.float32)[None].repeat(128, 0)):
        found = draw(lamps, depth, Lens(0.0, 1.5))
        assert found.mean() == pytest.approx(lamps.mean(), rel=0.01)


def test_far_blur_ends_at_the_outline_of_a_sharp_near_thing() -> None:
    picture = np.where(NEAR[..., None], 1000, 60_000).astype(np.uint16).repeat(3, 2)
    found = draw(picture, TWO_DEPTHS, Lens(4.0, 1.0))
    beyond = cv2.dilate(NEAR.astype(np.uint8), np.ones((5, 5))) == 0
    within = cv2.erode(NEAR.astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(found[beyond].astype(int) - 60_000).max() < 600
    assert (found[within] == 1000).all()


def test_near_blur_lies_over_what_is_sharp_behind_it() -> None:
    picture = np.where(NEAR[..., None], 1000, 60_000).astype(np.uint16).repeat(3, 2)
    across = draw(picture, TWO_DEPTHS, Lens(-4.0, 1.0))[64, 96:150, 0].astype(int)
    assert (np.diff(across) > -100).all()  # the thing's middle to the far background
    at_outline = across[128 - 96 - 1 : 128 - 96 + 1].mean()
    assert at_outline == pytest.approx(30_500, abs=3000)
    assert across[0] < 1100
    assert (across[128 - 96 + 10 :] > 59_900).all()


def test_no_movement_changes_nothing() -> None:
    picture = noise()
    np.testing.assert_array_equal(draw(picture, TWO_DEPTHS, Lens(0.0, 0.0)), picture)


def test_near_and_far_move_to_opposite_sides_and_what_comes_into_view_is_from_behind() -> None:
    picture = np.where(NEAR[..., None], 10_000, 50_000).astype(np.uint16).repeat(3, 2)
    found = draw(picture, TWO_DEPTHS, Lens(0.0, 0.0, (0.75, 0.0)))  # near: 3 px to the right
    dark = found[64, :, 0] < 30_000
    assert np.flatnonzero(dark).tolist() == list(range(67, 131))
    assert found[64, 60:66].min() > 49_000
    assert np.flatnonzero(found[:, 96, 0] < 30_000).tolist() == list(range(32, 96))
    ground = noise()
    moved = draw(ground, np.full(SIZE, -2.0, np.float32), Lens(0.0, 0.0, (0.0, 1.5)))
    up_3_px = as_float(moved[10:-10]) - as_float(ground[13:-7])
    assert np.abs(up_3_px).max() < 0.03  # between two layers, half a px apart


def test_tiles_are_not_seen() -> None:
    picture, size = noise(size=(320, 448)), (320, 448)
    depth = cv2.resize(TWO_DEPTHS, size[::-1], interpolation=cv2.INTER_NEAREST)
    layers = layers_of(Lens(-4.0, 2.5), -4.0, 4.0)
    position = layers.position(np.asarray(depth, np.float32))
    tiled, whole = (
        as_float(drawn(picture, position, layers, LINEAR, tile_px=side)) for side in (128, 512)
    )
    assert np.abs(tiled - whole).max() < 0.02
    assert np.abs(tiled - whole).mean() < 2e-4


def scene(focus_px: float) -> RenderedPair:
    """Three depths, the nearest a round thing, seen with a focus by a lens with an even iris."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    ones = np.ones(SIZE, np.float32)
    ball = (np.hypot(x - 60, y - 60) < 30).astype(np.float32)
    board = (np.abs(x - 120) < 30).astype(np.float32)
    colours = (decode_srgb(as_float(noise(seed))) for seed in (1, 2, 3))
    shapes = ((ones, -6.0), (board, 0.0), (ball, 5.0))
    surfaces = [
        Surface(colour, alpha, (depth - focus_px) * ones)
        for colour, (alpha, depth) in zip(colours, shapes, strict=True)
    ]
    return render(surfaces, PLAIN_IRIS)


@pytest.mark.parametrize("focus_px", [-6.0, 0.0, 5.0])
def test_another_focus_is_as_the_simulator_draws_it(focus_px: float) -> None:
    sharp = scene(0.0)
    truth = scene(focus_px)
    wanted = encode_srgb(np.asarray((truth.left + truth.right) / 2, np.float32))
    picture = to_uint16(encode_srgb(sharp.sharp.copy()))
    found = as_float(draw(picture, sharp.coc_px, Lens(focus_px, 1.0), SRGB))

    def psnr_db(of: FloatArray) -> float:
        return float(-10 * np.log10(np.square(of - wanted).mean()))

    assert psnr_db(found) > 33
    assert psnr_db(found) > psnr_db(as_float(picture)) + 11
