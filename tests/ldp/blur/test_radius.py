"""The radius of the blur, found by the network that comes with the package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ldp.blur.learned import (
    FORMAT,
    LearnedEstimator,
    load_radius_network,
    photo_ratio,
    save_radius_network,
)
from ldp.blur.loading import load_estimator
from ldp.blur.radius import RadiusMap
from ldp.blur.radius_net import RadiusNet, RadiusNetConfig
from ldp.blur.ratio import USUAL_RATIO
from ldp.errors import WeightsError
from ldp.srgb import encode_srgb
from ldp.types import BlurMap, FloatArray, Plane, ViewPair
from training.evaluation.native_scenes import convolved, iris_kernels


@pytest.fixture(scope="module")
def estimator() -> LearnedEstimator:
    found = load_estimator("learned", device="cpu")
    assert isinstance(found, LearnedEstimator)
    return found


def textured(size: tuple[int, int] = (384, 512), seed: int = 0) -> FloatArray:
    """Rectangles of random sizes and colours over one another, linear light: edges everywhere."""
    rng = np.random.default_rng(seed)
    picture = np.full((*size, 3), 0.3, np.float32)
    for _ in range(900):
        y, x = (int(rng.integers(-20, side)) for side in size)
        height, width = (int(length) for length in np.exp(rng.uniform(1, 4, 2)))
        picture[max(0, y) : y + height, max(0, x) : x + width] = rng.uniform(0.02, 0.9, 3)
    return picture


def blurred(picture: FloatArray, radius_px: float, ratio: float) -> ViewPair:
    """Both views of a picture through an iris unlike the simulator's, with a little noise."""
    rng = np.random.default_rng(1)
    views = []
    for kernel in iris_kernels(radius_px, ratio, 7):
        encoded = encode_srgb(np.ascontiguousarray(convolved(picture, kernel)))
        views.append(encoded + rng.normal(0, 0.003, picture.shape).astype(np.float32))
    left, right = (np.asarray(np.clip(view, 0, 1), np.float32) for view in views)
    return ViewPair(left, right)


def radius_of(estimator: LearnedEstimator, views: ViewPair) -> Plane:
    radius = estimator.estimate(views).radius_px
    assert radius is not None
    return radius


@pytest.mark.parametrize("ratio", [0.2, 0.6])
@pytest.mark.parametrize("radius_px", [-12.0, 5.0, 20.0])
def test_radius_and_side_whatever_the_ratio_of_disparity_to_radius(
    estimator: LearnedEstimator, radius_px: float, ratio: float
) -> None:
    found = radius_of(estimator, blurred(textured(), radius_px, ratio))
    assert np.mean(np.sign(found) == np.sign(radius_px)) > 0.9
    assert float(np.median(np.abs(found))) == pytest.approx(abs(radius_px), rel=0.35)


def test_what_is_in_focus_has_no_radius(estimator: LearnedEstimator) -> None:
    found = radius_of(estimator, blurred(textured(), 0.0, 0.4))
    assert np.mean(np.abs(found) < 0.7) > 0.9


@pytest.mark.parametrize(("blur", "away_px"), [("disparity", 40), ("learned", 15)])
def test_a_map_has_no_ramp_where_a_border_of_focus_has_no_outline(blur: str, away_px: int) -> None:
    # One texture, whose right half is blurred: a ramp of 100 px into the left half had made the
    # network sharpen what is sharp.
    rng = np.random.default_rng(0)
    texture = np.full((160, 1600), 0.4, np.float32)
    for cell_px in (2, 4, 12, 40):
        size = (160 // cell_px + 2, 1600 // cell_px + 2)
        cells = rng.uniform(-0.15, 0.15, size).astype(np.float32)
        texture += cv2.resize(cells, (1600, 160), interpolation=cv2.INTER_CUBIC)
    linear = np.repeat(texture.clip(0.02, 0.95)[..., None], 3, axis=2)
    half = np.s_[:, 800:]
    sharp, soft = (blurred(linear, radius_px, 0.6) for radius_px in (0.0, 10.0))
    for view, other in ((sharp.left, soft.left), (sharp.right, soft.right)):
        view[half] = other[half]
    estimator = load_estimator(blur, device="cpu")
    found = estimator.estimate(sharp)
    plane = found.radius_px if blur == "learned" else found.disparity_px
    assert plane is not None
    plane = np.median(np.abs(cv2.resize(plane, (1600, 160))), axis=0)
    assert plane[100 : 800 - away_px].max() < 0.4
    assert np.median(plane[800 + away_px :]) > 4


def test_the_radius_is_in_pixels_of_the_full_size_view(estimator: LearnedEstimator) -> None:
    views = blurred(textured(), 8.0, 0.5)
    size = (1024, 768)
    left, right = (np.asarray(cv2.resize(v, size), np.float32) for v in (views.left, views.right))
    large = ViewPair(left, right)
    small, twice = (float(np.median(radius_of(estimator, v))) for v in (views, large))
    assert twice == pytest.approx(2 * small, rel=0.15)


def test_the_map_covers_views_of_any_size(estimator: LearnedEstimator) -> None:
    rng = np.random.default_rng(2)
    for size in ((1, 1), (7, 130), (97, 33)):
        view = rng.uniform(size=(*size, 3)).astype(np.float32)
        found = estimator.estimate(ViewPair(view, view))
        assert found.radius_px is not None
        assert np.isfinite(found.radius_px).all()
        assert found.amount.shape == (-(-size[0] // 4), -(-size[1] // 4))
        assert found.amount.min() >= 0
        assert found.amount.max() <= 1


@pytest.mark.parametrize("ratio", [0.2, 0.6])
def test_the_disparity_is_the_radius_times_the_photos_own_ratio(ratio: float) -> None:
    rng = np.random.default_rng(3)
    radius = rng.uniform(-20, 20, (40, 60)).astype(np.float32)
    disparity = ratio * radius
    disparity[:15] = rng.normal(0, 5, (15, 60))  # false matches
    sure = np.full_like(radius, 0.9)
    found = photo_ratio(RadiusMap(radius, sure), BlurMap(sure, disparity, sure))
    assert found == pytest.approx(ratio, rel=0.05)
    unsure = BlurMap(sure, disparity, np.zeros_like(sure))
    assert photo_ratio(RadiusMap(radius, sure), unsure) == USUAL_RATIO


def test_weights_go_through_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = RadiusNet(RadiusNetConfig((4, 6, 8))).eval()
    save_radius_network(network, tmp_path / "radius.safetensors", {"steps": "7"})
    lightness = torch.rand(1, 2, 32, 48)
    again = load_radius_network(tmp_path / "radius.safetensors")
    with torch.inference_mode():
        np.testing.assert_allclose(again(lightness), network(lightness), atol=0.02)


def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "radius.safetensors"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"radius\.safetensors: not the weights of the radius"):
        load_radius_network(broken)
    with pytest.raises(WeightsError, match="missing"):
        load_radius_network(tmp_path / "missing.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, broken, metadata={"format": "ldp-1"})
    with pytest.raises(WeightsError, match=f"format 'ldp-1', expected '{FORMAT}'"):
        load_radius_network(broken)
