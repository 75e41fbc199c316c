"""Render a small shoot as real CR2 files, restore it, and compare it with the truth."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import tifffile

from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.batch.progress import EXIT_DONE, EXIT_INTERRUPTED, Reporter
from dpbatch.batch.run import run
from dpbatch.errors import AbortError
from dpbatch.networks import checked_sha256, two_view_header
from dpbatch.output.color import apply_orientation
from dpbatch.raw.container import probe
from dpbatch.raw.develop import develop
from dpbatch.raw.ordinary import read_ordinary
from dpbatch.raw.reader import read_dual
from dpbatch.settings import (
    OutputSettings,
    RawSettings,
    RestoreSettings,
    Settings,
    settle_blur,
    settle_scale,
)
from dpbatch.tools.demo_scenes import DemoScene, demo_scenes, ordinary_scene
from dpbatch.types import RunOptions, Status
from ldp.models.weights import resolve, sha256
from ldp.srgb import encode_srgb
from ldp.types import FloatArray, as_float
from training.evaluation.metrics import psnr_db
from training.simulator.sensor import Sensor, write_dual_pixel_raw, write_ordinary_raw

TRUNCATED = "IMG_0006"


def run_demo(out: Path, model: str, ordinary: str = "skip") -> int:
    """Render OUT/shoot, restore it into OUT/sharp, compare in OUT/compare; return the exit code.

    ordinary: as in RestoreSettings. The shoot has an ordinary raw, to be skipped or restored by
    that, and a truncated one, to fail; the code is 0 if that happens.

    Raises SettingsError or WeightsError before anything is written, AbortError for another outcome.
    """
    header = two_view_header(model)
    restore = settle_scale(RestoreSettings(model=model, ordinary=ordinary), header.is_third_party)
    of_ordinary = checked_sha256(restore)
    shoot, sharp, compare = out / "shoot", out / "sharp", out / "compare"
    try:
        for folder in (shoot, compare):
            folder.mkdir(parents=True, exist_ok=True)
        say(f"Rendering six raw files into {shoot}")
        scenes = demo_scenes()
        without_views = ordinary_scene()
        write_shoot(shoot, scenes, without_views)
    except OSError as error:
        raise AbortError(f"{out}: the output folder cannot be written: {error}") from error
    options = "--layers blur,disparity --look neutral --overwrite"
    if of_ordinary:
        options += f" --ordinary {ordinary}"
    say(f"\ndpbatch run {shoot} --out {sharp} {options}\n")
    settings = Settings(
        restore=restore,
        output=OutputSettings(layers=("blur", "disparity"), look="neutral"),
    )
    settings = settle_blur(settings, header.blur_map)
    stages = PhotoStages(settings, sha256(resolve(model)), ordinary_sha256=of_ordinary)
    reporter = Reporter(sys.stdout)
    code = run(RunOptions((shoot,), sharp, overwrite=True), settings, stages, reporter)
    if code == EXIT_INTERRUPTED:
        return code
    counts = {status: reporter.count(status) for status in Status}
    name, planned = without_views.name, "restored" if of_ordinary else "skipped"
    done = scenes if not of_ordinary else [*scenes, without_views]
    if counts != {Status.DONE: len(done), Status.SKIPPED: 5 - len(done), Status.FAILED: 1}:
        raise AbortError(
            f"{name} should have been {planned}, {TRUNCATED} failed, and the other four done"
        )
    say("\nPSNR against the rendered truth, higher is better:")
    for scene in done:
        before_db, after_db = _compare(scene, shoot, sharp, compare)
        say(f"  {scene.name}  {before_db:5.2f} -> {after_db:5.2f} dB  {scene.what}")
    say(f"As planned, {name} (no dual pixels) was {planned} and {TRUNCATED} (cut short) failed.")
    say(f"\nSharp photos and layers: {sharp}\nBefore, after, truth side by side: {compare}")
    return EXIT_DONE


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_shoot(shoot: Path, scenes: list[DemoScene], without_views: DemoScene) -> None:
    """Write the scenes as Dual Pixel RAW, one as an ordinary raw, and a truncated copy."""
    for seed, scene in enumerate(scenes):
        gain = np.float32(scene.exposure)
        sensor = Sensor(tags=scene.tags)
        path = shoot / f"{scene.name}.CR2"
        write_dual_pixel_raw(path, scene.pair.left * gain, scene.pair.right * gain, sensor, seed)
    composite = (without_views.pair.left + without_views.pair.right) * np.float32(0.5)
    write_ordinary_raw(shoot / f"{without_views.name}.CR2", composite, Sensor())
    whole = (shoot / f"{scenes[0].name}.CR2").read_bytes()
    (shoot / f"{TRUNCATED}.CR2").write_bytes(cut_short(whole))


def cut_short(whole: bytes) -> bytes:
    """Truncate a file, as a card does that is removed too early."""
    return whole[: len(whole) * 6 // 10]


def _compare(scene: DemoScene, shoot: Path, sharp: Path, compare: Path) -> tuple[float, float]:
    """Return PSNR before and after in dB; write the three pictures side by side, upright."""
    truth = _truth(scene)
    before = _before(shoot / f"{scene.name}.CR2")
    after = tifffile.imread(sharp / f"{scene.name}.tif").astype(np.float32) / np.float32(65535)
    sheet = np.hstack([before, after, truth])
    cv2.imwrite(str(compare / f"{scene.name}.png"), (sheet[..., ::-1] * 255 + 0.5).astype(np.uint8))
    exact = [picture.astype(np.float64) for picture in (before, after, truth)]
    return psnr_db(exact[0], exact[2]), psnr_db(exact[1], exact[2])


def _truth(scene: DemoScene) -> FloatArray:
    """Return the scene in focus everywhere, without a camera, upright."""
    encoded = encode_srgb(scene.pair.sharp * np.float32(scene.exposure))
    return np.asarray(apply_orientation(np.clip(encoded, 0, 1), scene.tags.orientation), np.float32)


def _before(path: Path) -> FloatArray:
    """Return a photo as it was, upright, in [0, 1]; of two views their mean."""
    if not probe(path).is_dual_pixel:
        photo = read_ordinary(path, "camera")
        return np.asarray(apply_orientation(as_float(photo.picture), photo.orientation))
    views = develop(read_dual(path), RawSettings())
    mean = np.clip((views.left + views.right) / 2, 0, 1)
    return np.asarray(apply_orientation(mean, views.orientation), np.float32)
