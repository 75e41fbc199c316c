"""The face of networks of single pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import ldp
from ldp.restore.tiling import Progress, ReceiveRows
from ldp.types import Picture, as_float


@dataclass(frozen=True)
class Brighter:
    """Restores by doubling, in bands of 4 rows; the first attempt breaks off after a band."""

    def restore_bands(
        self, picture: Picture, receive: ReceiveRows, progress: Progress | None = None
    ) -> None:
        doubled = as_float(picture) * 2
        receive(0, np.zeros_like(doubled[:4]))
        for row in range(0, len(doubled), 4):
            receive(row, doubled[row : row + 4])
            if progress:
                progress(row // 4 + 1, -(-len(doubled) // 4))


MODEL = ldp.SingleModel(Brighter(), ldp.SingleInfo(parameters=0))


def test_bands_become_one_picture_of_floats_or_of_16_bit() -> None:
    picture = np.random.default_rng(0).integers(0, 65536, (11, 5, 3)).astype(np.uint16)
    expected = picture.astype(np.float32) / 65535 * 2
    np.testing.assert_allclose(MODEL.restore(picture), expected, rtol=1e-6)
    assert expected.max() > 1
    rounded = MODEL.restore_uint16(picture)
    assert rounded.dtype == np.uint16
    np.testing.assert_array_equal(rounded, np.minimum(picture.astype(np.uint32) * 2, 65535))


def test_progress_is_handed_on() -> None:
    seen: list[tuple[int, int]] = []
    MODEL.restore(np.zeros((9, 2, 3), np.uint8), progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"\(H, W, 3\) RGB, found \(4, 5\)"),
        (np.zeros((0, 5, 3), np.uint8), r"found \(0, 5, 3\)"),
        (np.zeros((4, 5, 3), np.int32), "found int32"),
    ],
)
def test_what_is_no_picture_is_refused(picture: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODEL.restore(picture)


def test_a_network_of_two_views_is_refused_by_name() -> None:
    with pytest.raises(ldp.WeightsError, match=r"tiny.safetensors: a network of two views"):
        ldp.load_single("tiny", device="cpu")
