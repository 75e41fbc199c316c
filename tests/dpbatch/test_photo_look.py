"""The camera's look in a photo's three steps: which results have it, and which stay neutral."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch

from dpbatch import photo
from dpbatch.ahead import UnfittedLook
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.output.metadata import ProcessingNote
from dpbatch.output.tone import ToneCurve, apply_look
from dpbatch.photo import LoadedPhoto, RestoredPhoto, Restorer
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings, Settings
from dpbatch.tools.split import SplitStages, to_16_bit
from dpbatch.types import Job, Photo
from ldp.srgb import decode_srgb
from ldp.types import BlurMap, RoundedDeblurred, as_float
from tests.helpers.scenes import write_test_dpraw

CAMERA, NEUTRAL = OutputSettings(), OutputSettings(look="neutral")


@pytest.fixture
def raw(tmp_path: Path) -> Photo:
    """A raw file with the picture of a camera that brightens and adds contrast."""
    path = tmp_path / "a.CR2"
    write_test_dpraw(path)
    loaded = photo.load(Photo("raw", (path,), "a"), RawSettings())
    neutral = np.clip(mean_of(loaded), 0, 1)
    camera = np.clip(1.25 * neutral + 0.1 * np.sin(2 * np.pi * (neutral - 0.5)), 0, 1)
    write_test_dpraw(path, preview_rgb=np.rint(camera * 255).astype(np.uint8))
    return Photo("raw", (path,), "a")


def mean_of(loaded: LoadedPhoto) -> npt.NDArray[np.float32]:
    views = photo.developed(loaded, RawSettings())
    return (as_float(views.left) + as_float(views.right)) / np.float32(2)


def curve_of(loaded: LoadedPhoto) -> tuple[ToneCurve | None, tuple[str, ...]]:
    views = photo.views_of(loaded, RawSettings(), torch.device("cpu"))
    unfitted = UnfittedLook.of(loaded.preview, views)
    return unfitted.fit() if unfitted else (None, ())


def result_of(source: Photo, output: OutputSettings, target: Path) -> npt.NDArray[np.uint16]:
    """The picture that is written, with the mean of the views in the network's place."""
    loaded = photo.load(source, RawSettings(), output.look)
    curve, _ = curve_of(loaded)
    restored = RestoredPhoto(to_16_bit(mean_of(loaded)), None, 1, loaded.metadata, curve)
    written = photo.save(restored, target, output, ProcessingNote("0.1.0"))
    assert written[target].warnings == ()
    return np.asarray(tifffile.imread(target))


def quartiles_ev(
    picture: npt.NDArray[np.uint16] | npt.NDArray[np.uint8],
) -> npt.NDArray[np.float64]:
    light = decode_srgb(as_float(picture).copy()) @ np.array([0.2126, 0.7152, 0.0722])
    return np.log2(np.quantile(light, [0.25, 0.5, 0.75]))


def test_a_result_is_as_bright_and_contrasty_as_the_cameras_picture(
    raw: Photo, tmp_path: Path
) -> None:
    with tifffile.TiffFile(raw.paths[0]) as tiff:
        preview = np.asarray(tiff.pages[0].asarray(), np.uint8)
    wanted = quartiles_ev(preview)
    neutral = result_of(raw, NEUTRAL, tmp_path / "neutral.tif")
    assert np.abs(quartiles_ev(neutral) - wanted).max() > 0.3
    assert np.abs(quartiles_ev(result_of(raw, CAMERA, tmp_path / "a.tif")) - wanted).max() < 0.1


def test_the_neutral_look_is_the_restored_picture_itself(raw: Photo, tmp_path: Path) -> None:
    mean = to_16_bit(mean_of(photo.load(raw, RawSettings())))
    np.testing.assert_array_equal(result_of(raw, NEUTRAL, tmp_path / "a.tif"), mean)


def test_exposure_comes_on_top_of_either_look(raw: Photo, tmp_path: Path) -> None:
    for output in (CAMERA, NEUTRAL):
        plain = quartiles_ev(result_of(raw, output, tmp_path / "a.tif"))
        darker = replace(output, exposure=-1.0)
        assert (quartiles_ev(result_of(raw, darker, tmp_path / "b.tif")) < plain - 0.8).all()


def test_split_and_pairs_stay_neutral(raw: Photo, tmp_path: Path) -> None:
    views = photo.developed(photo.load(raw, RawSettings()), RawSettings())
    stages = SplitStages(Settings())
    outputs = tuple(tmp_path / f"a{suffix}" for suffix in stages.suffixes)
    job = Job("a_R.tif", "a.CR2", raw, outputs)
    stages.save(job, stages.restorer()(stages.load(job), lambda done, of: None))
    right, left = outputs
    np.testing.assert_array_equal(tifffile.imread(left), to_16_bit(views.left))
    np.testing.assert_array_equal(tifffile.imread(right), to_16_bit(views.right))
    pair = Photo("pair", (left, right), "a")
    assert curve_of(photo.load(pair, RawSettings(), "camera")) == (None, ())


def test_a_run_hands_the_look_down(raw: Photo, tmp_path: Path) -> None:
    job = Job("a.tif", "a.CR2", raw, (tmp_path / "a.tif",))
    camera, neutral = (
        PhotoStages(Settings(output=output), "hash").load(job).value for output in (CAMERA, NEUTRAL)
    )
    assert isinstance(camera, LoadedPhoto)
    assert isinstance(neutral, LoadedPhoto)
    assert curve_of(camera)[0] is not None
    assert curve_of(neutral)[0] is None


def test_a_preview_of_another_scene_gives_a_warning_and_a_neutral_look(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    white = np.full((170, 256, 3), 255, np.uint8)
    write_test_dpraw(path, level_dn=20, preview_rgb=white)
    loaded = photo.load(Photo("raw", (path,), "a"), RawSettings(), "camera")
    curve, warnings = curve_of(loaded)
    assert curve is None
    assert warnings == ("the preview does not fit the photo; the look is neutral",)


def test_a_look_applied_on_the_device_is_not_applied_again(raw: Photo, tmp_path: Path) -> None:
    loaded = photo.load(raw, RawSettings(), "camera")
    curve, _ = curve_of(loaded)
    plain = to_16_bit(mean_of(loaded))
    done = RestoredPhoto(apply_look(plain, curve), None, 1, loaded.metadata, curve, has_look=True)
    photo.save(done, tmp_path / "a.tif", CAMERA, ProcessingNote("0.1.0"))
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "a.tif"), result_of(raw, CAMERA, tmp_path / "b.tif")
    )


def test_a_photo_that_the_cpu_takes_over_from_a_gpu_still_gets_its_look(
    raw: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TooSmallGpu:
        """Finishes a photo on a device without memory, then starts again on the CPU."""

        device = torch.device("cpu")

        def restore_photo(self, open_photo: Any, *, finish: Any, **_: object) -> RoundedDeblurred:
            for device in ("meta", "cpu"):
                open_photo(torch.device("cpu"))
                finish(torch.empty((1, 1, 3), dtype=torch.uint16, device=device))
            sharp = np.zeros((1, 1, 3), np.uint16)
            return RoundedDeblurred(sharp, BlurMap(np.zeros((1, 1), np.float32)))

    monkeypatch.setattr("ldp.load", lambda *_, **__: TooSmallGpu())
    restorer = Restorer(RestoreSettings(model="tiny"), RawSettings(), False, NEUTRAL)
    restored = restorer(photo.load(raw, RawSettings()), lambda done, of: None)
    assert not restored.has_look
