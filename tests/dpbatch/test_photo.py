"""One photo from raw file to picture, with a network that returns the mean of the views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import exifread
import numpy as np
import pytest
import tifffile
import torch

import ldp
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.errors import NotDualPixelError, RestoreError, SettingsError, UnreadableError
from dpbatch.output.color import apply_orientation
from dpbatch.photo import developed, load
from dpbatch.raw import reader
from dpbatch.raw.frames import RawPair
from dpbatch.raw.pairs import read_pair_views
from dpbatch.settings import OutputSettings, RawSettings, Settings
from dpbatch.tools.split import SplitStages, to_16_bit
from dpbatch.types import Job, Photo
from ldp.blur.disparity import DisparityEstimator
from ldp.restore.photo_views import OpenPhoto, PhotoViews, whole
from ldp.restore.tiles import Receive
from ldp.types import FloatArray, RoundedDeblurred, ViewPair, as_float
from tests.helpers.scenes import write_test_dpraw
from training.simulator.cr2.layout import CameraTags

NEUTRAL = Settings(output=OutputSettings(look="neutral"))


def mean_of(views: ViewPair | PhotoViews) -> FloatArray:
    pair = whole(views)
    return (as_float(pair.left) + as_float(pair.right)) / np.float32(2)


def views_in(photo: Photo, *, swap: bool = False) -> ViewPair:
    settings = RawSettings(swap=swap)
    return developed(load(photo, settings), settings)


class MeanOfViews:
    """In the model's place, so that tests need no weights. begun: what a GPU is readied by."""

    def __init__(self, device: str) -> None:
        self.device = torch.device("cpu" if device == "auto" else device)
        self.estimator = DisparityEstimator()
        self.begun: list[str] = []

    @classmethod
    def load(cls, model: str, *, device: str, **options: object) -> Self:
        if device == "cuda:7":
            raise ldp.DeviceError("device 'cuda:7': PyTorch sees 0 CUDA devices")
        return cls(device)

    def restore_photo(self, photo: OpenPhoto, *, also: Receive, **_: object) -> RoundedDeblurred:
        views = photo(self.device)
        height, width = views.size
        everything = slice(0, height), slice(0, width)
        also(*everything, views.untouched(*everything))
        return RoundedDeblurred(to_16_bit(mean_of(views)), self.estimator.estimate(views))

    def warm_up(self) -> None:
        self.begun.append("warm up")

    def compile_in_background(self) -> None:
        self.begun.append("compile")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldp, "load", MeanOfViews.load)


def raw(path: Path) -> Photo:
    return Photo("raw", (path,), path.stem)


def restore(stages: PhotoStages, photo: Photo, out: Path) -> Job:
    """The three steps in a row, as an engine runs them."""
    job = Job(
        "a.tif", "a.CR2", photo, tuple(out / f"{photo.stem}{ending}" for ending in stages.suffixes)
    )
    restored = stages.restorer()(stages.load(job), lambda done, of: None)
    saved = stages.save(job, restored)
    assert saved.outputs == job.outputs
    assert [stamp.path for stamp in saved.inputs] == [str(path) for path in photo.paths]
    return job


