"""What is asked of refocusing and of moved bokeh, and what is drawn for it."""

import numpy as np
import pytest

from dpbatch.errors import OutputError, SettingsError
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.color import apply_orientation
from dpbatch.output.refocus import Redrawing, rightwards
from dpbatch.settings import OutputSettings, Settings
from ldp.types import BlurMap

SIZE = (80, 120)
NEAR = np.zeros(SIZE, bool)
NEAR[20:60, 40:80] = True
DISPARITY_PX = np.where(NEAR, 3.0, -2.0).astype(np.float32)
SHARP = np.where(NEAR[..., None], 50_000, 20_000).astype(np.uint16).repeat(3, 2)
MAP = BlurMap(np.ones(SIZE, np.float32), DISPARITY_PX, np.ones(SIZE, np.float32))


def redrawing(orientation: int = 1, **values: object) -> Redrawing:
    return Redrawing.of(MAP, MAP, SHARP, FocusSettings(**values), orientation)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_positive_shifts_move_near_things_to_the_right_of_the_upright_photo(
    orientation: int,
) -> None:
    right, down = rightwards(orientation)
    moved = apply_orientation(np.roll(NEAR, (down, right), (0, 1)), orientation)
    np.testing.assert_array_equal(moved, np.roll(apply_orientation(NEAR, orientation), 1, 1))
    drawn = redrawing(orientation, bokeh_shift=1.5)
    shown = apply_orientation(drawn.picture(SHARP), orientation)[..., 0] > 35_000
    middle_px = [
        float(np.nonzero(each)[1].mean()) for each in (shown, apply_orientation(NEAR, orientation))
    ]
    assert middle_px[0] - middle_px[1] == pytest.approx(1.5, abs=0.25)


def test_a_shift_that_the_lens_does_not_see_is_reduced_with_a_warning() -> None:
    assert not redrawing(bokeh_shift=-1.5).warnings
    large = redrawing(bokeh_shift=-4.0)
    assert large.how == "bokeh shifted by -1.5 px"
    (warning,) = large.warnings
    assert warning.startswith("the bokeh is shifted by -1.5 px, not -4.0: ")
    np.testing.assert_array_equal(large.picture(SHARP), redrawing(bokeh_shift=-1.5).picture(SHARP))


def test_a_focus_that_no_part_of_the_photo_has_is_warned_of() -> None:
    near = redrawing(refocus="3")
    assert (near.how, near.warnings) == ("refocused at +3.0 px", ())
    (warning,) = redrawing(refocus="7").warnings
    assert warning == (
        "no part of the photo is in focus at +7.0 px; its depths are +3.0 to -2.0 px"
    )


def test_the_other_depth_is_blurred_by_the_ratio_of_the_photo() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 65536, (*SIZE, 3)).astype(np.uint16)
    drawn = redrawing(refocus="-1").picture(picture)
    # Of disparities alone nobody knows the radius: the usual ratio, 1 px / 0.45. Averages of the
    # pixels of a disc have so much less noise, and of two discs a little less.
    less = drawn[:, :30].std() / picture[:, :30].std()
    assert less == pytest.approx(1 / np.sqrt(np.pi * (1 / 0.45) ** 2), rel=0.2)


def test_planes_go_with_the_picture() -> None:
    depth = np.where(NEAR, 65535, 0).astype(np.uint16)
    np.testing.assert_array_equal(redrawing(refocus="3").plane(depth), depth)
    moved = redrawing(refocus="-2", bokeh_shift=2.0).plane(depth)
    assert np.flatnonzero(moved[40] > 32_000).tolist() == list(range(42, 82))


def test_a_map_without_disparity_is_refused() -> None:
    amounts = BlurMap(np.ones(SIZE, np.float32))
    with pytest.raises(OutputError, match="use --blur disparity"):
        Redrawing.of(amounts, amounts, SHARP, FocusSettings(refocus="1"), 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"refocus": "near"}, r"refocus 'near': expected a disparity in px"),
        ({"refocus": "nan"}, r"refocus nan: expected a finite number"),
        ({"refocus": "1e300"}, r"refocus 1e\+300: expected -1000 to 1000 px"),
        ({"bokeh_shift": float("inf")}, r"bokeh_shift inf: expected a finite number"),
        ({"bokeh_shift": -1001.0}, r"bokeh_shift -1001: expected -1000 to 1000 px"),
        ({"refocus": "1", "rescue": "subject"}, r"refocus draws the whole restored photo anew"),
        ({"bokeh_shift": 1.0, "strength": 0.5}, r"bokeh_shift draws the whole restored photo"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FocusSettings(**values)  # type: ignore[arg-type]


def test_a_mosaic_cannot_be_refocused() -> None:
    focus = FocusSettings(refocus="1")
    with pytest.raises(SettingsError, match="use --dng linear"):
        Settings(output=OutputSettings(format="dng"), focus=focus)
    assert Settings(output=OutputSettings(format="dng", dng="linear"), focus=focus).focus.redraws
