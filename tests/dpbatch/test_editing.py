"""One photo from raw file to what editors go on with, with a network whose change is known."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import rawpy
import tifffile
import torch

import ldp
from dpbatch import photo
from dpbatch.batch import run as batch
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.batch.progress import Reporter
from dpbatch.batch.verify import verify
from dpbatch.editing import depth_map, in_cells, preview_of
from dpbatch.errors import RestoreError
from dpbatch.output.color_spaces import icc_profile
from dpbatch.output.dng_tags import RawLevels
from dpbatch.output.images import encode_png
from dpbatch.output.metadata import ProcessingNote, read_note
from dpbatch.raw.collector import space_of
from dpbatch.raw.reader import read_dual
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings, Settings
from dpbatch.types import Job, Photo, RunOptions, Status
from ldp.blur.disparity import DisparityEstimator
from ldp.restore.photo_views import OpenPhoto
from ldp.restore.tiles import Receive
from ldp.srgb import decode_srgb, encode_srgb
from ldp.types import RoundedDeblurred, to_uint16
from tests.helpers.raw_frames import developed
from training.simulator.cr2.layout import CameraTags
from training.simulator.sensor import Sensor, write_dual_pixel_raw

HEIGHT, WIDTH = 192, 320
CHANGED = (slice(40, 120), slice(200, 300))
LIGHT_FACTOR = 0.75
"""Of the light in CHANGED that the network leaves."""
SIGN = (slice(20, 60), slice(20, 80))
LAMP = (110, 90, 24)
"""Row, column and radius of a lamp two stops over."""
NOTE = ProcessingNote("1.0", source="A.CR2", fingerprint="f" * 32)


class Darkens:
    """In the model's place: leaves the photo as it is but for CHANGED."""

    device = torch.device("cpu")
    estimator = DisparityEstimator()

    @classmethod
    def load(cls, model: str, **options: object) -> Darkens:
        return cls()

    def restore_photo(
        self, open_photo: OpenPhoto, *, also: Receive, **_: object
    ) -> RoundedDeblurred:
        views = open_photo(self.device)
        sharp = np.empty((*views.size, 3), np.uint16)
        for rows in (slice(0, 100), slice(100, HEIGHT)):
            for columns in (slice(0, 151), slice(151, WIDTH)):
                pixels = views.untouched(rows, columns).clone()
                area = _inside(CHANGED, rows, columns)
                light = decode_srgb(np.ascontiguousarray(pixels[:, *area].numpy()))
                pixels[:, *area] = torch.from_numpy(encode_srgb(light * np.float32(LIGHT_FACTOR)))
                also(rows, columns, pixels)
                sharp[rows, columns] = to_uint16(pixels.permute(1, 2, 0).numpy())
        return RoundedDeblurred(sharp, self.estimator.estimate(views))


def _inside(area: tuple[slice, slice], rows: slice, columns: slice) -> tuple[slice, slice]:
    return (
        slice(max(0, area[0].start - rows.start), max(0, area[0].stop - rows.start)),
        slice(max(0, area[1].start - columns.start), max(0, area[1].stop - columns.start)),
    )


@pytest.fixture(autouse=True)
def _known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldp, "load", Darkens.load)


def street(lamp: bool = True) -> np.ndarray:
    """A wall at dusk, a saturated green sign (outside sRGB), and a lamp two stops over."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH, 3)), (0, 0), 2)
    light = np.clip(0.2 + 0.25 * texture, 0.02, 0.6)
    light[SIGN] = (-0.04, 0.5, 0.02)
    if lamp:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        row, column, radius = LAMP
        near = np.clip((radius + 6 - np.hypot(y - row, x - column)) / 6, 0, 1)[..., None]
        light += near * (np.array([4.0, 3.6, 3.0]) - light)
    return light.astype(np.float32)


def write(path: Path, light: np.ndarray, orientation: int = 1) -> Path:
    sensor = Sensor(shading=0.1, tags=CameraTags(orientation=orientation))
    write_dual_pixel_raw(path, light, light, sensor, seed=0, noise=False)
    return path


def restored(source: Path, target: Path, output: OutputSettings) -> photo.RestoredPhoto:
    """Do all three steps."""
    raw = RawSettings()
    loaded = photo.load(Photo("raw", (source,), source.stem), raw, output.look)
    restorer = photo.Restorer(RestoreSettings(model="tiny"), raw, False, output)
    result = restorer(loaded, lambda done, total: None)
    photo.save(result, target, output, NOTE)
    return result


def mosaics(source: Path, target: Path) -> tuple[np.ndarray, np.ndarray]:
    """The whole frames of the camera's file and of the result, signed."""
    with rawpy.imread(str(source)) as camera, rawpy.imread(str(target)) as result:
        return camera.raw_image.astype(np.int64), result.raw_image.astype(np.int64)


