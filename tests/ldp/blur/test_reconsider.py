from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ldp.blur.falloff import evening
from ldp.blur.outlines import align
from ldp.blur.reconsider import reconsidered
from ldp.types import BlurMap, FloatArray, ViewPair

SIZE = (192, 256)
FAR_PX, NEAR_PX = -2.0, 2.0
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
IS_NEAR = ((X - 128) / 50) ** 2 + ((Y - 96) / 40) ** 2 < 1
INSIDE, OUTSIDE = (
    cv2.erode(side.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    for side in (IS_NEAR, ~IS_NEAR)
)
TRUE_PX = np.where(IS_NEAR, NEAR_PX, FAR_PX).astype(np.float32)


def _texture(seed: int) -> FloatArray:
    noise = np.random.default_rng(seed).normal(0, 1, (*SIZE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.asarray(0.5 + 0.04 * smooth / smooth.std(), np.float32)


TEXTURE = _texture(0)
EVEN = np.full_like(TEXTURE, 0.6)


def _shifted(plane: FloatArray, shift_px: float) -> FloatArray:
    matrix = np.array([[1, 0, shift_px], [0, 1, 0]], np.float32)
    return np.asarray(
        cv2.warpAffine(plane, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT), np.float32
    )


def _scene(
    far: FloatArray, near: FloatArray, is_near: npt.NDArray[np.bool_] = IS_NEAR
) -> tuple[ViewPair, FloatArray]:
    """Two views of a near ellipse before a far plane, blurred, and the sharp picture."""

    def view(side: float, sigma_px: float = 1.5) -> FloatArray:
        alpha = _shifted(is_near.astype(np.float32), side * NEAR_PX / 2)[..., None]
        behind, before = _shifted(far, side * FAR_PX / 2), _shifted(near, side * NEAR_PX / 2)
        picture = cv2.GaussianBlur(behind + alpha * (before - behind), (0, 0), sigma_px)
        noise = np.random.default_rng(int(side) + 2).normal(0, 0.002, picture.shape)
        return np.asarray(picture + noise, np.float32)

    return ViewPair(view(1), view(-1)), view(0, sigma_px=0.3)


def _map(disparity_px: npt.NDArray[np.floating]) -> BlurMap:
    even = np.full(SIZE, 0.3, np.float32)
    return BlurMap(even, disparity_px.astype(np.float32), even)


@pytest.mark.parametrize("is_near_even", [True, False])
def test_an_even_thing_has_the_depth_of_its_outline(is_near_even: bool) -> None:
    far, near = (TEXTURE, EVEN) if is_near_even else (EVEN, TEXTURE)
    views, sharp = _scene(far, near)
    # The even thing was filled in from around it, but for a part.
    wrong = np.where(IS_NEAR & (X > 100), FAR_PX, TRUE_PX) if is_near_even else TRUE_PX
    aligned = align(reconsidered(_map(wrong), views, sharp), sharp).disparity_px
    assert aligned is not None
    assert (np.abs(aligned - TRUE_PX)[INSIDE] < 1).mean() > 0.99
    assert (np.abs(aligned - TRUE_PX)[OUTSIDE] < 1).mean() > 0.99


def test_a_hole_that_was_filled_in_is_as_far_as_its_texture_says() -> None:
    views, sharp = _scene(TEXTURE, EVEN)
    wrong = np.where(X > 190, NEAR_PX, TRUE_PX)
    aligned = align(reconsidered(_map(wrong), views, sharp), sharp).disparity_px
    assert aligned is not None
    assert (np.abs(aligned - TRUE_PX)[OUTSIDE & (X < 240)] < 1).mean() > 0.98


@pytest.mark.parametrize("texture", [0, 0.05], ids=["even", "faint"])
def test_what_is_even_around_a_near_thing_does_not_take_its_depth(texture: float) -> None:
    views, sharp = _scene(EVEN + np.float32(texture) * (TEXTURE - EVEN), TEXTURE)
    is_spread = ((X - 128) / 70) ** 2 + ((Y - 96) / 60) ** 2 < 1
    wrong = np.where(is_spread, NEAR_PX, FAR_PX)
    aligned = align(reconsidered(_map(wrong), views, sharp), sharp).disparity_px
    assert aligned is not None
    assert (np.abs(aligned - TRUE_PX)[INSIDE] < 1).mean() > 0.99
    assert (np.abs(aligned - TRUE_PX)[OUTSIDE] < 1).mean() > 0.99


def test_the_rim_of_an_even_near_thing_is_near() -> None:
    is_near = (X > 110) & (Y < 140)
    views, sharp = _scene(TEXTURE, EVEN, is_near)
    true_px = np.where(is_near, NEAR_PX, FAR_PX)
    wrong = np.where(Y > 130, FAR_PX, true_px)  # the edge below is level, and so has no disparity
    corrected = reconsidered(_map(wrong), views, sharp).corrected_px
    assert corrected is not None
    rim_px = corrected[131:139, 120:240]
    assert (np.abs(rim_px - NEAR_PX) < 1).mean() > 0.9


def test_a_strip_along_the_frame_stays_as_it_was_measured() -> None:
    is_near = (X < 60) & (Y > 20) & (Y < 170)
    is_strip = np.minimum(np.minimum(X, 255 - X), np.minimum(Y, 191 - Y)) < 8
    true_px = np.where(is_near, NEAR_PX, FAR_PX)
    far, near = (
        np.where(is_strip[..., None], np.float32(0.1), each) for each in (TEXTURE, _texture(1))
    )
    views, sharp = _scene(far, near, is_near)
    unsure = replace(_map(true_px), confidence=np.full(SIZE, 0.05, np.float32))
    assert reconsidered(unsure, views, sharp) is unsure


def test_a_map_that_is_right_stays_as_it_is() -> None:
    views, sharp = _scene(TEXTURE, _texture(1))
    blur_map = _map(TRUE_PX)
    assert reconsidered(blur_map, views, sharp) is blur_map


@pytest.mark.parametrize("size", [(1, 1), (12, 200), (47, 47)])
def test_maps_of_very_small_pictures_stay_as_they_are(size: tuple[int, int]) -> None:
    views, sharp = _scene(TEXTURE, EVEN)
    few = np.s_[70 : 70 + size[0], 40 : 40 + size[1]]
    plane = TRUE_PX[few]
    small = BlurMap(plane, plane, plane)
    assert reconsidered(small, ViewPair(views.left[few], views.right[few]), sharp[few]) is small


def test_maps_without_disparity_or_of_one_depth_stay_as_they_are() -> None:
    views, sharp = _scene(TEXTURE, EVEN)
    for blur_map in (BlurMap(np.ones(SIZE, np.float32)), _map(np.full(SIZE, FAR_PX))):
        assert reconsidered(blur_map, views, sharp) is blur_map


def test_the_frame_s_sides_are_reconsidered_as_the_views_show_them() -> None:
    views, sharp = _scene(TEXTURE, EVEN)
    wrong = np.where(IS_NEAR & (X > 100), FAR_PX, TRUE_PX)
    found = []
    for falloff in (0.0, 0.5):
        evened = _map(wrong * evening(SIZE[1], falloff))
        corrected = reconsidered(replace(evened, falloff=falloff), views, sharp).corrected_px
        assert corrected is not None
        found.append(corrected / evening(SIZE[1], falloff))
    is_new = np.isfinite(found[0]) & np.isfinite(found[1]) & INSIDE
    assert is_new[INSIDE & (X > 110)].mean() > 0.9
    for disparity_px in found:
        assert abs(np.median(disparity_px[is_new]) - NEAR_PX) < 0.5
