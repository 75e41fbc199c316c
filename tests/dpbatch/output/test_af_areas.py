import numpy as np

from dpbatch.output.af_areas import af_areas, areas_of
from dpbatch.output.focus import AfArea


def _af_info(in_focus: int, selected: int) -> np.ndarray:
    """Three areas of 100 x 80 in a frame of 6000 x 4000."""
    header = [0, 2, 3, 3, 6000, 4000, 6000, 4000]
    widths, heights = [100] * 3, [80] * 3
    x, y = [-1500, 0, 1500], [1000, 0, -1000]
    values = [*header, *widths, *heights, *x, *y, in_focus, selected, 0]
    return np.array(values, np.int64).astype(np.uint16)


def test_areas_in_focus_are_found_with_y_upwards() -> None:
    (found,) = areas_of(_af_info(0b001, 0b111))
    assert found == AfArea(0.25, 0.25, 100 / 6000, 80 / 4000)
    (found,) = areas_of(_af_info(0b100, 0))
    assert found == AfArea(0.75, 0.75, 100 / 6000, 80 / 4000)


def test_without_one_in_focus_the_selected_ones_count() -> None:
    assert [area.x for area in areas_of(_af_info(0, 0b110))] == [0.5, 0.75]


def test_incomplete_arrays_have_no_areas() -> None:
    whole = _af_info(0b111, 0)
    for length in range(len(whole) - 3):
        assert areas_of(whole[:length]) == ()
    assert areas_of(_af_info(0, 0)) == ()
    assert af_areas(b"") == ()
    assert af_areas(b"no metadata at all, of any kind") == ()