def test_untouched_photosites_are_the_composites_and_restored_ones_what_was_meant(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "A.CR2", street(lamp=False))
    target = tmp_path / "A.dng"
    restored(source, target, OutputSettings(format="dng"))
    camera, result = mosaics(source, target)
    pair = read_dual(source)
    top, left, height, width = pair.active
    changed = np.zeros(camera.shape, bool)
    changed[top : top + height, left : left + width][CHANGED] = True
    np.testing.assert_array_equal(result[~changed], camera[~changed])

    space = space_of(pair)
    picture = result[top : top + height, left : left + width][CHANGED]
    light = street(lamp=False)[CHANGED] @ space.balanced_from_srgb.T * LIGHT_FACTOR
    for row, column in np.ndindex(2, 2):
        color = int(space.cfa[row, column])
        channel = 1 if color == 3 else color
        meant = light[row::2, column::2, channel] * space.full_dn[color] + space.black[color]
        # The rest is the development's: it knows the light from the mosaic only.
        assert np.median(np.abs(picture[row::2, column::2] - meant)) < 2


def test_highlights_are_kept_above_the_cameras_white(tmp_path: Path) -> None:
    source = write(tmp_path / "A.CR2", street())
    with_headroom, without = tmp_path / "A.dng", tmp_path / "B.dng"
    restored(source, with_headroom, OutputSettings(format="dng"))
    restored(source, without, OutputSettings(format="dng", highlights="clip"))
    camera, result = mosaics(source, with_headroom)
    clipped = camera == 16383
    assert clipped.sum() > 1000
    assert (result[clipped] > 16383).mean() > 0.95
    with rawpy.imread(str(with_headroom)) as raw:
        assert abs(raw.white_level - (512 + 2 * (16383 - 512))) < 10
    _, result = mosaics(source, without)
    np.testing.assert_array_equal(result[clipped], 16383)
    with tifffile.TiffFile(with_headroom) as tiff:
        assert tiff.pages.first.aspage().tags[50730].value == (1, 1)  # BaselineExposure
    with tifffile.TiffFile(without) as tiff:
        assert tiff.pages.first.aspage().tags[50730].value == (0, 1)


@pytest.mark.parametrize("kind", ["mosaic", "linear"])
def test_both_kinds_develop_to_the_same_light(tmp_path: Path, kind: str) -> None:
    light = street(lamp=False)
    source = write(tmp_path / "A.CR2", light)
    target = tmp_path / "A.dng"
    restored(source, target, OutputSettings(format="dng", dng=kind))
    light[CHANGED] *= LIGHT_FACTOR
    found = developed(target)[:HEIGHT, :WIDTH]
    assert found.shape == light.shape
    inside = (slice(4, -4), slice(4, -4))
    error = np.abs(found - np.clip(light, 0, 1))[inside]
    assert np.median(error) < 0.008
    assert error.mean() < 0.01


def test_the_file_tells_orientation_source_and_preview(tmp_path: Path) -> None:
    source = write(tmp_path / "A.CR2", street(), orientation=6)
    target = tmp_path / "A.dng"
    result = restored(source, target, OutputSettings(format="dng", look="neutral"))
    with rawpy.imread(str(target)) as raw:
        assert raw.sizes.flip == 6
    note = read_note(target)
    assert note is not None
    assert note.fingerprint == NOTE.fingerprint
    shown = tifffile.imread(target).astype(float)
    assert shown.shape == (HEIGHT, WIDTH, 3)  # not turned: the tag holds for it too
    assert np.abs(shown - result.sharp / 257).mean() < 3


