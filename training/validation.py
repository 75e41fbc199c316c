"""Validate the averaged weights while training: on rendered pairs and on real scenes."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import ldp
from ldp.blur.clip_dense import ClipEstimator
from ldp.blur.estimator import BlurEstimator
from ldp.blur.loading import load_estimator
from ldp.devices import choose_precision
from ldp.models.network import LDPNet, mean_view
from ldp.models.restormer import Restormer
from ldp.models.vitdeblur import ViTDeblur
from ldp.restore.composite import CompositeRestorer
from ldp.restore.windows import WindowRestorer, WindowSettings
from ldp.single import BandRestorer
from ldp.types import BlurMap, Picture, ViewPair, as_float
from training.checkpoint import TrainedNetwork
from training.data.dpdd import find_scenes
from training.data.rendered import crop_settings, validation_pairs
from training.errors import DataError
from training.evaluation.metrics import exposure_fitted, psnr_db
from training.evaluation.protocols import composite
from training.evaluation.scenes import real_scenes
from training.pictures import read_rgb
from training.settings import TrainSettings
from training.simulator.scenes import Photo

Example = tuple[Tensor, Tensor, Tensor]
"""Views (6, S, S), blur map (1 or more, S, S), sharp (3, S, S), sRGB-encoded, white at 1."""
Strip = npt.NDArray[np.uint8]
"""(H, 4 W, 3): the mean view, the restored picture, the true one, the blur map."""

SAMPLES_SHOWN = 4
SAMPLE_PX = 256
# A picture without any error would have no finite score.
_LEAST_ERROR = 1e-8


@dataclass(frozen=True)
class RealValidation:
    """A folder of real scenes, and how many rows at the top of each are not scored."""

    folder: Path
    skip_rows: int = 0


@dataclass(frozen=True)
class RealScene:
    """A real scene. truth: (H, W, 3) as stored, of any of ViewPair's types."""

    name: str
    views: ViewPair
    blur_map: BlurMap
    truth: Picture


@dataclass(frozen=True)
class ValidationSet:
    """The pictures of a validation, the same at every step and in every resumption.

    skip_rows: rows at the top of real scenes that are not scored.
    """

    rendered: tuple[Example, ...] = ()
    real: tuple[RealScene, ...] = ()
    skip_rows: int = 0

    @cached_property
    def name(self) -> str:
        """The name of the evaluation set; scores of different names cannot be compared."""
        digest = hashlib.sha256(str(self.skip_rows).encode())
        if self.real:
            for scene in self.real:
                for picture in (scene.views.left, scene.views.right, scene.truth):
                    digest.update(np.ascontiguousarray(picture).tobytes())
            return f"{len(self.real)} real scenes, exposure-fitted, {digest.hexdigest()[:12]}"
        for views, _, sharp in self.rendered:
            digest.update(views.numpy().tobytes() + sharp.numpy().tobytes())
        return f"{len(self.rendered)} rendered pairs, {digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class ValidationScores:
    """Means over the pictures, None where there are none; gains are over the mean of the views.

    real_fitted_psnr_db: after each channel's exposure was fitted to the true photo's.
    real_least_gain_db: the worst scene's gain, fitted.
    """

    rendered_psnr_db: float | None
    rendered_gain_db: float | None
    real_psnr_db: float | None
    real_fitted_psnr_db: float | None
    real_least_gain_db: float | None
    seconds: float

    @property
    def score_db(self) -> float:
        """The figure that the best weights are chosen by: on real scenes, where there are any."""
        score = self.real_fitted_psnr_db
        if score is None:
            score = self.rendered_psnr_db
        assert score is not None
        return score

    def line(self) -> str:
        """Return a line for the screen."""
        parts = []
        if self.rendered_psnr_db is not None:
            parts.append(f"rendered {self.rendered_psnr_db:.2f} dB ({self.rendered_gain_db:+.2f})")
        if self.real_psnr_db is not None:
            parts.append(
                f"real {self.real_psnr_db:.2f} dB, fitted {self.real_fitted_psnr_db:.2f}, "
                f"worst scene {self.real_least_gain_db:+.2f}"
            )
        return f"validation: {'; '.join(parts)}  ({self.seconds:.0f} s)"


@dataclass(frozen=True)
class Validation:
    """The scores, and strips to look at, by name ("rendered", "real")."""

    scores: ValidationScores
    samples: tuple[tuple[str, Strip], ...]


def read_validation_set(
    settings: TrainSettings,
    photos: Sequence[Photo],
    validation: RealValidation | None,
    clip: ClipEstimator | None,
) -> ValidationSet | None:
    """Render and read what a run is validated on; None for nothing.

    clip: makes the blur maps of real scenes where the recipe trains on CLIP's.
    """
    rendered = []
    if photos:
        rendered = validation_pairs(photos, crop_settings(settings), settings.validate_pairs)
    real: tuple[RealScene, ...] = ()
    if validation and settings.validate_scenes:
        estimator: BlurEstimator | None = None
        if not settings.reads_composite:
            estimator = clip if settings.blur == "clip" and clip else load_estimator("disparity")
        real = read_real_scenes(validation.folder, settings.validate_scenes, estimator)
    if not rendered and not real:
        return None
    return ValidationSet(tuple(rendered), real, validation.skip_rows if validation else 0)


