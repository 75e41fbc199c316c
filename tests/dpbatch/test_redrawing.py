"""Refocusing and moved bokeh from a raw file to what is written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from dpbatch.batch.kept import KeptRestorations, kept_folder, restoration_key
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.errors import OutputError
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.metadata import PhotoMetadata, ProcessingNote, read_note
from dpbatch.photo import RestoredPhoto, save
from dpbatch.settings import OutputSettings, Settings
from dpbatch.types import Photo
from ldp.types import Picture
from tests.helpers.one_photo import PLAIN, run
from tests.helpers.scenes import write_test_dpraw

SIZE = (128, 192)
DISPARITY_PX = 2.0


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Photo:
    """A photo of one depth."""
    path = tmp_path_factory.mktemp("raw") / "a.CR2"
    write_test_dpraw(path, *SIZE, disparity_px=DISPARITY_PX)
    return Photo("raw", (path,), "a")


@pytest.fixture(scope="module")
def restored(raw: Photo, tmp_path_factory: pytest.TempPathFactory) -> Picture:
    out = tmp_path_factory.mktemp("restored")
    run(PLAIN, raw, out)
    return tifffile.imread(out / "a.tif")


def refocused(refocus_px: float, **values: object) -> Settings:
    focus = FocusSettings(refocus=f"{refocus_px}", **values)  # type: ignore[arg-type]
    return replace(PLAIN, focus=focus)


def detail(picture: Picture) -> float:
    return float(np.abs(np.diff(picture.astype(np.float64), axis=1)).mean())


def test_the_depth_of_the_photo_is_sharp_and_another_one_is_not(
    raw: Photo, restored: Picture, tmp_path: Path
) -> None:
    saved = run(refocused(DISPARITY_PX), raw, tmp_path / "in focus")
    in_focus = tifffile.imread(tmp_path / "in focus" / "a.tif")
    assert np.median(np.abs(in_focus.astype(int) - restored)) <= 1
    assert saved.rescued == "refocused at +2.0 px"
    note = read_note(tmp_path / "in focus" / "a.tif")
    assert note is not None
    assert note.rescued == saved.rescued
    saved = run(refocused(-4.0), raw, tmp_path / "behind")
    assert detail(tifffile.imread(tmp_path / "behind" / "a.tif")) < 0.3 * detail(restored)
    assert any(w.startswith("no part of the photo is in focus at -4.0 px") for w in saved.warnings)


def test_another_focus_needs_no_network_and_is_the_same_as_without_the_kept_restoration(
    raw: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = refocused(0.0, bokeh_shift=0.5)
    run(settings, raw, tmp_path / "fresh")
    kept = KeptRestorations(kept_folder(tmp_path), restoration_key(PLAIN, "hash", ""))
    run(refocused(DISPARITY_PX), raw, tmp_path / "first", kept)
    monkeypatch.setattr("dpbatch.photo.load", lambda *_: pytest.fail("developed again"))
    run(settings, raw, tmp_path / "second", kept)
    fresh, second = (tifffile.imread(tmp_path / name / "a.tif") for name in ("fresh", "second"))
    np.testing.assert_array_equal(second, fresh)


def test_only_a_redrawing_changes_the_fingerprint() -> None:
    keys = [
        PhotoStages(replace(PLAIN, focus=focus), "hash").fingerprint
        for focus in (
            FocusSettings(),
            FocusSettings(bokeh_shift=0.0),
            FocusSettings(refocus="0"),
            FocusSettings(refocus="1"),
            FocusSettings(bokeh_shift=1.0),
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    "output",
    [
        OutputSettings(format="dng", dng="linear"),
        OutputSettings(layers_in="photoshop"),
        OutputSettings(color_space="prophoto", layers=("depth",), layers_in="alpha"),
    ],
)
def test_it_goes_with_the_forms_for_editors(
    output: OutputSettings, raw: Photo, tmp_path: Path
) -> None:
    output = replace(output, look="neutral")
    sharpness = []
    for refocus_px in (DISPARITY_PX, -4.0):
        settings = replace(refocused(refocus_px, bokeh_shift=1.0), output=output)
        saved = run(settings, raw, tmp_path / str(refocus_px))
        (path,) = saved.outputs
        with tifffile.TiffFile(str(path)) as file:
            page = file.pages.first
            if output.format == "dng":
                assert page.pages is not None
                page = page.pages[0].aspage()
            sharpness.append(detail(page.asarray()[..., :3]))
    assert sharpness[1] < 0.4 * sharpness[0]


def test_an_ordinary_photo_is_refused_with_the_reason(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint16)
    ordinary = RestoredPhoto(picture, None, 1, PhotoMetadata(), is_ordinary=True)
    note = ProcessingNote("1", "a.jpg", "{}")
    with pytest.raises(
        OutputError, match=r"a\.jpg: .* photos of two views, and this is an ordinary one"
    ):
        save(ordinary, tmp_path / "a.tif", OutputSettings(), note, FocusSettings(refocus="1"))
