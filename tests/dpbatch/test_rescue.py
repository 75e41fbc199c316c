"""Focus control and layers from a raw file to what is written."""

import errno
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from dpbatch.batch.kept import KeptRestorations, forget, kept_folder, restoration_key
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.errors import SettingsError
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.metadata import read_note
from dpbatch.output.whole import opens
from dpbatch.raw.masks import check_mask
from dpbatch.settings import OutputSettings, Settings
from dpbatch.types import Photo
from ldp.errors import WeightsError
from ldp.types import BlurMap, Picture
from tests.helpers.one_photo import NETWORK, PLAIN, run
from tests.helpers.scenes import write_test_dpraw

SIZE = (128, 192)
NEEDS_OPENEXR = pytest.mark.skipif(find_spec("OpenEXR") is None, reason="not installed")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Photo:
    path = tmp_path_factory.mktemp("raw") / "a.CR2"
    write_test_dpraw(path, *SIZE, disparity_px=2.0)
    return Photo("raw", (path,), "a")


@pytest.fixture(scope="module")
def whole(raw: Photo, tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """The photo restored without any choice."""
    out = tmp_path_factory.mktemp("whole")
    run(PLAIN, raw, out)
    return tifffile.imread(out / "a.tif")


@pytest.fixture(scope="module")
def untouched(raw: Photo, tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return with_strength(raw, tmp_path_factory.mktemp("untouched"), 0.0)


def with_focus(**values: object) -> Settings:
    return replace(PLAIN, focus=FocusSettings(**values))  # type: ignore[arg-type]


def with_strength(raw: Photo, folder: Path, strength: float) -> Picture:
    out = folder / str(strength)
    run(with_focus(strength=strength), raw, out)
    return tifffile.imread(out / "a.tif")


def test_strength_leads_from_the_untouched_photo_to_the_restored_one(
    raw: Photo, untouched: Picture, tmp_path: Path
) -> None:
    at_0, half, full = (
        picture.astype(np.float64)
        for picture in (
            untouched,
            with_strength(raw, tmp_path, 0.5),
            with_strength(raw, tmp_path, 1.0),
        )
    )
    assert np.abs(full - at_0).max() > 500
    np.testing.assert_allclose(half, (at_0 + full) / 2, atol=1)


def test_a_mask_leaves_its_black_part_untouched_and_its_white_part_restored(
    raw: Photo, untouched: Picture, whole: Picture, tmp_path: Path
) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 96:] = 255
    assert cv2.imwrite(str(tmp_path / "m.png"), mask)
    saved = run(with_focus(mask=str(tmp_path / "m.png")), raw, tmp_path / "masked")
    masked = tifffile.imread(tmp_path / "masked" / "a.tif")
    np.testing.assert_array_equal(masked[:, :96], untouched[:, :96])
    np.testing.assert_array_equal(masked[:, 96:], whole[:, 96:])
    assert saved.rescued == "mask m.png; 50% of the photo"
    note = read_note(tmp_path / "masked" / "a.tif")
    assert note is not None
    assert note.rescued == saved.rescued


def test_a_mask_that_is_no_picture_is_refused_before_the_first_photo(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--mask gone\.png: No such file"):
        check_mask(str(tmp_path / "gone.png"))
    (tmp_path / "m.txt").write_text("white")
    with pytest.raises(SettingsError, match=r"--mask m\.txt: .*expected a TIFF, PNG or JPEG"):
        check_mask(str(tmp_path / "m.txt"))


def test_a_choice_of_nothing_is_untouched_and_warned_of(
    raw: Photo, untouched: Picture, tmp_path: Path
) -> None:
    saved = run(with_focus(focus_range="50:40"), raw, tmp_path)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), untouched)
    (warning,) = saved.warnings
    assert re.fullmatch(
        r"nothing was restored: no part of the photo is chosen by range 50:40 "
        r"\(\+50\.0 to \+40\.0 px\); its depths are \+2\.\d to \+[12]\.\d px",
        warning,
    )
    assert not run(with_focus(strength=0.0), raw, tmp_path / "asked for").warnings


def test_another_choice_needs_no_network(
    raw: Photo, whole: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptRestorations(kept_folder(tmp_path), restoration_key(PLAIN, "hash", ""))
    run(with_focus(strength=0.5), raw, tmp_path / "first", kept)
    monkeypatch.setattr("dpbatch.photo.load", lambda *_: pytest.fail("developed again"))
    run(with_focus(strength=1.0), raw, tmp_path / "second", kept)
    assert whole.shape == (*SIZE, 3)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "second" / "a.tif"), whole)
    count, size_bytes = forget(tmp_path)
    assert (count, size_bytes > 12 * SIZE[0] * SIZE[1]) == (1, True)
    assert forget(tmp_path) == (0, 0)


