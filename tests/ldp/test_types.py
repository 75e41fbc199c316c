from typing import Any

import numpy as np
import pytest

from ldp.types import ViewPair, as_float


def test_integers_span_their_type_and_floats_come_back_as_they_are():
    types: Any = (np.uint8, np.uint16)
    for dtype in types:
        levels = np.array([0, 51, np.iinfo(dtype).max], dtype)
        found = as_float(levels)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, levels / np.iinfo(dtype).max, rtol=1e-6)
    floats = np.array([-0.1, 0.5, 1.5], np.float32)
    assert as_float(floats) is floats


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8), "same size and type"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint16), "same size and type"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8), r"\(H, W, 3\) RGB"),
        (np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 4), np.uint8), r"\(H, W, 3\) RGB"),
        (np.zeros((0, 5, 3), np.uint8), np.zeros((0, 5, 3), np.uint8), "a pixel or more"),
        (np.zeros((4, 5, 3)), np.zeros((4, 5, 3)), "uint8, uint16 or float32, found float64"),
    ],
)
def test_views_that_do_not_fit_are_refused(left, right, message):
    with pytest.raises(ValueError, match=message):
        ViewPair(left, right)


def test_size_is_height_and_width():
    views = ViewPair(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))
    assert views.size == (4, 5)
