"""ViTDeblur on whole pictures: agreement with its description, windows, bands, memory."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ldp.errors import DeviceMemoryError, LdpError
from ldp.models.vitdeblur import ViTDeblur, ViTDeblurConfig
from ldp.models.vitdeblur_weights import from_published
from ldp.restore.windows import WindowRestorer, WindowSettings, padded_indices, window_starts
from tests.helpers import vitdeblur_reference as reference

CPU = torch.device("cpu")
TINY = ViTDeblurConfig(
    width=12, primary_heads=2, contextual_heads=3, decoder_width=8, decoder_heads=1
)
SMALL_WINDOWS = ViTDeblurConfig(
    window_px=40, width=8, primary_heads=1, contextual_heads=2, decoder_width=8, decoder_heads=1
)


def network(config: ViTDeblurConfig, tmp_path: Any = "ViTDeblur.pth") -> tuple[ViTDeblur, dict]:
    """Return a network of a random checkpoint, and its weights for the reference."""
    found = reference.random_checkpoint(config.width, config.decoder_width)
    made, _ = from_published(tmp_path, found, config)
    return made, {name: value.double().numpy() for name, value in found.items()}


def restored(made: ViTDeblur, picture: np.ndarray, **settings: Any) -> np.ndarray:
    """Return a restored picture and check that its bands come in order, without gaps."""
    settings = {"stride_px": min(94, made.config.covered_px), **settings}
    restorer = WindowRestorer.of(made, CPU, WindowSettings(**settings))
    bands: list[np.ndarray] = []

    def receive(first_row: int, rows: np.ndarray) -> None:
        assert first_row == sum(map(len, bands))
        bands.append(rows)

    restorer.restore_bands(picture, receive)
    return np.concatenate(bands)


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width"),
    [(320, 333), pytest.param(432, 519, marks=pytest.mark.slow)],
    ids=["no multiple of 16", "several windows"],
)
def test_it_is_what_the_description_says(height: int, width: int) -> None:
    made, weights = network(TINY)
    given = picture(height, width)
    heads = reference.Sizes(TINY.primary_heads, TINY.contextual_heads, TINY.decoder_heads)
    blue_first = reference.padded(given[..., ::-1] / np.float32(255))
    expected = reference.restored(blue_first, weights, heads)
    assert expected.shape[:2] == (height + -height % 16, width + -width % 16)
    assert 0.1 < expected.std() < 1
    found = restored(made, given)
    assert found.shape == given.shape
    np.testing.assert_allclose(found, expected[:height, :width, ::-1], atol=1e-5)


def test_a_picture_under_a_window_is_enlarged_and_comes_back_at_its_size() -> None:
    made, weights = network(TINY)
    given = picture(250, 319)
    heads = reference.Sizes(TINY.primary_heads, TINY.contextual_heads, TINY.decoder_heads)
    blue_first = reference.padded(given[..., ::-1] / np.float32(255))
    assert blue_first.shape == (320, 320, 3)
    expected = reference.restored(blue_first, weights, heads)[..., ::-1]
    reduced = cv2.resize(expected, (319, 250), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(restored(made, given), reduced, atol=1e-5)


@pytest.mark.parametrize("stride", [7, 13, 30])
@pytest.mark.parametrize("blending", ["uniform", "smooth"])
def test_any_stride_and_blending_is_the_mean_of_the_windows(stride: int, blending: str) -> None:
    made, weights = network(SMALL_WINDOWS)
    given = picture(75, 90)
    sizes = reference.Sizes(1, 2, 1, window=40, stride=stride, smooth=blending == "smooth")
    expected = reference.restored(given[..., ::-1] / np.float32(255), weights, sizes)
    found = restored(made, given, stride_px=stride, blending=blending, padding="reflect")
    np.testing.assert_allclose(found, expected[..., ::-1], atol=1e-5)


def test_a_batch_changes_nothing_but_the_order_of_the_work() -> None:
    made, _ = network(SMALL_WINDOWS)
    given = picture(75, 90)
    one = restored(made, given, stride_px=13, batch=1)
    np.testing.assert_allclose(restored(made, given, stride_px=13, batch=4), one, atol=1e-6)


def test_sides_under_a_window_are_reflected_where_nothing_is_to_be_enlarged() -> None:
    made, _ = network(SMALL_WINDOWS)
    given = picture(17, 60)
    grown = cv2.copyMakeBorder(given, 0, 23, 0, 0, cv2.BORDER_REFLECT)
    found = restored(made, given, stride_px=30, padding="reflect")
    expected = restored(made, grown, stride_px=30, padding="reflect")[:17]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_type_decides_only_which_value_is_white(dtype: type) -> None:
    made, _ = network(SMALL_WINDOWS)
    given = picture(45, 60)
    same = given.astype(np.uint16) * 257 if dtype is np.uint16 else given / np.float32(255)
    np.testing.assert_allclose(restored(made, same), restored(made, given), atol=1e-6)


def test_progress_counts_windows() -> None:
    made, _ = network(SMALL_WINDOWS)
    seen: list[tuple[int, int]] = []
    restorer = WindowRestorer.of(
        made, CPU, WindowSettings(stride_px=30, batch=2, padding="reflect")
    )
    restorer.restore_bands(picture(75, 100), lambda *_: None, lambda *at: seen.append(at))
    assert seen == [(2, 9), (3, 9), (5, 9), (6, 9), (8, 9), (9, 9)]


def test_the_batch_is_halved_where_the_memory_is_too_small(monkeypatch) -> None:
    made, _ = network(SMALL_WINDOWS)
    given = picture(75, 100)
    whole = restored(made, given, stride_px=30, batch=1)
    own, seen = made.window_features, []

    def short_of_memory(windows: torch.Tensor) -> torch.Tensor:
        seen.append(len(windows))
        if len(windows) > most:
            raise torch.OutOfMemoryError("full")
        return own(windows)

    monkeypatch.setattr(made, "window_features", short_of_memory)
    most = 1
    np.testing.assert_array_equal(restored(made, given, stride_px=30, batch=3), whole)
    assert seen[:4] == [3, 1, 1, 1]
    assert max(seen[1:]) == 1
    most = 0
    with pytest.raises(DeviceMemoryError, match="a row of windows of 40 px"):
        restored(made, given, stride_px=30, batch=3)


def test_what_is_not_finite_is_refused() -> None:
    made, _ = network(SMALL_WINDOWS)
    given = np.full((45, 60, 3), np.nan, np.float32)
    with pytest.raises(LdpError, match=r"rows 0 to .*not finite"):
        restored(made, given)


def test_windows_of_the_published_stride() -> None:
    across, down = window_starts(1680, 320, 94), window_starts(1120, 320, 94)
    assert (len(across), len(down)) == (16, 10)
    assert across[:3] == [0, 94, 188]
    assert (across[-1], down[-1]) == (1360, 800)
    assert window_starts(320, 320, 94) == [0]
    # Without overlap: 10 rows and 14 columns cover three megapixels less than twice.
    assert window_starts(940, 320, 310) == [0, 310, 620]


def test_reflection_repeats_the_last_pixel() -> None:
    row = np.arange(4, dtype=np.uint8)[None]
    expected = cv2.copyMakeBorder(row, 0, 0, 0, 9, cv2.BORDER_REFLECT)[0]
    np.testing.assert_array_equal(row[0][padded_indices(13, 4)], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride_px": 0}, "stride_px 0"),
        ({"batch": -1}, "batch -1"),
        ({"blending": "sharp"}, "blending 'sharp': expected one of uniform, smooth"),
        ({"padding": "none"}, "padding 'none': expected one of published, reflect"),
        ({"stride_px": 31}, "stride_px 31: expected at most 30"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowRestorer.of(ViTDeblur(SMALL_WINDOWS), CPU, WindowSettings(**settings))