def kept_bytes(out: Path) -> int:
    """Return the bytes of the restorations that are kept."""
    return sum(path.stat().st_size for path in kept_folder(out).iterdir())


@pytest.mark.parametrize(
    ("output", "bytes_a_pixel"),
    [
        (OutputSettings(format="dng"), 16),
        (OutputSettings(format="dng", dng="linear"), 24),
        (OutputSettings(color_space="rec2020"), 24),
        (OutputSettings(), 24),
        pytest.param(OutputSettings(look="neutral", layers_in="exr"), 24, marks=NEEDS_OPENEXR),
    ],
    ids=["mosaic", "linear DNG", "wide", "highlights rolled off", "EXR"],
)
def test_another_choice_keeps_all_that_an_editor_gets(
    output: OutputSettings, bytes_a_pixel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, *SIZE, disparity_px=2.0, highlight=True)
    raw = Photo("raw", (path,), "a")
    settings = Settings(restore=NETWORK, output=output)
    kept = KeptRestorations(kept_folder(tmp_path), restoration_key(settings, "hash", ""))
    half = replace(settings, focus=FocusSettings(strength=0.5))
    run(half, raw, tmp_path / "anew")
    run(replace(settings, focus=FocusSettings(strength=0.2)), raw, tmp_path / "first", kept)
    assert kept_bytes(tmp_path) > bytes_a_pixel * SIZE[0] * SIZE[1]
    monkeypatch.setattr("dpbatch.photo.load", lambda *_: pytest.fail("developed again"))
    run(half, raw, tmp_path / "second", kept)
    for path in (tmp_path / "anew").iterdir():
        anew = path.read_bytes()
        assert (tmp_path / "second" / path.name).read_bytes() == anew
        assert (tmp_path / "first" / path.name).read_bytes() != anew


def test_what_was_kept_for_other_colours_or_highlights_is_not_taken() -> None:
    def key(**values: object) -> str:
        output = replace(PLAIN.output, **values)  # type: ignore[arg-type]
        return restoration_key(replace(PLAIN, output=output), "hash", "")

    alike = {key(), key(format="jpg"), key(exposure=1.0), key(layers=("depth",))}
    assert len(alike) == 1
    wide = {key(color_space=space) for space in ("prophoto", "rec2020", "linear")}
    assert len(wide) == 1
    dngs = [key(format="dng"), key(format="dng", dng="linear")]
    others = [key(highlights="clip"), key(look="camera"), key(layers_in="exr")]
    assert len({*alike, *wide, *dngs, *others}) == 7


