"""The blur map of LDP's released code: the CLIP logit of each small patch.

The prompt, the sizes and the thresholds are those of that code; none of the code is here. It takes
one patch at a time of pictures whose sides are multiples of a patch, and divides by zero where the
map is constant. This implementation takes batches and any size, and keeps the thresholds' scale,
so that amounts are comparable between photos, unless it is told to stretch them as that code does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.blur.clip_dense import PAPER_PIXELS
from ldp.blur.clip_model import VIT_B_16, Clip, load_clip
from ldp.blur.estimator import OPENAI
from ldp.restore.tiling import read_window
from ldp.types import BlurMap, Picture, Plane, ReducibleViews

PATCH_PX = 40
# The factor on cosines that OpenAI's networks learned; the thresholds are in these units.
LOGIT_SCALE = 100.0
# Patches a pass: a batch should stay in a CPU's caches, and fill a GPU.
BATCH = {"cpu": 8, "cuda": 512}


@dataclass(frozen=True)
class PatchPrompt:
    """A prompt, the CLIP that it is for, and the thresholds of its logit.

    text: the prompt.
    network: open_clip's name of the CLIP.
    blurred_logit: 100 * cosine at and below which the amount is 1.
    sharp_logit: 100 * cosine at and above which the amount is 0; linear between the two.
    """

    text: str
    network: str
    blurred_logit: float
    sharp_logit: float


SYMMETRIC = PatchPrompt("A symmetric image at pixel level", VIT_B_16, 26.05, 29.0)


@dataclass(frozen=True, eq=False)
class ClipPatchEstimator:
    """Blur where a left patch and the mirrored right patch are not symmetric.

    clip, prompt: the network and its prompt.
    text: the prompt's feature, (features,), of length 1.
    read_pixels: a larger photo is reduced to about this many pixels first: the thresholds are for
        patches of 40 px of DPDD's photos, 1680 x 1120.
    batch: patches a pass; 0 chooses by the device.
    stretched: whether the amounts are the release's: 8-bit levels, stretched over the photo's own
        range and truncated to 8 bits again. A constant map, where the release divides by zero,
        stays as it is.
    """

    clip: Clip
    prompt: PatchPrompt
    text: Tensor
    read_pixels: int = PAPER_PIXELS
    batch: int = 0
    stretched: bool = False

    @classmethod
    def load(cls, device: torch.device, weights: str = OPENAI) -> ClipPatchEstimator:
        """Load the release's CLIP and encode its prompt.

        weights: see load_clip.

        Raises ClipUnavailableError.
        """
        return cls.of(load_clip(SYMMETRIC.network, weights, device))

    @classmethod
    def of(cls, clip: Clip, prompt: PatchPrompt = SYMMETRIC) -> ClipPatchEstimator:
        """Encode the prompt with a CLIP that is loaded already."""
        return cls(clip, prompt, clip.text_features((prompt.text,))[0])

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of the views: `amount` alone, one value a patch of what was read.

        It has no sign, and no soft plane: the release has thresholds where the paper has a sigmoid.
        """
        prompt = self.prompt
        logits = self.logits(views)
        span = np.float32(prompt.sharp_logit - prompt.blurred_logit)
        amount: Plane = ((np.float32(prompt.sharp_logit) - logits) / span).clip(0, 1)
        return BlurMap(amount=_stretched(amount) if self.stretched else amount)

    def logits(self, views: ReducibleViews) -> Plane:
        """Return 100 * cosine of every patch with the prompt, (rows, columns) float32."""
        small = views.reduced(self.read_pixels)
        left, right = small.left, small.right
        tops, lefts = patch_starts(left.shape[0]), patch_starts(left.shape[1])
        corners = [(top, start) for top in tops for start in lefts]
        batch = self.batch or BATCH[self.clip.device.type]
        parts = []
        for first in range(0, len(corners), batch):
            patches = np.stack(
                [self._patch(left, right, *corner) for corner in corners[first : first + batch]]
            )
            parts.append(self._cosines(torch.from_numpy(patches)))
        cosines = torch.cat(parts).numpy().reshape(len(tops), len(lefts))
        return np.asarray(np.float32(LOGIT_SCALE) * cosines, np.float32)

    def _patch(self, left: Picture, right: Picture, top: int, start: int) -> Plane:
        """Return a left patch beside the mirrored right one, (3, 40, 80).

        Beyond the border of a smaller picture its pixels are reflected.
        """
        window = (top, start, PATCH_PX, PATCH_PX)
        pair = [read_window(view, *window) for view in (left, right)]
        return np.concatenate([pair[0], pair[1][:, :, ::-1]], axis=2)

    def _cosines(self, patches: Tensor) -> Tensor:
        """Return the patches' cosines with the prompt, (n,), on the CPU.

        The patches are prepared as CLIP does: the shorter side to 224 px, bicubic, and the middle
        cut out. So CLIP sees the right half of the left patch beside the mirrored right half of the
        right one.
        """
        side = self.clip.image_px
        patches = patches.to(self.clip.device)
        width = side * patches.shape[3] // patches.shape[2]
        enlarged = F.interpolate(patches, (side, width), mode="bicubic", antialias=True).clamp(0, 1)
        middle = (width - side) // 2
        with torch.inference_mode():
            features = self.clip.image_features(enlarged[..., middle : middle + side])
            return (F.normalize(features, dim=-1) @ self.text).cpu()


def _stretched(amount: Plane) -> Plane:
    """Return the release's map of amounts in [0, 1]: 8 bits, over its own range."""
    levels = np.floor(amount * np.float32(255))
    lowest, highest = levels.min(), levels.max()
    if lowest < highest:
        levels = np.floor((levels - lowest) / (highest - lowest) * np.float32(255))
    return np.asarray(levels / np.float32(255), np.float32)


def patch_starts(size: int) -> list[int]:
    """Return where the patches start along an axis of `size` pixels, spread evenly over it.

    A side that is a multiple of a patch is cut without overlap, as in the release. On others the
    patches overlap by some pixels, so that each shows real pixels only and the map covers the view.
    """
    count = -(-size // PATCH_PX)
    if count == 1:
        return [-((PATCH_PX - size) // 2)]
    return [round(i * (size - PATCH_PX) / (count - 1)) for i in range(count)]
