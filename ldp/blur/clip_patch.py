"""The blur map of LDP's released code: CLIP looks at one small patch after the other.

Its prompts, sizes and thresholds are facts about that code; none of the code is here. It takes one
patch at a time of pictures that are whole patches only, and divides by zero on an even picture.
This takes many patches at once and any size, and keeps the thresholds' scale unless told not to.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.blur.clip_dense import PAPER_PIXELS
from ldp.blur.clip_model import VIT_B_16, VIT_B_32, Clip, load_clip
from ldp.blur.estimator import OPENAI
from ldp.restore.tiling import read_window
from ldp.types import BlurMap, Picture, Plane, ViewPair

PATCH_PX = 40
# What OpenAI's networks learned to multiply cosines with; the thresholds are in these units.
LOGIT_SCALE = 100.0
# What a CPU works on should stay in its caches; a GPU wants hundreds.
BATCH = {"cpu": 8, "cuda": 512}


@dataclass(frozen=True)
class PatchPrompt:
    """What a patch is asked, and how the answer is read.

    network: open_clip's name. blurred_logit, sharp_logit: 100 * cosine from which, downwards, the
    amount is 1, and from which, upwards, it is 0; linear between. paired: the patch of the left
    view beside the mirrored one of the right view, or the mean of the views.
    """

    text: str
    network: str
    blurred_logit: float
    sharp_logit: float
    paired: bool


SYMMETRIC = PatchPrompt("A symmetric image at pixel level", VIT_B_16, 26.05, 29.0, paired=True)
# So the release has it: the more a patch matches "A blurry image", the LESS blur it writes.
BLURRY = PatchPrompt("A blurry image", VIT_B_32, 23.3, 26.0, paired=False)


@dataclass(frozen=True, eq=False)
class ClipPatchEstimator:
    """Blur where a patch of the left view and the mirrored one of the right are not symmetric.

    clip, prompt: what is asked. text: the prompt's feature, (features,), of length 1.
    """

    clip: Clip
    prompt: PatchPrompt
    text: Tensor
    read_pixels: int = PAPER_PIXELS
    """A larger photo is reduced to about this many pixels first: the thresholds are for patches of
    40 px of DPDD's photos, 1680 x 1120."""
    per_image_minmax: bool = False
    """Stretch each map over its own range, as the release does where it writes a file; an even map
    becomes 0. Without it amounts are comparable between photos."""
    batch: int = 0
    """Patches a pass; 0 chooses by the device."""

    @classmethod
    def load(
        cls, device: torch.device, weights: str = OPENAI, prompt: PatchPrompt = SYMMETRIC
    ) -> ClipPatchEstimator:
        """With the release's network and one of its two prompts.

        weights: see load_clip. Raises ClipUnavailableError.
        """
        return cls.of(load_clip(prompt.network, weights, device), prompt)

    @classmethod
    def of(cls, clip: Clip, prompt: PatchPrompt = SYMMETRIC) -> ClipPatchEstimator:
        """With a CLIP that is loaded already."""
        return cls(clip, prompt, clip.text_features((prompt.text,))[0])

    def estimate(self, views: ViewPair) -> BlurMap:
        """The blur map of the views, one value a patch of what was read; it knows no sign, and has
        no soft plane: thresholds stand in the release for what the paper makes of a cosine."""
        prompt = self.prompt
        logits = self.logits(views)
        span = np.float32(prompt.sharp_logit - prompt.blurred_logit)
        amount: Plane = ((np.float32(prompt.sharp_logit) - logits) / span).clip(0, 1)
        if self.per_image_minmax:
            amount -= amount.min()
            highest = float(amount.max())
            amount /= np.float32(highest if highest > 0 else 1)
        return BlurMap(amount=amount)

    def logits(self, views: ViewPair) -> Plane:
        """100 * cosine of every patch with the prompt, (rows, columns) float32."""
        left, right = (_reduced(view, self.read_pixels) for view in (views.left, views.right))
        tops, lefts = patch_starts(left.shape[0]), patch_starts(left.shape[1])
        places = [(top, start) for top in tops for start in lefts]
        batch = self.batch or BATCH[self.clip.device.type]
        parts = []
        for first in range(0, len(places), batch):
            patches = np.stack(
                [self._patch(left, right, *place) for place in places[first : first + batch]]
            )
            parts.append(self._cosines(torch.from_numpy(patches)))
        cosines = torch.cat(parts).numpy().reshape(len(tops), len(lefts))
        return np.asarray(np.float32(LOGIT_SCALE) * cosines, np.float32)

    def _patch(self, left: Picture, right: Picture, top: int, start: int) -> Plane:
        """(3, 40, 80), or (3, 40, 40) of the mean view. Beyond a smaller picture it is mirrored."""
        window = (top, start, PATCH_PX, PATCH_PX)
        pair = [read_window(view, *window) for view in (left, right)]
        if self.prompt.paired:
            return np.concatenate([pair[0], pair[1][:, :, ::-1]], axis=2)
        mean: Plane = (pair[0] + pair[1]) * np.float32(0.5)
        return mean

    def _cosines(self, patches: Tensor) -> Tensor:
        """(n,) on the CPU. CLIP's own preparation: the shorter side to 224 px, bicubic, the middle
        cut out; so of a pair it sees the right half of the left patch beside its mirror image."""
        side = self.clip.image_px
        patches = patches.to(self.clip.device)
        width = side * patches.shape[3] // patches.shape[2]
        enlarged = F.interpolate(patches, (side, width), mode="bicubic", antialias=True).clamp(0, 1)
        middle = (width - side) // 2
        with torch.inference_mode():
            features = self.clip.image_features(enlarged[..., middle : middle + side])
            return (F.normalize(features, dim=-1) @ self.text).cpu()


def patch_starts(size: int) -> list[int]:
    """Where the patches begin along an axis of `size` pixels: as many as cover it, spread evenly.

    A side of whole patches is cut without overlap, as in the release. Otherwise patches overlap by
    some pixels: what a patch shows is real everywhere, and the map keeps covering the whole view.
    """
    count = -(-size // PATCH_PX)
    if count == 1:
        return [-((PATCH_PX - size) // 2)]
    return [round(i * (size - PATCH_PX) / (count - 1)) for i in range(count)]


def _reduced(view: Picture, pixels: int) -> Picture:
    """The view in its own type, with about `pixels` pixels if it has more."""
    scale = (pixels / (view.shape[0] * view.shape[1])) ** 0.5
    if scale >= 1:
        return view
    size = (max(1, round(view.shape[1] * scale)), max(1, round(view.shape[0] * scale)))
    reduced: Picture = cv2.resize(view, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return reduced