def read_real_scenes(
    folder: Path, most: int, estimator: BlurEstimator | None
) -> tuple[RealScene, ...]:
    """Read at most `most` scenes of a folder, evenly spread, with the blur maps that users get.

    estimator: None for a network of one view, whose scenes have the composite in the place of both
        views.
    folder: as training.evaluation.scenes reads, NAME_L.png, NAME_R.png, NAME_gt.png; or the DPDD
        data set, of which the validation split is read.

    Raises DataError for a folder with neither and for unreadable pictures.
    """
    files = real_scenes(folder) or [
        (scene.left.stem.removesuffix("_L"), scene.left, scene.right, scene.sharp)
        for scene in find_scenes(folder, "val")
    ]
    places = np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    scenes = []
    for name, *paths in (files[place] for place in places):
        left, right, truth = (read_rgb(path) for path in paths)
        if not left.shape == right.shape == truth.shape:
            raise DataError(
                f"{paths[0]}: the views are {left.shape} and {right.shape} and the true photo "
                f"{truth.shape}, expected one size"
            )
        views = ViewPair(left, right)
        if estimator is None:
            photo = composite(views)
            views = ViewPair(photo, photo)
            blur_map = BlurMap(np.zeros((1, 1), np.float32))
        else:
            blur_map = estimator.estimate(views)
        scenes.append(RealScene(name, views, blur_map, truth))
    return tuple(scenes)


def validate(average: TrainedNetwork, pictures: ValidationSet, device: torch.device) -> Validation:
    """Restore and score every picture; neither the weights nor any random state change.

    Raises LdpError where a result is not finite.
    """
    started = time.monotonic()
    rendered = []
    if pictures.rendered:
        assert not isinstance(average, ViTDeblur)  # it is trained on DPDD alone
        rendered = [_score_rendered(average, example, device) for example in pictures.rendered]
    real = []
    if pictures.real:
        # Users' own path, local statistics included: a model is a copy of the network.
        restore = _restorer(average, device)
        real = [_score_real(restore, scene, pictures.skip_rows) for scene in pictures.real]
    samples = [
        (name, np.concatenate([strip for *_, strip in scored[:SAMPLES_SHOWN]]))
        for name, scored in (("rendered", rendered), ("real", real))
        if scored
    ]
    rendered_means = [float(np.mean(x)) for x in zip(*(r[:2] for r in rendered), strict=True)]
    real_means = [float(np.mean(x)) for x in zip(*(r[:2] for r in real), strict=True)]
    psnr, gain = rendered_means or (None, None)
    plain, fitted = real_means or (None, None)
    least = min((r[2] for r in real), default=None)
    seconds = time.monotonic() - started
    return Validation(ValidationScores(psnr, gain, plain, fitted, least, seconds), tuple(samples))


def _restorer(average: TrainedNetwork, device: torch.device) -> Callable[[RealScene], Picture]:
    """Return the function that restores a scene as users' own path does.

    ViTDeblur's windows do not overlap here, for a tenth of the time.
    """
    if isinstance(average, Restormer) or (
        isinstance(average, LDPNet) and average.config.views == 2
    ):
        model = ldp.Model(average, device=device)
        return lambda scene: model.restore_uint16(scene.views, blur_map=scene.blur_map).sharp
    restorer: BandRestorer
    if isinstance(average, ViTDeblur):
        windows = WindowSettings(stride_px=average.config.covered_px)
        restorer = WindowRestorer.of(copy.deepcopy(average), device, windows)
    else:
        restorer = CompositeRestorer.of(average, device)
    single = ldp.SingleModel(restorer, ldp.SingleInfo(parameters=0))
    return lambda scene: single.restore_uint16(scene.views.left)


def _score_rendered(
    average: LDPNet | Restormer, example: Example, device: torch.device
) -> tuple[float, float, Strip]:
    """Return the PSNR in dB, its gain over the mean view, and the strip."""
    views, blur, sharp = (part[None].to(device) for part in example)
    precision = choose_precision(device)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, precision, enabled=precision != torch.float32),
    ):
        restored = average(views.contiguous(memory_format=torch.channels_last), blur).float()
    blurred = mean_view(views)
    before, after = (
        max(_LEAST_ERROR, float(((x.clamp(0, 1) - sharp) ** 2).mean())) for x in (blurred, restored)
    )
    shown = [x[0].permute(1, 2, 0).cpu().numpy() for x in (blurred, restored, sharp, blur[:, :1])]
    return -10 * np.log10(after), 10 * np.log10(before / after), _strip(*shown)


def _score_real(
    restore: Callable[[RealScene], Picture], scene: RealScene, skip_rows: int
) -> tuple[float, float, float, Strip]:
    """Return PSNR, exposure-fitted PSNR and its gain in dB, and a strip of the picture's middle."""
    restored = restore(scene)
    mean_view = (as_float(scene.views.left) + as_float(scene.views.right)) / 2
    truth = as_float(scene.truth).astype(np.float64)[skip_rows:]
    found, before = (
        picture.astype(np.float64)[skip_rows:] for picture in (as_float(restored), mean_view)
    )
    fitted, fitted_before = (psnr_db(exposure_fitted(x, truth), truth) for x in (found, before))
    height, width = scene.views.size
    amount = cv2.resize(scene.blur_map.amount, (width, height))[..., None]
    top, left = (max(0, (side - SAMPLE_PX) // 2) for side in (height, width))
    shown = [
        picture[top : top + SAMPLE_PX, left : left + SAMPLE_PX]
        for picture in (mean_view, as_float(restored), as_float(scene.truth), amount)
    ]
    return psnr_db(found, truth), fitted, fitted - fitted_before, _strip(*shown)


def _strip(*pictures: npt.NDArray[Any]) -> Strip:
    shape = (*pictures[0].shape[:2], 3)
    row = np.concatenate([np.broadcast_to(picture, shape) for picture in pictures], axis=1)
    return np.asarray(np.rint(np.clip(row, 0, 1) * 255), np.uint8)