def test_a_restoration_for_which_there_is_no_room_costs_a_warning(
    raw: Photo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", no_room)
    kept = KeptRestorations(kept_folder(tmp_path), "key")
    saved = run(with_focus(strength=0.5), raw, tmp_path, kept)
    assert opens(tmp_path / "a.tif")
    assert [warning.split(": /")[0] for warning in saved.warnings] == [
        "the restoration is not kept"
    ]
    assert list(kept_folder(tmp_path).iterdir()) == []


def test_kept_restorations_are_bounded_and_belong_to_settings_and_inputs(
    raw: Photo, tmp_path: Path
) -> None:
    key = restoration_key(PLAIN, "hash", "")
    assert key == restoration_key(with_focus(strength=0.5), "hash", "")
    assert key != restoration_key(replace(PLAIN, restore=replace(NETWORK, scale="2")), "hash", "")
    kept = KeptRestorations(kept_folder(tmp_path), key, limit_bytes=1)
    saved = run(with_focus(strength=0.5), raw, tmp_path / "out", kept)
    assert kept.has("a.tif", saved.inputs)
    assert not kept.has("b.tif")
    assert not kept.has("a.tif", [replace(file, blake2b="0") for file in saved.inputs])
    assert not replace(kept, key="other").has("a.tif")
    (file,) = kept_folder(tmp_path).iterdir()
    (kept_folder(tmp_path) / "older.npz").write_bytes(b"0")
    file.write_bytes(file.read_bytes()[:-100])  # damaged: it is made again, and the older one goes
    run(with_focus(strength=0.5), raw, tmp_path / "out", kept)
    assert [path.name for path in kept_folder(tmp_path).iterdir()] == [file.name]


def test_a_dng_holds_the_depth_of_its_photo(raw: Photo, tmp_path: Path) -> None:
    settings = replace(PLAIN, output=replace(PLAIN.output, format="dng", layers_in="dng"))
    saved = run(settings, raw, tmp_path)
    assert [path.name for path in saved.outputs] == ["a.dng"]
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        pages = file.pages.first.pages
        assert pages is not None
        raw_page, depth_page = (page.aspage() for page in pages)
    assert depth_page.shape == tuple(side // 2 for side in SIZE)
    assert raw_page.photometric == 32803
    with pytest.raises(SettingsError, match="no layer but depth"):
        OutputSettings(format="dng", layers=("blur",), layers_in="dng")


@pytest.mark.parametrize("form", ["files", "alpha", "photoshop", "darktable", "exr"])
def test_every_form_of_layers_is_written_and_known(
    raw: Photo, whole: Picture, tmp_path: Path, form: str
) -> None:
    if form == "exr":
        pytest.importorskip("OpenEXR")
    output = replace(PLAIN.output, layers=("depth", "blur", "confidence"), layers_in=form)
    settings = replace(PLAIN, output=output)
    saved = run(settings, raw, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in saved.outputs}
    assert all(saved.checksums)
    stages = PhotoStages(settings, "hash")
    for path in saved.outputs:
        assert isinstance(path, Path)
        assert stages.made(path, saved.inputs)
        written = path.read_bytes()
        (path.parent / f"cut{path.suffix}").write_bytes(written[: len(written) // 2])
        assert opens(path)
        assert not opens(path.parent / f"cut{path.suffix}")
    picture = tifffile.imread(tmp_path / "a.tif")
    assert picture.shape == (*SIZE, 6 if form == "alpha" else 3)
    np.testing.assert_array_equal(picture[..., :3], whole)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages.first.tags
        assert (34377 in tags) == (form == "alpha")
        assert (37724 in tags) == (form == "photoshop")
    assert saved.rescued == ""


@pytest.mark.parametrize("color_space", ["srgb", "linear"])
def test_programs_without_layers_show_what_the_layers_give(
    raw: Photo, tmp_path: Path, color_space: str
) -> None:
    psdtags = pytest.importorskip("psdtags")
    output = OutputSettings(layers_in="photoshop", color_space=color_space, exposure=0.5)
    settings = Settings(restore=NETWORK, output=output, focus=FocusSettings(strength=0.5))
    run(settings, raw, tmp_path)
    lower, upper = psdtags.TiffImageSourceData.fromtiff(tmp_path / "a.tif").layers.layers
    channels = {int(channel.channelid): channel.data for channel in upper.channels}
    original = lower.asarray().astype(float)
    sharp = np.dstack([channels[i] for i in range(3)]).astype(float)
    together = original + channels[-2][..., None] / 65535 * (sharp - original)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "a.tif"), together, atol=0.51)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (with_focus(focus_range="5:-5"), True),
        (replace(PLAIN, output=replace(PLAIN.output, layers=("depth",))), True),
        (replace(PLAIN, output=replace(PLAIN.output, layers=("blur",))), True),
        (replace(PLAIN, output=replace(PLAIN.output, layers=("confidence",))), False),
        (with_focus(strength=0.5), False),
    ],
)
def test_depth_is_looked_at_again_only_where_it_is_asked_for(
    settings: Settings,
    expected: bool,
    raw: Photo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps: list[BlurMap] = []

    def looked_at(blur_map: BlurMap, *_: object) -> BlurMap:
        maps.append(blur_map)
        return blur_map

    monkeypatch.setattr("ldp.blur.depth.reconsidered", looked_at)
    run(settings, raw, tmp_path)
    assert bool(maps) == expected


def test_a_layer_is_the_same_whatever_other_layers_are_asked_for(
    raw: Photo, tmp_path: Path
) -> None:
    together = ("depth", "blur", "confidence", "disparity")
    for layers in (together, *((name,) for name in together)):
        output = replace(PLAIN.output, layers=layers)
        folder = tmp_path / "-".join(layers)
        folder.mkdir()
        run(replace(PLAIN, output=output), raw, folder)
        for name in layers:
            found, expected = (
                tifffile.imread(at / f"a.{name}.tif")
                for at in (folder, tmp_path / "-".join(together))
            )
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("settings", "expected"), [(with_focus(focus_range="5:-5"), True), (PLAIN, False)]
)
def test_damaged_weights_are_found_before_a_photo_is_restored(
    settings: Settings, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged() -> None:
        raise WeightsError("outlines.safetensors: damaged")

    monkeypatch.setattr("ldp.blur.outline_weights.shipped_placer", damaged)
    stages = PhotoStages(settings, "")
    if not expected:
        stages.restorer()
        return
    with pytest.raises(WeightsError, match=r"outlines\.safetensors"):
        stages.restorer()
