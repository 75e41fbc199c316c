import numpy as np
import pytest

from dpbatch.output.color import apply_orientation

# EXIF: the side of the upright picture where the stored row 0 lies, and where column 0 lies.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def side(picture: np.ndarray, name: str) -> np.ndarray:
    return {
        "top": picture[0],
        "bottom": picture[-1],
        "left": picture[:, 0],
        "right": picture[:, -1],
    }[name]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3)])
def test_orientation_puts_row_0_and_column_0_where_exif_says(orientation, shape):
    stored = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    upright = apply_orientation(stored, orientation)
    row_side, column_side = SIDES[orientation]
    assert set(side(upright, row_side).flat) == set(stored[0].flat)
    assert set(side(upright, column_side).flat) == set(stored[:, 0].flat)
    assert sorted(upright.flat) == sorted(stored.flat)
    assert upright.flags.c_contiguous
    if len(shape) == 3:  # colours stay in place
        np.testing.assert_array_equal(upright[..., 0] + 1, upright[..., 1])


def test_unknown_orientation_is_refused():
    with pytest.raises(ValueError, match="expected 1 to 8"):
        apply_orientation(np.zeros((2, 2)), 9)
