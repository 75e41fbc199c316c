"""The release's CLIP map: as a naive re-statement has it, in batches, at any size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from ldp.blur.clip_model import Clip, frozen
from ldp.blur.clip_patch import SYMMETRIC, ClipPatchEstimator, patch_starts
from ldp.types import ViewPair
from tests.helpers import clip_reference as naive
from tests.helpers.peak_memory import peak_memory_gib
from tests.ldp.blur.test_clip_dense import pair


@pytest.fixture(scope="module")
def clip() -> Clip:
    return frozen(naive.tiny_clip(), torch.device("cpu"))


def with_range(clip: Clip, views: ViewPair) -> ClipPatchEstimator:
    """Thresholds amid this network's logits, so that amounts come out below, between and above."""
    logits = ClipPatchEstimator.of(clip).logits(views)
    low, high = np.quantile(logits, [0.25, 0.75])
    return ClipPatchEstimator.of(
        clip, replace(SYMMETRIC, blurred_logit=float(low), sharp_logit=float(high))
    )


def test_it_agrees_with_the_naive_implementation(clip: Clip) -> None:
    views = pair(120, 160)
    estimator = with_range(clip, views)
    logits = naive.patch_logits(
        clip.network, views.left / 65535, views.right / 65535, "A symmetric image at pixel level"
    )
    np.testing.assert_allclose(estimator.logits(views) / 100, logits / 100, atol=1e-5)
    low, high = estimator.prompt.blurred_logit, estimator.prompt.sharp_logit
    expected = [[min(1, max(0, (high - value) / (high - low))) for value in row] for row in logits]
    found = estimator.estimate(views)
    np.testing.assert_allclose(found.amount, expected, atol=1e-3 / (high - low) + 1e-5)
    assert {0, 1} < set(found.amount.ravel().tolist())
    assert found.disparity_px is None
    assert found.soft is None


def test_the_release_s_own_map_is_stretched_in_eight_bits(clip: Clip) -> None:
    views = pair(120, 160)
    plain = with_range(clip, views)
    # Thresholds wide of the logits: without stretching, the amounts are far from 0 and 1.
    low, high = plain.prompt.blurred_logit, plain.prompt.sharp_logit
    wide = replace(plain.prompt, blurred_logit=2 * low - high, sharp_logit=2 * high - low)
    plain = replace(plain, prompt=wide)
    amounts = plain.estimate(views).amount
    levels = [[int(255 * float(amount)) for amount in row] for row in amounts]
    lowest, highest = min(map(min, levels)), max(map(max, levels))
    assert lowest > 0 or highest < 255  # so stretching has something to do
    expected = [[int(255 * (x - lowest) / (highest - lowest)) for x in row] for row in levels]
    found = replace(plain, stretched=True).estimate(views).amount
    assert (found.min(), found.max()) == (0, 1)
    np.testing.assert_allclose(found * 255, expected, atol=1 + 1e-4)  # a level where one rounds
    assert np.mean(np.abs(found * 255 - expected) > 0.5) < 0.1
    # A map without any range, where the release divides by zero, stays as it is.
    flat = replace(plain, prompt=replace(wide, blurred_logit=1e3, sharp_logit=2e3), stretched=True)
    assert np.array_equal(flat.estimate(views).amount, np.ones_like(amounts))


def test_thresholds_and_prompt_are_those_of_the_release() -> None:
    assert (SYMMETRIC.blurred_logit, SYMMETRIC.sharp_logit) == (26.05, 29)
    assert (SYMMETRIC.text, SYMMETRIC.network) == (
        "A symmetric image at pixel level",
        "ViT-B-16-quickgelu",
    )