def test_a_preview_of_a_large_photo_is_smaller() -> None:
    assert preview_of(np.zeros((1200, 3000, 3), np.uint16), None, 0.0).shape == (819, 2048, 3)


def test_a_depth_map_has_half_the_size_of_the_active_area_and_the_nearest_at_0() -> None:
    near = np.full((100, 200), 30000, np.uint16)
    near[:, 100:] = 65535
    levels = RawLevels((20, 30, 108, 212), (512.0,) * 4, 16383, (4, 6, 100, 200))
    found = depth_map(near, levels)
    assert found.shape == (54, 106)
    expected = np.where(np.arange(106) < 53, 35535, 0)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (54, 106)))


@pytest.mark.parametrize(
    ("visible", "area"),
    [
        ((54, 148, 480, 640), (54, 148, 480, 640)),
        ((84, 156, 467, 627), (84, 156, 466, 626)),
        ((41, 153, 471, 630), (42, 154, 470, 628)),
        ((83, 155, 468, 629), (84, 156, 466, 628)),
        ((0, 0, 0, 0), (84, 156, 466, 626)),
    ],
)
def test_the_active_area_has_whole_cells_for_rawtherapee(
    visible: tuple[int, int, int, int], area: tuple[int, int, int, int]
) -> None:
    picture = (84, 156, 466, 626) if visible[0] != 54 else (58, 150, 470, 630)
    assert in_cells(visible, picture) == area


def test_a_sign_outside_srgb_keeps_its_colour_in_a_wide_space(tmp_path: Path) -> None:
    source = write(tmp_path / "A.CR2", street(lamp=False))
    shades = {}
    for space in ("srgb", "rec2020", "linear"):
        output = OutputSettings(color_space=space, look="neutral")
        restored(source, tmp_path / f"{space}.tif", output)
        with tifffile.TiffFile(tmp_path / f"{space}.tif") as tiff:
            page = tiff.pages.first.aspage()
            assert page.tags["InterColorProfile"].value == icc_profile(space)
            stored = page.asarray()[SIGN][8:-8, 8:-8].astype(np.float32) / 65535
        shades[space] = imagecodecs.cms_transform(
            stored,
            icc_profile(space),
            icc_profile("linear"),
            colorspace="RGB",
            outcolorspace="RGB",
            outdtype="float32",
        ).mean((0, 1))
    np.testing.assert_allclose(shades["rec2020"], shades["linear"], atol=0.003)
    # Red and blue of the sign are lower there than sRGB can tell.
    assert shades["linear"][0] < shades["srgb"][0] - 0.01


