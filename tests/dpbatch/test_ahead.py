"""What loading finds ahead is what restoring would find, and restoring takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpbatch import ahead, photo
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.engine.attempts import ignore
from dpbatch.engine.local import LocalEngine
from dpbatch.photo import LoadedPhoto, RestoredPhoto
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings, Settings
from dpbatch.types import Job, Limits, Photo, Processes, Status
from ldp.blur.disparity import DisparityEstimator
from ldp.blur.loading import load_estimator, load_matching
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.weights import save_network
from ldp.types import BlurMap
from tests.helpers.scenes import write_test_dpraw
from tests.helpers.toy_stages import NetworkLatches

SMALL = DisparityEstimator(map_pixels=8_000)
"""Looks at smaller copies of the tests' photos."""


@pytest.fixture
def raw(tmp_path: Path) -> Photo:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 128, 192)
    return Photo("raw", (path,), "a")


@pytest.fixture(autouse=True)
def forget_matching() -> Any:
    yield
    ahead.matching_of.cache_clear()


def planes(blur_map: BlurMap | None) -> list[Any]:
    assert blur_map is not None
    return [blur_map.amount, blur_map.disparity_px, blur_map.confidence, blur_map.magnitude_px]


def test_what_is_found_ahead_is_what_restoring_finds(
    raw: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ldp.blur.loading.load_matching", lambda name: SMALL)
    loaded = photo.load(raw, RawSettings(), "camera", find_for="disparity")
    views = photo.views_of(loaded, RawSettings(), torch.device("cpu"))
    assert loaded.ahead is not None
    for mine, theirs in zip(
        planes(loaded.ahead.matched), planes(SMALL.estimate(views)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    curve, warnings = ahead.curve_of_preview(views.reduced(10**6), loaded.preview)
    assert curve is not None
    assert (loaded.ahead.curve, loaded.ahead.warnings) == (curve, warnings)


@pytest.mark.parametrize("blur", ["clip", "clip-patch", "clip-patch-stretched"])
def test_clip_is_left_to_the_device(raw: Photo, blur: str) -> None:
    assert load_matching(blur) is None
    loaded = photo.load(raw, RawSettings(), "camera", find_for=blur)
    assert loaded.ahead is not None
    assert loaded.ahead.matched is None
    assert loaded.ahead.curve is not None


def test_a_photo_that_is_not_reduced_is_matched_as_the_network_is_shown_it(raw: Photo) -> None:
    """Restoring may smooth its noise first, which a smaller copy does not need."""
    loaded = photo.load(raw, RawSettings(), find_for="disparity")
    assert loaded.ahead is not None
    assert loaded.ahead.matched is None


def test_what_matches_ahead_is_what_the_estimator_would_match_with() -> None:
    for name in ("disparity", "learned"):
        mine, theirs = load_matching(name), load_estimator(name, device="cpu").matching  # type: ignore[attr-defined]
        assert mine is not None
        assert (mine.radius is None) == (theirs.radius is None)
        assert replace(mine, radius=None) == replace(theirs, radius=None)


@pytest.mark.parametrize("blur", ["disparity", "learned"])
def test_restoring_takes_what_was_found_and_gives_the_same_picture(
    raw: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blur: str
) -> None:
    monkeypatch.setattr(DisparityEstimator, "__init__", _with_small_map(DisparityEstimator))
    weights = tmp_path / "toy.safetensors"
    config = NetworkConfig(width=8, encoder=(1,), middle=1, decoder=(1,), shuffle=2, crop_px=64)
    save_network(LDPNet(config), weights)
    settings = Settings(
        restore=RestoreSettings(model=str(weights), blur=blur, device="cpu", scale="1"),
        output=OutputSettings(layers=("disparity",)),
    )
    job = Job("a", "a", raw, (tmp_path / "a.tif",))
    found = []
    for finds_ahead in (False, True):
        stages = PhotoStages(settings, "hash", finds_ahead=finds_ahead)
        loaded = stages.load(job)
        assert isinstance(loaded.value, LoadedPhoto)
        assert (loaded.value.ahead is not None) == finds_ahead
        restore = stages.restorer()
        if finds_ahead:
            monkeypatch.setattr(DisparityEstimator, "estimate", _must_not_match)
        found.append(restore(loaded, ignore).value)
    apart, ahead_of_time = found
    assert isinstance(ahead_of_time, RestoredPhoto)
    np.testing.assert_array_equal(apart.sharp, ahead_of_time.sharp)
    for mine, theirs in zip(planes(apart.blur_map), planes(ahead_of_time.blur_map), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert apart.curve is None  # beside a CPU that is left to saving
    assert apart.fitted().curve == ahead_of_time.curve
    assert apart.fitted().curve is not None


def _with_small_map(estimator: type[DisparityEstimator]) -> Any:
    usual = estimator.__init__

    def made(self: DisparityEstimator, **given: Any) -> None:
        usual(self, **{"map_pixels": 8_000, **given})

    return made


def _must_not_match(*_: object) -> BlurMap:
    raise AssertionError("the views are matched again")


def test_views_are_matched_while_another_photo_is_in_the_network(tmp_path: Path) -> None:
    """Latches: the network ends with photo n only once photo n + 1 has been matched."""
    jobs = []
    for number in range(3):
        path = tmp_path / f"{number}.CR2"
        write_test_dpraw(path, 64, 96, seed=number)
        out = (tmp_path / f"{number}.tif",)
        jobs.append(Job(str(number), path.name, Photo("raw", (path,), path.stem), out))
    stages = NetworkLatches(tmp_path / "latches", len(jobs))
    engine = LocalEngine(stages, Processes(1, 1, 2), limits=Limits(tries=1))
    statuses = [outcome.status for _, outcome in engine.run(jobs)]
    assert statuses == [Status.DONE] * 3
    matched = [line for line in stages.lines() if line.startswith("matched")]
    assert matched == ["matched 0.CR2", "matched 1.CR2", "matched 2.CR2"]