@dataclass
class RecordingClip:
    """A stand-in for CLIP that keeps what it is given."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    image_px: int = 224
    given: list[torch.Tensor] = field(default_factory=list)

    def text_features(self, prompts: tuple[str, ...]) -> torch.Tensor:
        return torch.ones(len(prompts), 1)

    def image_features(self, pictures: torch.Tensor) -> torch.Tensor:
        self.given.append(pictures)
        return pictures.mean((1, 2, 3))[:, None]


def test_clip_is_given_what_its_own_preparation_gives_it() -> None:
    """The middle of [left | mirrored right], up to the rounding to 8 bits that the preparation does
    along each axis. Far enough from black and white that nothing clips."""
    rng = np.random.default_rng(0)
    left, right = 2 * rng.integers(40, 85, (2, 40, 40, 3)).astype(np.uint8)
    recording = RecordingClip()
    ClipPatchEstimator.of(recording).estimate(ViewPair(left, right))  # type: ignore[arg-type]
    patch = np.concatenate([left, right[:, ::-1]], axis=1)
    transform = open_clip.image_transform(224, is_train=False)
    expected = transform(Image.fromarray(patch))
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (naive.MEAN, naive.DEVIATION))
    difference = (expected * deviation + mean - recording.given[0][0]).abs()
    assert difference.max() < 1.5 / 255


@pytest.mark.parametrize("batch", [1, 3, 5, 1000])
def test_the_batch_does_not_change_the_map(clip: Clip, batch: int) -> None:
    views = pair(90, 200)
    whole = ClipPatchEstimator.of(clip)
    assert whole.logits(views).shape == (3, 5)
    parts = replace(whole, batch=batch).logits(views)
    np.testing.assert_allclose(parts, whole.logits(views), atol=1e-4)


@pytest.mark.parametrize("size", [1, 39, 40, 41, 79, 80, 81, 1120, 1680, 1685, 8192])
def test_patches_cover_an_axis_evenly(size: int) -> None:
    starts = patch_starts(size)
    assert len(starts) == -(-size // 40)
    if size >= 40:
        assert (starts[0], starts[-1]) == (0, size - 40)
        steps = np.diff(starts)
        assert steps.max(initial=0) <= 40
        assert np.ptp(steps) <= 1 if len(steps) else True
        # The map covers the whole view, so cell i is taken to lie at (i + 0.5) / n of it.
        centres = (np.arange(len(starts)) + 0.5) * size / len(starts)
        assert np.abs(np.add(starts, 20) - centres).max() <= 10
    if size % 40 == 0:
        assert starts == list(range(0, size, 40))


@pytest.mark.parametrize(
    ("size", "shape"), [((1, 1), (1, 1)), ((7, 95), (1, 3)), ((41, 40), (2, 1))]
)
def test_any_size_gives_amounts_in_range(
    clip: Clip, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    amount = ClipPatchEstimator.of(clip).estimate(pair(*size)).amount
    assert amount.shape == shape
    assert amount.dtype == np.float32
    assert amount.min() >= 0
    assert amount.max() <= 1


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_a_constant_map_is_no_division_by_zero(clip: Clip, logit: float) -> None:
    """All below the thresholds, and all above."""
    prompt = replace(SYMMETRIC, blurred_logit=logit, sharp_logit=logit + 1)
    estimator = ClipPatchEstimator.of(clip, prompt)
    views = pair(80, 80)
    assert (estimator.estimate(views).amount == (logit > 0)).all()


def test_a_larger_photo_is_reduced_to_the_scale_of_the_thresholds(clip: Clip) -> None:
    estimator = replace(ClipPatchEstimator.of(clip), read_pixels=80 * 120)
    assert estimator.logits(pair(320, 480)).shape == (2, 3)


@pytest.mark.slow
def test_45_megapixels_of_patches_take_less_than_4_gib() -> None:
    """28 000 patches at native size, with a small network."""
    script = (
        "import numpy as np, torch\n"
        "from dataclasses import replace\n"
        "from ldp.blur.clip_model import frozen\n"
        "from ldp.blur.clip_patch import ClipPatchEstimator\n"
        "from ldp.types import ViewPair\n"
        "from tests.helpers.clip_reference import tiny_clip\n"
        "view = np.zeros((5464, 8192, 3), np.uint16) + np.arange(8192, dtype=np.uint16)[:, None]\n"
        "estimator = ClipPatchEstimator.of(frozen(tiny_clip(), torch.device('cpu')))\n"
        "estimator = replace(estimator, read_pixels=view.size, batch=512)\n"
        "assert estimator.estimate(ViewPair(view, view[::-1])).amount.shape == (137, 205)\n"
    )
    assert 0.2 < peak_memory_gib(script) < 4