def tag(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return str(exifread.process_file(file, details=False)[name])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_and_its_layers_are_turned_upright_once(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, tags=CameraTags(orientation=orientation))
    settings = replace(NEUTRAL, output=replace(NEUTRAL.output, layers=("blur", "disparity")))
    job = restore(PhotoStages(settings, "hash"), raw(path), tmp_path)

    views = views_in(raw(path))
    assert views.orientation == orientation
    upright = apply_orientation(to_16_bit(mean_of(views)), orientation)
    assert np.array_equal(tifffile.imread(job.target), upright)
    for layer in job.outputs[1:]:
        assert tifffile.imread(layer).shape == upright.shape[:2]
    assert tag(job.target, "Image Orientation") == "Horizontal (normal)"
    assert b"WeightsSHA256" in job.target.read_bytes()


def test_the_picture_is_the_last_file_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that is there stands for a photo that is complete."""
    path = tmp_path / "a.CR2"
    write_test_dpraw(path)
    settings = Settings(output=replace(Settings().output, layers=("blur",)))

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpbatch.rescue.write_picture", fail)
    with pytest.raises(KeyboardInterrupt):
        restore(PhotoStages(settings, "hash"), raw(path), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.blur.tif"]


@pytest.mark.parametrize("orientation", [1, 6])
def test_split_views_can_be_read_back_as_a_pair(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, tags=CameraTags(orientation=orientation))
    stages = SplitStages(Settings())
    job = Job(
        "a.tif", path.name, raw(path), tuple(tmp_path / f"a{ending}" for ending in stages.suffixes)
    )
    stages.save(job, stages.restorer()(stages.load(job), lambda done, of: None))

    views = views_in(raw(path))
    again = read_pair_views(tmp_path / "a_L.tif", tmp_path / "a_R.tif")
    assert again.orientation == orientation
    assert np.array_equal(again.left, to_16_bit(views.left))
    assert np.array_equal(again.right, to_16_bit(views.right))
    # And from there on it is the same photo.
    pair = Photo("pair", (tmp_path / "a_L.tif", tmp_path / "a_R.tif"), "pair")
    from_raw = restore(PhotoStages(NEUTRAL, "hash"), raw(path), tmp_path / "1").target
    from_pair = restore(PhotoStages(NEUTRAL, "hash"), pair, tmp_path / "2").target
    difference = tifffile.imread(from_raw).astype(int) - tifffile.imread(from_pair)
    assert np.abs(difference).max() <= 1  # rounding


def test_swap_exchanges_the_views_of_raw_files_and_pairs_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path)
    stages = SplitStages(Settings())
    job = Job(
        "a.tif", path.name, raw(path), tuple(tmp_path / f"a{ending}" for ending in stages.suffixes)
    )
    stages.save(job, stages.restorer()(stages.load(job), lambda done, of: None))
    pair = Photo("pair", (tmp_path / "a_L.tif", tmp_path / "a_R.tif"), "a")
    for photo in (raw(path), pair):
        plain, swapped = (views_in(photo, swap=swap) for swap in (False, True))
        difference = np.abs(as_float(plain.left) - as_float(swapped.right))
        assert difference.mean() < 0.002  # the shading correction is not quite symmetric
        assert np.abs(as_float(plain.left) - as_float(plain.right)).mean() > 0.01


def test_16_bits_are_rounded_and_clipped_only_where_they_must() -> None:
    floats = np.array([[-0.1, 0.0, 0.5 / 65535, 0.6 / 65535, 0.5, 1.0, 1.2]], np.float32)
    assert to_16_bit(floats).tolist() == [[0, 0, 0, 1, 32768, 65535, 65535]]
    whole = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_16_bit(whole), whole)
    assert np.array_equal(to_16_bit(as_float(whole)), whole)
    assert to_16_bit(np.array([[0, 255]], np.uint8)).tolist() == [[0, 65535]]


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"gone\.CR2"):
        load(raw(tmp_path / "gone.CR2"), RawSettings())
    (tmp_path / "old.CRW").write_bytes(b"II\x1a\0\0\0HEAPCCDR" + bytes(50))
    with pytest.raises(NotDualPixelError):
        load(raw(tmp_path / "old.CRW"), RawSettings())


def test_a_file_that_memory_cannot_hold_is_at_fault_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim_too_much(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 7.03 TiB for an array")

    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 96, 128)
    monkeypatch.setattr("dpbatch.raw.reader.read_dual", claim_too_much)
    with pytest.raises(UnreadableError, match=r"a\.CR2: too large.*7\.03 TiB.*--exclude"):
        load(raw(path), RawSettings())


def test_a_file_that_vanishes_before_its_metadata_is_read_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 64, 64)

    def read_before(*_: object, **__: object) -> RawPair:
        return found

    found = reader.read_dual(path)
    path.unlink()
    monkeypatch.setattr(reader, "read_dual", read_before)
    with pytest.raises(UnreadableError, match=r"a\.CR2: metadata not read: .*; run again"):
        load(Photo("raw", (path,), "a"), RawSettings())


def test_an_impossible_device_is_a_wrong_setting() -> None:
    settings = Settings(restore=replace(Settings().restore, device="cuda:7"))
    with pytest.raises(SettingsError, match="0 CUDA devices; use --device cpu"):
        PhotoStages(settings, "hash").restorer()


@pytest.mark.parametrize(("device", "begun"), [("cpu", []), ("cuda", ["warm up", "compile"])])
def test_a_gpu_is_warmed_up_before_the_first_photo_and_then_compiled_for(
    monkeypatch: pytest.MonkeyPatch, device: str, begun: list[str]
) -> None:
    model = MeanOfViews(device)
    monkeypatch.setattr(ldp, "load", lambda *_, **__: model)
    PhotoStages(Settings(), "0" * 64).restorer()
    assert model.begun == begun


def test_an_error_of_the_network_fails_this_photo_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> RoundedDeblurred:
        raise ldp.LdpError("the tile at row 0 has NaN")

    source = tmp_path / "a.CR2"
    write_test_dpraw(source, 96, 128)
    monkeypatch.setattr(MeanOfViews, "restore_photo", refuse)
    with pytest.raises(RestoreError, match="row 0 has NaN"):
        restore(PhotoStages(Settings(), "0" * 64), raw(source), tmp_path / "out")


def test_warnings_of_loading_end_with_those_of_saving(tmp_path: Path) -> None:
    """Two equal halves are no mistake that stops a photo, but the journal says so."""
    same = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    for side in "LR":
        tifffile.imwrite(tmp_path / f"a_{side}.tif", same, photometric="rgb")
    pair = Photo("pair", (tmp_path / "a_L.tif", tmp_path / "a_R.tif"), "a")
    (warning,) = load(pair, RawSettings()).warnings
    assert "hold the same picture" in warning

    def job_of(suffixes: tuple[str, ...]) -> Job:
        return Job("out.tif", "a", pair, tuple(tmp_path / f"out{ending}" for ending in suffixes))

    stages = PhotoStages(Settings(), "0" * 64)
    job = job_of(stages.suffixes)
    restored = stages.restorer()(stages.load(job), lambda done, of: None)
    assert warning in stages.save(job, restored).warnings
    split = SplitStages(Settings())
    job = job_of(split.suffixes)
    loaded = split.restorer()(split.load(job), lambda done, of: None)
    assert warning in split.save(job, loaded).warnings