@pytest.fixture
def window(tmp_path: Path) -> Path:
    """A photo whose light falls off from a window on the right that is partly above white."""
    light = np.repeat(np.linspace(0.2, 1.7, WIDTH, dtype=np.float32)[None], HEIGHT, axis=0)
    return write(tmp_path / "A.CR2", np.repeat(light[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "output",
    [
        OutputSettings(layers_in="exr"),
        OutputSettings(layers_in="exr", look="neutral", exposure=1.0),
        OutputSettings(layers_in="exr", color_space="rec2020"),
        OutputSettings(layers_in="exr", format="dng"),
    ],
    ids=["camera", "neutral", "wide", "DNG"],
)
def test_openexr_holds_the_light_above_white(
    output: OutputSettings, window: Path, tmp_path: Path
) -> None:
    openexr = pytest.importorskip("OpenEXR")
    light = {}
    for highlights in ("recover", "clip"):
        target = tmp_path / highlights / f"A.{output.format}"
        target.parent.mkdir()
        restored(window, target, replace(output, highlights=highlights))
        with openexr.File(str(target.with_suffix(".exr"))) as file:
            light[highlights] = file.channels()["RGB"].pixels.astype(np.float64)
    recovered, clipped = (light[highlights][:30] for highlights in ("recover", "clip"))
    assert clipped.max() <= 1
    # On the unclipped part both are the photo, on the rest recovered light goes on as it was made.
    dark = slice(0, WIDTH // 3)
    np.testing.assert_allclose(recovered[:, dark], clipped[:, dark], atol=2e-3)
    columns = np.arange(4, WIDTH - 4)
    made = 0.2 + 1.5 * columns / (WIDTH - 1)
    found = np.median(recovered[..., 1], 0)[columns]
    np.testing.assert_allclose(found / found[50], made / made[50], rtol=0.04)
    assert found[-1] > 1.5


def test_openexr_of_a_neutral_picture_leaves_the_picture_as_it_is(
    window: Path, tmp_path: Path
) -> None:
    pytest.importorskip("OpenEXR")
    pictures = {}
    for form in ("files", "exr"):
        output = OutputSettings(look="neutral", exposure=-1.0, layers_in=form)
        restored(window, tmp_path / f"{form}.tif", output)
        pictures[form] = tifffile.imread(tmp_path / f"{form}.tif")
    np.testing.assert_array_equal(pictures["exr"], pictures["files"])


def test_the_cameras_look_rolls_highlights_off(window: Path, tmp_path: Path) -> None:
    pictures = {}
    for name, highlights in (("rolled", "recover"), ("clipped", "clip")):
        output = OutputSettings(highlights=highlights)
        restored(window, tmp_path / f"{name}.tif", output)
        pictures[name] = tifffile.imread(tmp_path / f"{name}.tif")[:30, :, 1].mean(0)
    start = int(WIDTH * (1.1 - 0.2) / 1.5)
    assert np.ptp(pictures["clipped"][start:]) < 300
    assert np.ptp(pictures["rolled"][start:-4]) > 1500
    assert (np.diff(pictures["rolled"][4:-4]) > -60).all()


def test_a_pair_has_no_raw_colours_but_may_be_written_in_another_space(tmp_path: Path) -> None:
    view = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    paths = (tmp_path / "A_L.png", tmp_path / "A_R.png")
    for path in paths:
        path.write_bytes(encode_png(view, icc_profile("srgb")))
    pair = Photo("pair", paths, "A")
    raw, restore = RawSettings(), RestoreSettings(model="tiny")
    loaded = photo.load(pair, raw)
    refused = r"A_L\.png: a pair of pictures has no raw colours"
    in_dng = Settings(restore=restore, output=OutputSettings(format="dng"))
    with pytest.raises(RestoreError, match=refused):
        PhotoStages(in_dng, "0" * 64).load(Job("A", "A_L.png", pair, (tmp_path / "A.dng",)))
    with pytest.raises(RestoreError, match=refused):
        photo.Restorer(restore, raw, False, OutputSettings(format="dng"))(loaded, print)
    output = OutputSettings(color_space="prophoto", look="neutral")
    result = photo.Restorer(restore, raw, False, output)(loaded, print)
    photo.save(result, tmp_path / "A.tif", output, NOTE)
    plain = replace(output, color_space="srgb")
    photo.save(result, tmp_path / "B.tif", plain, NOTE)
    light = [
        imagecodecs.cms_transform(
            tifffile.imread(tmp_path / name).astype(np.float32) / 65535,
            icc_profile(space),
            icc_profile("linear"),
            colorspace="RGB",
            outcolorspace="RGB",
            outdtype="float32",
        )
        for name, space in (("A.tif", "prophoto"), ("B.tif", "srgb"))
    ]
    np.testing.assert_allclose(light[0], light[1], atol=2e-4)


@pytest.mark.usefixtures("inline")
def test_a_run_writes_skips_checks_and_mends_dngs(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "sharp"
    shoot.mkdir()
    write(shoot / "A.CR2", street())
    settings = Settings(
        restore=RestoreSettings(model="tiny", blur="disparity"), output=OutputSettings(format="dng")
    )
    stages = PhotoStages(settings, "0" * 64)

    def run() -> Reporter:
        reporter = Reporter(io.StringIO())
        assert batch.run(RunOptions((shoot,), out), settings, stages, reporter) == 0
        return reporter

    assert run().count(Status.DONE) == 1
    assert [path.name for path in out.glob("A*")] == ["A.dng"]
    assert run().count(Status.SKIPPED) == 1
    assert verify(out).is_good
    content = (out / "A.dng").read_bytes()
    (out / "A.dng").write_bytes(content[:-5000])
    assert not verify(out).is_good
    assert run().count(Status.DONE) == 1
    assert verify(out).is_good
    assert (out / "A.dng").read_bytes() == content  # and so are its bytes, another time
