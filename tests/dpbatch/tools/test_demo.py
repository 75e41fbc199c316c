from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from dpbatch.errors import AbortError
from dpbatch.tools import demo
from dpbatch.tools.demo import run_demo
from dpbatch.tools.demo_scenes import DemoScene, demo_scenes
from ldp.errors import WeightsError


@pytest.fixture(scope="module")
def scenes() -> list[DemoScene]:
    return demo_scenes()


@pytest.fixture
def small_scenes(scenes: list[DemoScene], monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo has a corner of each scene; the one without dual pixels stays as it is."""
    corners = []
    for scene in scenes:
        parts = {x.name: getattr(scene.pair, x.name)[:96, :128] for x in fields(scene.pair)}
        corners.append(replace(scene, pair=replace(scene.pair, **parts)))
    monkeypatch.setattr(demo, "demo_scenes", lambda: corners)


def test_missing_weights_stop_the_demo_before_it_writes_anything(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such network"):
        run_demo(tmp_path / "demo", "nothing-of-that-name")
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(AbortError, match="demo: the output folder cannot be written"):
        run_demo(file / "demo", "tiny")


@pytest.mark.slow
def test_the_demo_ends_as_planned_and_the_photos_become_sharper(
    scenes: list[DemoScene],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "demo_scenes", lambda: scenes)
    assert run_demo(tmp_path, "tiny") == 0
    told = capsys.readouterr().out
    assert "IMG_0005 (no dual pixels) was skipped and IMG_0006 (cut short) failed" in told
    assert "skipped, not-dual-pixel: 1" in told
    assert "failed, damaged: 1" in told
    gains = [line.split() for line in told.splitlines() if " dB  " in line]
    assert len(gains) == 4
    for _, before_db, _, after_db, *_ in gains:
        assert float(after_db) > float(before_db) + 0.5
    portrait = tifffile.imread(tmp_path / "sharp" / "IMG_0004.tif")
    assert portrait.shape == (512, 384, 3)
    assert portrait.dtype == np.uint16
    for name in ("blur", "disparity"):
        layer = tifffile.imread(tmp_path / "sharp" / f"IMG_0001.{name}.tif")
        assert layer.shape == (500, 740)
        assert layer.dtype == np.uint16
    compared = cv2.imread(str(tmp_path / "compare" / "IMG_0002.png"))
    assert compared is not None
    assert compared.shape == (400, 3 * 600, 3)
    assert not (tmp_path / "sharp" / "IMG_0006.tif").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_scenes")
def test_the_photo_without_dual_pixels_becomes_sharper_where_it_is_restored_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(tmp_path, "tiny", "single") == 0
    told = capsys.readouterr().out
    assert "IMG_0005 (no dual pixels) was restored and IMG_0006 (cut short) failed" in told
    (line,) = (
        line.split() for line in told.splitlines() if "workshop, without dual pixels" in line
    )
    assert float(line[3]) > float(line[1]) + 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("small_scenes")
def test_another_outcome_than_the_planned_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "cut_short", lambda whole: whole)
    with pytest.raises(AbortError, match="IMG_0006 failed"):
        run_demo(tmp_path, "tiny")


@pytest.mark.slow
def test_the_scenes_hold_what_the_demo_promises(scenes: list[DemoScene]) -> None:
    motorcycle, coffee, rocket, portrait = scenes
    for scene in (motorcycle, coffee):
        assert scene.pair.disparity_px.min() < -2
        assert scene.pair.disparity_px.max() > 2
    assert (rocket.pair.left * rocket.exposure).max() > 1.3
    assert portrait.tags.orientation == 6
