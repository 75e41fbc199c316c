"""Raw editors show a DNG as they show the camera's own file, but sharper where it was restored.

darktable, RawTherapee and exiftool are run where they are installed. Each editor has a table of its
own with the levels at which cameras clip, and takes the one of a DNG from the file. So the files
here are told the level that the editor takes for this camera and sensitivity.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from skimage import data

from dpbatch import photo
from dpbatch.output.metadata import ProcessingNote
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings
from dpbatch.types import Photo
from ldp.srgb import decode_srgb
from tests.helpers.cr3_writer import Cr3Camera, write_cr3
from training.simulator.cr2.layout import CameraTags
from training.simulator.optics import EOS_5D_MARK_IV_KERNEL
from training.simulator.render import Surface, render
from training.simulator.sensor import Sensor, write_dual_pixel_raw

pytestmark = pytest.mark.slow

Picture = npt.NDArray[np.float64]
"""(H, W, 3), in steps of 8 bits."""

FULL_SIZE = (4480, 6720)
"""The EOS 5D Mark IV's: editors know its borders, and those of no other size."""
NOTE = ProcessingNote("1.0", source="A.CR2")
SIGN = (-0.04, 0.42, 0.02)
"""Linear sRGB; a green that sRGB cannot show."""
_WHITE_LEVEL = 50717


@dataclass(frozen=True)
class Editor:
    """An editor on the command line. white_level: for the EOS 5D Mark IV at ISO 100, f/1.8."""

    name: str
    program: str
    white_level: int

    def render(self, source: Path, folder: Path) -> Picture:
        """Return what the editor makes of a raw file, without a look of its own."""
        target = folder / f"{source.stem}-{source.suffix[1:]}-{self.name}.tif"
        environment = dict(os.environ, RT_SETTINGS=str(folder / "rt"), HOME=str(folder))
        command = [str(source), str(target), "--core", "--configdir", str(folder / "dt")]
        command += ["--conf", "plugins/imageio/format/tiff/bpp=16"]
        if self.name == "rawtherapee":  # -c must come last
            command = ["-o", str(target), "-b16", "-t", "-Y", "-c", str(source)]
        done = subprocess.run(
            [self.program, *command], capture_output=True, text=True, env=environment, timeout=900
        )
        assert target.exists(), done.stdout + done.stderr
        return tifffile.imread(target).astype(np.float64) / 257


EDITORS = (
    Editor("darktable", "darktable-cli", 14008),
    Editor("rawtherapee", "rawtherapee-cli", 16341),
)


@pytest.fixture(params=EDITORS, ids=lambda editor: editor.name)
def editor(request: pytest.FixtureRequest) -> Editor:
    """Each editor that is installed."""
    chosen: Editor = request.param
    if shutil.which(chosen.program) is None:
        pytest.skip(f"{chosen.program} is not installed")
    return chosen


def linear(name: str) -> npt.NDArray[np.float32]:
    """A photograph of scikit-image in linear light, of a size that a raw can have."""
    rgb = getattr(data, name)()[:400, :600]
    return decode_srgb(np.ascontiguousarray(rgb, np.float32) / np.float32(255))


