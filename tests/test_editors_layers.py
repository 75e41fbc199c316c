"""Picture editors open layers and masks as they were written.

GIMP, Krita, exiftool and OpenEXR are run where they are installed; raw editors are in test_editors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from dpbatch import photo, rescue
from dpbatch.focus_settings import FocusSettings
from dpbatch.output.layers import layer_values
from dpbatch.output.metadata import ProcessingNote
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings
from dpbatch.types import Photo
from ldp.srgb import decode_srgb
from ldp.types import Picture16
from tests.helpers.scenes import write_test_dpraw

pytestmark = pytest.mark.slow

SIZE = (128, 192)
NOTE = ProcessingNote("1.0", source="A.CR2")
PLAIN = OutputSettings(look="neutral")
STEP = 65535 / 255


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> photo.RestoredPhoto:
    """A restored photo with its map and the photo before."""
    path = tmp_path_factory.mktemp("raw") / "A.CR2"
    write_test_dpraw(path, *SIZE, disparity_px=2.0)
    raw, network = RawSettings(), RestoreSettings(model="tiny", device="cpu", blur="disparity")
    restorer = photo.Restorer(network, raw, True, PLAIN, keep_original=True)
    loaded = photo.load(Photo("raw", (path,), "A"), raw, PLAIN.look)
    return restorer(loaded, lambda done, total: None)


def save(
    restored: photo.RestoredPhoto, target: Path, output: OutputSettings, focus: FocusSettings
) -> None:
    photo.save(restored, target, output, NOTE, focus)


def half_mask(folder: Path) -> FocusSettings:
    """Choose the right half of the photo."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, SIZE[1] // 2 :] = 255
    assert cv2.imwrite(str(folder / "m.png"), mask)
    return FocusSettings(mask=str(folder / "m.png"))


def needed(program: str) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return program


def run(*command: str, folder: Path) -> str:
    # OpenCV sets the folder of its own Qt for all programs that are started.
    environment = {key: text for key, text in os.environ.items() if not key.startswith("QT_")}
    environment |= {"HOME": str(folder)}
    environment |= {"XDG_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    return done.stdout + done.stderr


def read_png(path: Path, said: str) -> Picture16:
    assert path.exists(), said
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert found.dtype == np.uint16
    return np.asarray(found if found.ndim == 2 else found[..., 2::-1], np.uint16)


def gimp(script: str, folder: Path) -> str:
    """Run a script of GIMP's Scheme, which quits it."""
    program = needed("gimp")
    batch = ("-b", script, "-b", "(gimp-quit 0)")
    return run(program, "-i", "-d", "-f", *batch, folder=folder)


def test_gimp_shows_the_picture_and_a_channel(
    restored: photo.RestoredPhoto, tmp_path: Path
) -> None:
    source, shown, channel = (tmp_path / name for name in ("a.tif", "shown.png", "channel.png"))
    save(restored, source, replace(PLAIN, layers_in="alpha"), FocusSettings())
    written = tifffile.imread(source)
    said = gimp(
        f"""
        (let* ((image (car (gimp-file-load RUN-NONINTERACTIVE "{source}" "a")))
               (layer (car (gimp-image-get-active-layer image)))
               (channels (cadr (gimp-image-get-channels image))))
          (file-png-save RUN-NONINTERACTIVE image layer "{shown}" "s" 0 1 0 0 0 0 0)
          (gimp-edit-copy (aref channels (- (vector-length channels) 1)))
          (let* ((mask (car (gimp-edit-paste-as-new-image)))
                 (only (car (gimp-image-get-active-layer mask))))
            (file-png-save RUN-NONINTERACTIVE mask only "{channel}" "c" 0 1 0 0 0 0 0)))
        """,
        tmp_path,
    )
    np.testing.assert_array_equal(read_png(shown, said), written[..., :3])
    found = read_png(channel, said)
    grey = found if found.ndim == 2 else found[..., 0]
    # GIMP saves the copy of a channel as linear light.
    channels = decode_srgb(np.asarray(written[..., 3:] / 65535, np.float32))
    errors = np.abs(channels - grey[..., None] / np.float32(65535)).max((0, 1))
    assert errors.min() < 1 / 255


def test_krita_puts_the_layers_together_as_programs_without_layers_show_them(
    restored: photo.RestoredPhoto, tmp_path: Path
) -> None:
    program = needed("krita")
    source, target = tmp_path / "a.tif", tmp_path / "a.png"
    save(restored, source, replace(PLAIN, layers_in="photoshop"), half_mask(tmp_path))
    # Krita wants a display, also to convert a file.
    command = (needed("xvfb-run"), "-a", program, "--export", "--export-filename", str(target))
    said = run(*command, str(source), folder=tmp_path)
    shown = tifffile.imread(source).astype(float)
    original, sharp = (
        rescue.choose(restored, FocusSettings(strength=strength), PLAIN).picture.astype(float)
        for strength in (0.0, 1.0)
    )
    assert np.abs(original - sharp).mean() > 2 * STEP  # the layers differ
    found = read_png(target, said).astype(float)
    assert np.abs(found - shown).max() < STEP
    assert np.abs(found - original)[:, : SIZE[1] // 2 - 2].max() < STEP
    assert np.abs(found - sharp)[:, SIZE[1] // 2 + 2 :].max() < STEP


@pytest.mark.parametrize(
    ("form", "names"), [("alpha", ("depth", "blur")), ("photoshop", ("Sharp",))]
)
def test_exiftool_names_channels_and_layers(
    restored: photo.RestoredPhoto, tmp_path: Path, form: str, names: tuple[str, ...]
) -> None:
    program = needed("exiftool")
    save(restored, tmp_path / "a.tif", replace(PLAIN, layers_in=form), FocusSettings())
    said = run(program, "-a", "-u", str(tmp_path / "a.tif"), folder=tmp_path)
    assert all(name in said for name in names), said


def test_openexr_reads_light_and_layers(restored: photo.RestoredPhoto, tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    save(restored, tmp_path / "a.tif", replace(PLAIN, layers_in="exr"), FocusSettings())
    chosen = rescue.choose(restored, FocusSettings(), replace(PLAIN, layers=("depth",)))
    with openexr.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
        found = {name: channel.pixels for name, channel in file.channels().items()}
    depth = layer_values(chosen.planes["depth"])
    np.testing.assert_allclose(found["depth"], depth, rtol=1e-3, atol=1e-3)
    light = np.dstack([found[name] for name in "RGB"]).astype(float)
    assert light.shape == (*SIZE, 3)
    assert 0 < light.min() < light.max() <= 1
