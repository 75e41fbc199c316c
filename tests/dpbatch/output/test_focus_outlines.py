"""Focus control on rendered depths: near things before a far ground, and a subject between."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from dpbatch.focus_settings import FocusSettings
from dpbatch.output.focus import AfArea, depth_ranges, focus_weights
from ldp.blur.disparity import DisparityEstimator
from ldp.blur.outlines import align
from ldp.types import BlurMap, FloatArray, ViewPair
from training.simulator.optics import EOS_5D_MARK_IV_KERNEL
from training.simulator.render import Surface, render

SIZE = (240, 440)
FAR_PX, SUBJECT_PX, NEAR_PX = -4.0, 0.3, 4.0
"""Signed radii of blur."""
Y, X = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
NEAR = ((X - 80) / 50) ** 2 + ((Y - 120) / 70) ** 2 < 1
SUBJECT = ((X - 220) / 40) ** 2 + ((Y - 90) / 60) ** 2 < 1
WIRE = np.abs(X - 370 - Y / 10) < 3
AT_SUBJECT = AfArea(220 / SIZE[1], 90 / SIZE[0], 0.1, 0.15)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    measured: BlurMap
    aligned: BlurMap
    sharp: npt.NDArray[np.uint16]

    def weights(self, settings: FocusSettings) -> tuple[FloatArray, FloatArray]:
        """Return those of focus control, and those of each pixel's depth alone."""
        ranges = depth_ranges(self.aligned, settings, [AT_SUBJECT])
        found = focus_weights(self.measured, self.aligned, self.sharp, settings, ranges)
        disparity_px = self.aligned.disparity_px
        assert disparity_px is not None
        by_depth = np.prod([depth.weights(disparity_px) for depth in ranges], axis=0)
        return found.astype(np.float32) / np.float32(65535), by_depth


def _texture(seed: int, colour: tuple[float, float, float]) -> FloatArray:
    noise = np.random.default_rng(seed).normal(0, 1, (*SIZE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(
        np.array(colour) * (1 + 0.3 * smooth / smooth.std()).clip(0.05, 1), np.float32
    )


def _surface(
    number: int, colour: tuple[float, float, float], coc_px: float, where: Mask
) -> Surface:
    even = np.full(SIZE, coc_px, np.float32)
    return Surface(_texture(number, colour), where.astype(np.float32), even)


@pytest.fixture(scope="module")
def scene() -> Scene:
    everywhere = np.ones(SIZE, bool)
    surfaces = [
        _surface(0, (0.10, 0.16, 0.20), FAR_PX, everywhere),
        _surface(1, (0.40, 0.30, 0.12), SUBJECT_PX, SUBJECT | WIRE),
        _surface(2, (0.12, 0.32, 0.16), NEAR_PX, NEAR),
    ]
    pair = render(surfaces, EOS_5D_MARK_IV_KERNEL)
    left, right, sharp = (
        np.asarray(picture.clip(0, 1) ** (1 / 2.2), np.float32)
        for picture in (pair.left, pair.right, pair.sharp)
    )
    measured = DisparityEstimator().estimate(ViewPair(left, right))
    sharp_uint16 = np.rint(sharp * 65535).astype(np.uint16)
    return Scene(measured, align(measured, sharp_uint16), sharp_uint16)


def _within(mask: Mask, distance_px: float) -> Mask:
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) < distance_px)


@pytest.mark.parametrize(
    "settings",
    [FocusSettings(rescue="subject"), FocusSettings(focus_range="1:-1")],
    ids=["subject", "range"],
)
def test_the_outline_of_a_near_thing_is_no_subject(scene: Scene, settings: FocusSettings) -> None:
    band = _within(NEAR, 12) & _within(~NEAR, 12)
    weights, by_depth = scene.weights(settings)
    # The map does pass through the subject's depth there.
    assert (by_depth[band] > 0.5).mean() > 0.05
    assert (weights[band] > 0.1).mean() < 0.002


@pytest.mark.parametrize("subject", [SUBJECT, WIRE], ids=["large", "thin"])
def test_a_subject_is_kept_however_thin(scene: Scene, subject: Mask) -> None:
    weights, by_depth = scene.weights(FocusSettings(rescue="subject"))
    inside = subject & ~_within(~subject, 2)
    assert weights[inside].mean() > 0.9
    np.testing.assert_allclose(weights[inside], by_depth[inside], atol=0.01)
