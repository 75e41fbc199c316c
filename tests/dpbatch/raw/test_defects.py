"""Defects of one photodiode or frame are filled; what the lens draws is kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dpbatch.raw.defects import Defects, fill_defects

Mosaic = npt.NDArray[np.uint16]

HEIGHT, WIDTH, BLACK, NOISE_DN = 200, 300, 512, 4.0


def frames(
    *, star_sigma: float = 0.0, disparity: float = 0.0, seed: int = 0, shot: float = 0.25
) -> tuple[Mosaic, Mosaic]:
    """An even scene with shot noise, and 40 stars of both views where star_sigma is given."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    views = [300 + 150 * np.sin(x / 31) * np.cos(y / 23) for _ in range(2)]
    for _ in range(40 if star_sigma else 0):
        row, column = rng.uniform(10, HEIGHT - 10), rng.uniform(10, WIDTH - 10)
        light = np.exp(rng.uniform(np.log(150), np.log(5000)))
        for view, sign in zip(views, (1, -1), strict=True):
            distance = (y - row) ** 2 + (x - column - sign * disparity / 2) ** 2
            view += light * np.exp(-distance / (2 * star_sigma**2))
    left, right = (view + np.sqrt(view * shot) * rng.standard_normal(view.shape) for view in views)
    return _stored(left + right, rng), _stored(left, rng)


def _stored(signal: npt.NDArray[np.float64], rng: np.random.Generator) -> Mosaic:
    noisy = signal + BLACK + NOISE_DN * rng.standard_normal(signal.shape)
    return np.clip(np.rint(noisy), 0, 16383).astype(np.uint16)


def fill(composite: Mosaic, photodiode: Mosaic) -> Defects:
    return fill_defects(
        composite,
        photodiode,
        black_dn=BLACK,
        noise_dn=NOISE_DN * 2**0.5,
        clip_dn=16300,
    )


def scattered() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Places far from each other, of every colour."""
    rows, columns = np.mgrid[12:190:19, 14:290:21]
    return rows.ravel(), columns.ravel()


@pytest.mark.parametrize("change_dn", [300, 800, 4000, 16000, -16000])
@pytest.mark.parametrize("which", ["photodiode's frame", "composite", "photodiode"])
def test_defective_photosites_are_filled(which: str, change_dn: int) -> None:
    composite, photodiode = frames()
    good = composite.astype(int), photodiode.astype(int)
    places = scattered()
    if which != "composite":
        photodiode[places] = np.clip(good[1][places] + change_dn, 0, 16383)
    if which != "photodiode's frame":
        composite[places] = np.clip(good[0][places] + change_dn, 0, 16383)
    defects = fill(composite, photodiode)
    assert defects.sites >= 0.95 * len(places[0])
    for frame, before in zip((composite, photodiode), good, strict=True):
        assert np.mean(np.abs(frame[places] - before[places]) > 100) < 0.05
    assert defects.notes[0].startswith(f"defects filled: {defects.sites} photosites")


@pytest.mark.parametrize("disparity", [0.0, 0.6, 1.4, 2.0, 6.0])
@pytest.mark.parametrize("star_sigma", [0.4, 0.5, 0.7, 1.0, 1.5])
def test_stars_and_glints_survive(star_sigma: float, disparity: float) -> None:
    for seed in range(3):
        composite, photodiode = frames(star_sigma=star_sigma, disparity=disparity, seed=seed)
        before = composite.copy(), photodiode.copy()
        assert fill(composite, photodiode) == Defects(0, (), ())
        np.testing.assert_array_equal(composite, before[0])
        np.testing.assert_array_equal(photodiode, before[1])


def test_a_clipped_star_survives_and_a_saturated_photosite_does_not() -> None:
    composite, photodiode = frames()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    star = 60000 * np.exp(-((y - 60) ** 2 + (x - 80) ** 2) / (2 * 0.7**2))
    composite[:] = np.minimum(composite + star, 16383)
    photodiode[:] = np.minimum(photodiode + star * 0.5, 16383)
    kept = composite.copy(), photodiode.copy()
    composite[140, 200] = photodiode[140, 200] = 16383
    assert fill(composite, photodiode).sites == 1
    assert composite[140, 200] < 2000
    assert photodiode[140, 200] < 1500
    composite[140, 200], photodiode[140, 200] = kept[0][140, 200], kept[1][140, 200]
    np.testing.assert_array_equal(composite, kept[0])
    np.testing.assert_array_equal(photodiode, kept[1])


@pytest.mark.parametrize("value", [0, BLACK, 16383])
@pytest.mark.parametrize("axis", ["row", "column"])
@pytest.mark.parametrize("which", ["photodiode", "composite", "both"])
def test_dead_lines_are_filled(which: str, axis: str, value: int) -> None:
    composite, photodiode = frames(star_sigma=1.0)
    good = composite.astype(int), photodiode.astype(int)
    line = np.s_[101, :] if axis == "row" else np.s_[:, 101]
    if which != "composite":
        photodiode[line] = value
    if which != "photodiode":
        composite[line] = value
    defects = fill(composite, photodiode)
    assert (defects.rows if axis == "row" else defects.columns) == (101,)
    assert np.percentile(np.abs(photodiode[line] - good[1][line]), 90) < 40
    assert np.percentile(np.abs(composite[line] - good[0][line]), 90) < 60


def test_a_column_that_is_dead_for_a_part_is_filled_there() -> None:
    composite, photodiode = frames()
    good = photodiode.astype(int)
    photodiode[:80, 101] = BLACK
    assert fill(composite, photodiode).columns == (101,)
    assert np.abs(photodiode[:, 101] - good[:, 101]).max() < 60
    np.testing.assert_array_equal(photodiode[90:, 101], good[90:, 101])


def test_a_thin_line_of_the_scene_survives() -> None:
    composite, photodiode = frames()
    for column, lighter_dn in ((100, 120), (180, -120)):
        photodiode[:, column] = photodiode[:, column].astype(int) + lighter_dn
        composite[:, column] = composite[:, column].astype(int) + 2 * lighter_dn
    before = composite.copy(), photodiode.copy()
    assert fill(composite, photodiode) == Defects(0, (), ())
    np.testing.assert_array_equal(composite, before[0])
    np.testing.assert_array_equal(photodiode, before[1])


def test_noise_and_texture_are_no_defects() -> None:
    rng = np.random.default_rng(0)
    composite = rng.integers(600, 9000, (HEIGHT, WIDTH), np.uint16)
    photodiode = (composite // 2 + 256).astype(np.uint16)
    before = composite.copy(), photodiode.copy()
    fill(composite, photodiode)
    np.testing.assert_array_equal(composite, before[0])
    np.testing.assert_array_equal(photodiode, before[1])
