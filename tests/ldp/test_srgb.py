from typing import Any

import numpy as np
import pytest
import torch

from ldp.srgb import decode_srgb, encode_signed_srgb_tensor, encode_srgb


def test_known_values_and_odd_symmetry():
    linear = np.array([0, 0.0031308, 0.18, 0.5, 1, 4, -0.18, -0.001], np.float32)
    expected = [0, 0.04045, 0.461356, 0.735357, 1, 1.824796, -0.461356, -0.01292]
    np.testing.assert_allclose(encode_srgb(linear), expected, atol=2e-6)


def test_tensors_are_encoded_as_arrays_are_to_a_hundredth_of_a_16_bit_level():
    near_the_line = np.linspace(0, 0.0063, 5001)
    light = np.concatenate([near_the_line, np.linspace(0, 4, 5001)]).astype(np.float32)
    signed = np.concatenate([light, -light])
    expected = encode_srgb(signed.astype(np.float32))
    found = encode_signed_srgb_tensor(torch.from_numpy(signed)).numpy()
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=0.01 / 65535)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(signed))
    assert encode_signed_srgb_tensor(torch.tensor([torch.nan])).isnan().all()


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