def write_full_size(path: Path) -> None:
    """Write a table, many times; the left half in focus, the right half out of focus."""
    scene = linear("coffee") * np.float32(0.8)
    scene[150:250, 40:110] = SIGN
    ones = np.ones(scene.shape[:2], np.float32)
    pair = render([Surface(scene, ones, -4.5 * ones)], EOS_5D_MARK_IV_KERNEL)
    height, width = FULL_SIZE
    tiles = (-(-height // scene.shape[0]), -(-width // scene.shape[1]), 1)
    views = []
    for view in (pair.left, pair.right):
        frame = np.tile(view, tiles)[:height, :width]
        frame[:, : width // 2] = np.tile(pair.sharp, tiles)[:height, : width // 2]
        views.append(frame)
    write_dual_pixel_raw(path, views[0], views[1], Sensor(tags=CameraTags(iso=100)), seed=0)


def restore(source: Path, target: Path, output: OutputSettings) -> None:
    """Do all three steps with the small network."""
    raw = RawSettings()
    loaded = photo.load(Photo("raw", (source,), source.stem), raw, output.look)
    needs_map = bool(output.chosen_layers)
    restorer = photo.Restorer(RestoreSettings(model="tiny", device="cpu"), raw, needs_map, output)
    photo.save(restorer(loaded, lambda done, total: None), target, output, NOTE)


def told_white_level(source: Path, level: int, target: Path) -> Path:
    """A copy of a DNG with another white level."""
    shutil.copy(source, target)
    with tifffile.TiffFile(target, mode="r+") as tiff:
        pages = tiff.pages.first.pages
        assert pages is not None
        pages[0].aspage().tags[_WHITE_LEVEL].overwrite(level)
    return target


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A raw file and the DNG of it."""
    folder = tmp_path_factory.mktemp("full")
    source, target = folder / "A.CR2", folder / "A.dng"
    write_full_size(source)
    restore(source, target, OutputSettings(format="dng", highlights="clip"))
    yield source, target
    shutil.rmtree(folder)


def place_of(part: Picture, whole: Picture, near: tuple[int, int]) -> tuple[int, int]:
    """Where a part lies in a picture that another program has cropped otherwise."""
    reach = 30
    top, left = near[0] - reach, near[1] - reach
    searched = whole[top : near[0] + part.shape[0] + reach, left : near[1] + part.shape[1] + reach]
    found = cv2.matchTemplate(searched.astype(np.float32), part.astype(np.float32), cv2.TM_SQDIFF)
    _, _, (column, row), _ = cv2.minMaxLoc(found)
    return top + row, left + column


def sharpness(picture: Picture) -> float:
    """Mean gradient of green."""
    return float(np.abs(np.diff(picture[..., 1], axis=1)).mean())


def test_an_editor_shows_the_cameras_file_but_sharper_where_it_was_restored(
    full_size: tuple[Path, Path], editor: Editor, tmp_path: Path
) -> None:
    source, target = full_size
    told = told_white_level(target, editor.white_level, tmp_path / "A.dng")
    camera, result = editor.render(source, tmp_path), editor.render(told, tmp_path)
    rows, untouched, restored = slice(1000, 2200), slice(600, 2800), slice(3900, 6000)
    shown = result[rows, untouched]
    top, left = place_of(shown[:300, :300], camera, (rows.start, untouched.start))
    shift = top - rows.start, left - untouched.start

    def of_camera(columns: slice) -> Picture:
        return camera[
            rows.start + shift[0] : rows.stop + shift[0],
            columns.start + shift[1] : columns.stop + shift[1],
        ]

    difference = np.abs(shown - of_camera(untouched))
    assert difference.mean() < 1
    assert sharpness(result[rows, restored]) > 1.3 * sharpness(of_camera(restored))
    # Colours stay where the network sharpens.
    means = [picture.mean((0, 1)) for picture in (result[rows, restored], of_camera(restored))]
    assert np.abs(means[0] - means[1]).max() < 4


def write_street(path: Path) -> None:
    """Write a sign outside sRGB and a lamp two stops over, in focus, before a blurred wall."""
    scene = linear("coffee") * np.float32(0.5)
    ones = np.ones(scene.shape[:2], np.float32)
    y, x = np.mgrid[: scene.shape[0], : scene.shape[1]]
    pair = render([Surface(scene, ones, -4.5 * ones)], EOS_5D_MARK_IV_KERNEL)
    lamp = np.clip((36 - np.hypot(y - 120, x - 420)) / 6, 0, 1)[..., None]
    views = []
    for view in (pair.left, pair.right):
        lit = view + lamp * (np.array([4.0, 3.6, 3.0]) - view)
        lit[220:320, 60:200] = SIGN
        views.append(lit.astype(np.float32))
    write_dual_pixel_raw(path, views[0], views[1], Sensor(tags=CameraTags(iso=100)), seed=0)


@pytest.mark.parametrize("layers_in", ["files", "dng"])
def test_a_saturated_sign_and_a_lamp_two_stops_over_look_right(
    editor: Editor, tmp_path: Path, layers_in: str
) -> None:
    source, target = tmp_path / "B.CR2", tmp_path / "B.dng"
    write_street(source)
    restore(source, target, OutputSettings(format="dng", layers_in=layers_in))
    shown = editor.render(target, tmp_path)
    # RawTherapee takes the borders of the full-size frame: the picture begins 12 pixels later.
    shift = 12 if editor.name == "rawtherapee" else 0
    sign = shown[240 + shift : 300 + shift, 90 + shift : 170 + shift].mean((0, 1))
    lamp = shown[105 + shift : 135 + shift, 405 + shift : 435 + shift].mean((0, 1))
    assert sign[1] > 2.5 * max(sign[0], sign[2])
    assert lamp.min() > 215
    assert np.ptp(lamp) < 25  # white, not magenta


def write_odd_frame(path: Path) -> None:
    """Write a camera's file that is held upright and has an odd visible area: a grey wall that is
    dark at the sensor's top left."""
    black, height, width, top, left = 2048, 552, 784, 72, 144
    light = np.full((height - top, width - left), 4000.0)
    light[:120, :160] = 200
    gains = np.array([[2.0, 1.0], [1.0, 1.5]])  # the sensor sees less red and blue of grey
    rng = np.random.default_rng(0)
    frames = []
    for share in (1.0, 0.5):
        frame = rng.normal(black, 3, (height, width))
        cells = np.tile(gains, (height // 2 + 1, width // 2 + 1))[:height, :width]
        frame[top:, left:] += share * light / cells[top:, left:]
        frames.append(np.rint(frame).astype(np.uint16))
    camera = Cr3Camera(
        "Canon EOS R7", crop=(156, 84), active_origin=(left, top), black=black, orientation=6
    )
    write_cr3(path, frames[0], frames[1], camera=camera)


@pytest.mark.parametrize("kind", ["mosaic", "linear"])
def test_a_frame_of_odd_size_is_shown_upright_and_grey(
    editor: Editor, kind: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "C.CR3", tmp_path / "C.dng"
    write_odd_frame(source)
    restore(source, target, OutputSettings(format="dng", dng=kind))
    shown = editor.render(target, tmp_path)
    assert np.abs(np.array(shown.shape[:2]) - (626, 466)).max() <= 8  # RawTherapee cuts 4 off
    dark, wall = shown[20:120, -90:-20], shown[250:500, 40:400]
    assert dark.mean() < 0.5 * wall.mean()
    assert np.ptp(wall.mean((0, 1))) < 3
    assert wall.mean((0, 2)).std() < 3  # without a pattern
    assert wall.mean((1, 2)).std() < 3


@pytest.mark.parametrize("kind", ["mosaic", "linear"])
@pytest.mark.parametrize("layers_in", ["files", "dng"])
def test_exiftool_finds_nothing_wrong(kind: str, layers_in: str, tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    source, target = tmp_path / "B.CR2", tmp_path / "B.dng"
    write_street(source)
    restore(source, target, OutputSettings(format="dng", dng=kind, layers_in=layers_in))
    command = ["exiftool", "-validate", "-warning", "-error", "-a", str(target)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line for line in found.splitlines() if line.startswith(("Warning", "Error"))]
    assert [line for line in lines if "[minor]" not in line] == []
