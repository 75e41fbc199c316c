from typing import Any

import numpy as np
import pytest

from ldp.srgb import decode_srgb, encode_srgb


def test_known_values_and_odd_symmetry():
    linear = np.array([0, 0.0031308, 0.18, 0.5, 1, 4, -0.18, -0.001], np.float32)
    expected = [0, 0.04045, 0.461356, 0.735357, 1, 1.824796, -0.461356, -0.01292]
    np.testing.assert_allclose(encode_srgb(linear), expected, atol=2e-6)


def test_round_trip_is_in_place_over_many_blocks():
    linear = np.linspace(-0.2, 1.5, 3_000_001, dtype=np.float32).reshape(-1, 1)
    changed = linear.copy()
    assert decode_srgb(encode_srgb(changed)) is changed
    np.testing.assert_allclose(changed, linear, atol=1e-6)


def test_what_cannot_be_changed_in_place_is_refused():
    picture = np.zeros((4, 6, 3), np.float32)
    doubles: Any = picture.astype(np.float64)
    for wrong in (picture[:, ::2], doubles):
        for function in (encode_srgb, decode_srgb):
            with pytest.raises(ValueError, match="C-contiguous float32"):
                function(wrong)
