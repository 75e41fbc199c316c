"""A kept restoration is taken only if it is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from dpbatch.batch.kept import KeptRestorations, forget, kept_folder, restoration_key
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.metadata import PhotoMetadata
from dpbatch.output.tone import ToneCurve
from dpbatch.photo import RestoredPhoto
from dpbatch.raw.camera_space import CameraSpace
from dpbatch.raw.restored import RestoredRaw
from dpbatch.types import Photo
from ldp.types import BlurMap
from tests.helpers.one_photo import PLAIN, run
from tests.helpers.scenes import write_test_dpraw

Array = npt.NDArray[Any]
NONE = PhotoMetadata()


def restoration() -> RestoredPhoto:
    """A photo of 4 x 6 pixels with all that may be kept of one."""
    rng = np.random.default_rng(0)
    sharp, original = rng.integers(0, 65536, (2, 4, 6, 3)).astype(np.uint16)
    plane = rng.random((2, 3), np.float32)
    corrected = np.where(plane > 0.5, np.nan, plane)
    blur_map = BlurMap(
        *(plane, plane, plane),
        radius_px=plane[:1],
        radius_confidence=plane[:1],
        corrected_px=corrected,
        placed_px=3 * plane,
        placed_amount=plane,
    )
    camera = CameraSpace(
        *(np.eye(3), np.eye(3), np.ones(4)),
        cfa=np.array([[0, 1], [3, 2]], np.int8),
        black=np.full(4, 512.0),
        white_dn=15000.0,
    )
    frame = np.full((6, 9), 600, np.uint16)
    raw = RestoredRaw(frame, sharp, camera, (1, 1, 5, 8), (2, 3, 4, 6), 16000, 1.0, "Canon", "EOS")
    return RestoredPhoto(
        sharp,
        blur_map,
        orientation=6,
        metadata=NONE,
        curve=ToneCurve((0.0, 0.5, 1.0), (0.0, 0.6, 1.0)),
        warnings=("the preview does not fit the photo",),
        raw=raw,
        original=original,
        original_raw=replace(raw, light=original),
    )


@pytest.fixture
def kept(tmp_path: Path) -> KeptRestorations:
    kept = KeptRestorations(kept_folder(tmp_path), "key")
    kept.write("a.tif", (), restoration())
    return kept


def file_of(kept: KeptRestorations) -> Path:
    (file,) = kept.folder.iterdir()
    return file


def rewrite(
    file: Path, about: Mapping[str, Any], arrays: Mapping[str, Callable[[Array], Array] | None]
) -> None:
    """Write a kept file again with other values, or with arrays that functions make of its own."""
    with np.load(file) as stored:
        found = dict(stored)
    known = json.loads(str(found.pop("about"))) | about
    for name, change in arrays.items():
        if change is None:
            del found[name]
        else:
            found[name] = change(found.get(name, np.zeros(1)))
    np.savez(file, allow_pickle=False, about=np.array(json.dumps(known)), **found)


def assert_same(photo: RestoredPhoto | None) -> None:
    expected = restoration()
    assert photo is not None
    assert (photo.orientation, photo.curve, photo.warnings) == (
        6,
        expected.curve,
        expected.warnings,
    )
    for name in ("sharp", "original"):
        np.testing.assert_array_equal(getattr(photo, name), getattr(expected, name))
    for name, plane in vars(expected.blur_map).items():
        np.testing.assert_array_equal(getattr(photo.blur_map, name), plane)
    for mine, theirs in ((photo.raw, expected.raw), (photo.original_raw, expected.original_raw)):
        assert mine is not None
        assert theirs is not None
        assert mine.about() == json.loads(json.dumps(theirs.about())) | {
            name: getattr(theirs, name) for name in ("visible", "active")
        }
        for name, plane in theirs.planes().items():
            np.testing.assert_array_equal(mine.planes()[name], plane)


def test_all_of_a_restoration_comes_back(kept: KeptRestorations) -> None:
    assert_same(kept.read("a.tif", (), NONE))


def raw_about(**changes: object) -> dict[str, Any]:
    raw = restoration().raw
    assert raw is not None
    return {"raw": raw.about() | changes}


@pytest.mark.parametrize(
    ("about", "arrays"),
    [
        ({"orientation": 99}, {}),
        ({"orientation": 0}, {}),
        ({"orientation": "6"}, {}),
        ({"orientation": True}, {}),
        ({"curve": 5}, {}),
        ({"curve": [[0, 1], [0, 0.5, 1]]}, {}),
        ({"curve": [[0, 0.5, 0.5, 1], [0, 0.2, 0.6, 1]]}, {}),
        ({"curve": [[0, 0.5, 1], [0, float("nan"), 1]]}, {}),
        ({"warnings": [5]}, {}),
        ({"raw": None}, {}),
        ({"raw": {"camera": 5}}, {}),
        (raw_about(active=[2, 3, 4, 5]), {}),
        (raw_about(active=[4, 3, 4, 6]), {}),
        (raw_about(active=[-1, 3, 4, 6]), {}),
        (raw_about(ceiling_dn=0), {}),
        (raw_about(headroom_ev=1e9), {}),
        (raw_about(make=None), {}),
        ({}, {"sharp": lambda sharp: sharp.astype(np.float64)}),
        ({}, {"sharp": lambda sharp: sharp[:3]}),
        ({}, {"sharp": lambda sharp: sharp[..., 0]}),
        ({}, {"original": lambda original: original[:, :5]}),
        ({}, {"original": None}),
        ({}, {"amount": lambda amount: amount.astype(np.float64)}),
        ({}, {"amount": lambda amount: amount * np.float32(np.nan)}),
        ({}, {"disparity_px": lambda disparity_px: disparity_px[:1]}),
        ({}, {"disparity_px": None}),
        ({}, {"radius_confidence": lambda confidence: confidence.T}),
        ({}, {"placed_px": lambda placed_px: placed_px[1:]}),
        ({}, {"placed_amount": lambda amount: np.full_like(amount, np.nan)}),
        ({}, {"corrected_px": lambda corrected_px: corrected_px / np.float32(0)}),
        ({}, {"sharp_mosaic": None}),
        ({}, {"sharp_mosaic": lambda mosaic: mosaic.astype(np.int64)}),
        ({}, {"original_light": lambda light: light[:1]}),
        ({}, {"soft": lambda _: np.zeros((2, 3), np.float32)}),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_is_no_restoration_is_none_and_makes_room_for_one(
    about: dict[str, Any],
    arrays: dict[str, Callable[[Array], Array] | None],
    kept: KeptRestorations,
) -> None:
    rewrite(file_of(kept), about, arrays)
    assert kept.read("a.tif", (), NONE) is None
    assert kept.keep("a.tif", (), restoration()) == ()
    assert_same(kept.read("a.tif", (), NONE))


def test_a_file_of_another_program_is_none_and_replaced(kept: KeptRestorations) -> None:
    with file_of(kept).open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert kept.read("a.tif", (), NONE) is None
    assert file_of(kept).exists()
    kept.keep("a.tif", (), restoration())
    assert_same(kept.read("a.tif", (), NONE))


def test_damaged_bytes_cost_the_restoration_at_most(kept: KeptRestorations) -> None:
    file, rng = file_of(kept), np.random.default_rng(1)
    whole = file.read_bytes()
    for place in rng.choice(len(whole), 150, replace=False).tolist():
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        found = kept.read("a.tif", (), NONE)
        if found is not None:
            assert_same(found)
        file.write_bytes(whole[:place])
        assert kept.read("a.tif", (), NONE) is None


def test_a_damaged_restoration_costs_time_and_not_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 96, 128, disparity_px=2.0)
    photo = Photo("raw", (path,), "a")
    half = replace(PLAIN, focus=FocusSettings(strength=0.5))
    kept = KeptRestorations(kept_folder(tmp_path), restoration_key(PLAIN, "hash", ""))
    run(half, photo, tmp_path / "first", kept)
    rewrite(file_of(kept), {"orientation": 99}, {})
    run(half, photo, tmp_path / "second", kept)
    first, second = (tifffile.imread(tmp_path / name / "a.tif") for name in ("first", "second"))
    np.testing.assert_array_equal(second, first)
    with np.load(file_of(kept)) as stored:
        assert json.loads(str(stored["about"]))["orientation"] == 1


def test_restorations_that_another_process_removes_meanwhile_are_passed_over(
    kept: KeptRestorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = kept.folder / "gone.npz"
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: [gone, *listed(folder)])
    replace(kept, limit_bytes=1).write("b.tif", (), restoration())
    assert not kept.has("a.tif")
    assert kept.has("b.tif")
    assert forget(kept.folder.parents[1])[0] == 1
