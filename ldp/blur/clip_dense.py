"""The LDP paper's blur map: dense CLIP features of a dual-pixel pair against eight prompts.

Yang et al., "LDP: Language-driven Dual-Pixel Image Defocus Deblurring Network", CVPR 2024, Eq. 4
to 6. Choices that the paper leaves open are stated where they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldp.blur.clip_model import VIT_B_32, Clip, load_clip
from ldp.blur.estimator import OPENAI, PAPER_CLIP, ClipChoice
from ldp.restore.tiling import Span, blend_weights, spans
from ldp.types import BlurMap, Picture, Plane, ReducibleViews, as_float

BLUR_AWARE = (
    "A blurry image.",
    "An obscured image.",
    "An out of focus image.",
    "An image lacking sharpness.",
)
DP_AWARE = (
    "A symmetrical image.",
    "A horizontally symmetrical image.",
    "A left-right symmetrical image.",
    "A symmetrical image at the pixel level.",
)
DP_FORMATS = ("mirrored", "beside", "above", "mean", "left")
"""What the dual-pixel-aware prompts are compared with: the paper's format, or a plain one; see
ClipEstimator."""
# A DPDD photo, which is the camera's scaled down four times: what the paper's CLIP is given.
PAPER_PIXELS = 1680 * 1120
# The largest window, in patches: a DPDD photo has 35 x 53 of them and is read in one piece.
WINDOW_CELLS = 56
OVERLAP_CELLS = 8


@dataclass(frozen=True, eq=False)
class ClipEstimator:
    """Blur where a patch matches "blurry", and where the two views do not match "symmetrical".

    The amounts are stretched over each photo's own range, unlike those of DisparityEstimator: the
    soft values differ by some hundredths only, around a level that depends on the prompts and the
    scene, and no fixed scale is published for them. So a photo that is sharp all over gets the same
    amounts as one that is blurred all over.

    clip: the network.
    blur_text, dp_text: features of the blur-aware and the dual-pixel-aware prompts, (prompts,
        features), each of length 1; a group without prompts is left out.
    dp_format: the picture that CLIP is given for the dual-pixel-aware prompts: "mirrored", the
        paper's, the left view with the mirrored right one to its right; or a plain one: the right
        view as it is, "beside" the left one or below it ("above": the left one is above), or one
        picture, the "mean" of the views or the "left" one. Features of two places that show one
        thing are averaged.
    read_pixels: a larger photo is reduced to about this many pixels before CLIP reads it; the map
        has a value for each patch of it. More than the paper's gives a finer map, read in windows,
        in which blur looks as much larger to CLIP.
    least_contrast: range of the soft values below which the amounts are not stretched any further,
        so that rounding errors of an even photo do not become a map.
    """

    clip: Clip
    blur_text: Tensor
    dp_text: Tensor
    read_pixels: int = PAPER_PIXELS
    least_contrast: float = 0.002
    dp_format: str = "mirrored"

    @classmethod
    def load(
        cls,
        device: torch.device,
        weights: str = OPENAI,
        blur_aware: bool = True,
        dp_aware: bool = True,
        *,
        choice: ClipChoice = PAPER_CLIP,
    ) -> ClipEstimator:
        """Load the paper's ViT-B/32 and encode both groups of prompts, or one of them.

        weights: see load_clip. choice: another CLIP, fewer prompts, a plain format.

        Raises ClipUnavailableError, and ValueError as `of` does.
        """
        clip = load_clip(choice.network or VIT_B_32, weights, device)
        return cls.of(
            clip, blur_aware, dp_aware, prompts=choice.prompts, dp_format=choice.dp_format
        )

    @classmethod
    def of(
        cls,
        clip: Clip,
        blur_aware: bool = True,
        dp_aware: bool = True,
        *,
        prompts: tuple[str, ...] = (),
        dp_format: str = "mirrored",
    ) -> ClipEstimator:
        """Encode the prompts with a CLIP that is loaded.

        prompts: those of both groups that are used; none for all.

        Raises ValueError where neither group is chosen, for an unknown prompt or format.
        """
        if not (blur_aware or dp_aware):
            raise ValueError(
                "neither blur-aware nor dual-pixel-aware prompts: expected at least one group"
            )
        check_prompts(prompts, dp_format)
        groups = (BLUR_AWARE if blur_aware else (), DP_AWARE if dp_aware else ())
        used = [tuple(p for p in group if not prompts or p in prompts) for group in groups]
        both = clip.text_features(used[0] + used[1])
        count = len(used[0])
        return cls(clip, both[:count], both[count:], dp_format=dp_format)

    def estimate(self, views: ReducibleViews) -> BlurMap:
        """Return the blur map of the views, one value a patch of what was read.

        It has the planes `amount` and `soft`, and no sign.
        """
        soft = self.soft_map(views)
        lowest, highest = float(soft.min()), float(soft.max())
        amount = (soft - np.float32(lowest)) / np.float32(
            max(highest - lowest, self.least_contrast)
        )
        return BlurMap(amount=amount, soft=soft)

    def soft_map(self, views: ReducibleViews) -> Plane:
        """Return the unnormalised map M, the mean over all prompts; (h, w), 0.27 to 0.73."""
        cells = self._cells(views.size)
        # Four times as many pixels leave the resizing to exact cells its averaging.
        read = views.reduced(4 * self.read_pixels)
        left, right = (_resized(x, cells, self.clip.patch_px) for x in (read.left, read.right))

        def read_part(rows: Span, columns: Span) -> Plane:
            side = self.clip.patch_px
            where = (
                slice(rows.start * side, rows.stop * side),
                slice(columns.start * side, columns.stop * side),
            )
            pair = (_tensor(view[where], self.clip.device) for view in (left, right))
            with torch.inference_mode():
                return np.asarray(self.soft_values(*pair)[0].cpu().numpy(), np.float32)

        return in_windows(cells, read_part)

    def soft_values(self, left: Tensor, right: Tensor) -> Tensor:
        """Return M of a batch in one piece, (n, h, w) float32, with gradients to the views.

        left, right: (n, 3, h * patch_px, w * patch_px) RGB, sRGB-encoded, in [0, 1].

        torch.logit() of the result is the paper's sigma^-1(M), the input of its blur-prior
        attention.
        """
        values = []
        if len(self.blur_text):
            values.append(torch.sigmoid(self._blur_cosines(0.5 * (left + right))))
        if len(self.dp_text):
            values.append(self._dp_aware(left, right))
        return torch.cat(values, -1).mean(-1)

    def blur_aware_map(self, pictures: Tensor) -> Tensor:
        """Return M of single pictures by the blur-aware prompts (Eq. 4), (n, h, w) float32.

        pictures: (n, 3, H, W) RGB, sRGB-encoded, in [0, 1]; sides that are no multiples of patch_px
            are resized to the next ones.

        Gradients reach the pictures (the blur-aware loss, Eq. 13).
        """
        return torch.sigmoid(self._blur_cosines(pictures)).mean(-1)

    def blur_aware_logits(self, pictures: Tensor) -> Tensor:
        """Return the logits of blur_aware_map's prompts, which are cosines, averaged; as there."""
        return self._blur_cosines(pictures).mean(-1)

    def _blur_cosines(self, pictures: Tensor) -> Tensor:
        """Return the cosine with each blur-aware prompt, (n, h, w, prompts)."""
        side = self.clip.patch_px
        size = [-(-pixels // side) * side for pixels in pictures.shape[-2:]]
        if size != list(pictures.shape[-2:]):
            pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True)
        return F.normalize(self.clip.dense_features(pictures), dim=-1) @ self.blur_text.T

    def _dp_aware(self, left: Tensor, right: Tensor) -> Tensor:
        """Return Eq. 5 and 6 for each prompt, (n, h, w, prompts).

        The features of mirrored positions are averaged before they are normalised to length 1.
        """
        features = self._pair_features(left, right)
        return 1 - torch.sigmoid(F.normalize(features, dim=-1) @ self.dp_text.T)

    def _pair_features(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the features of both views in the format for dual-pixel-aware prompts."""
        dense = self.clip.dense_features
        if self.dp_format == "left":
            return dense(left)
        if self.dp_format == "mean":
            return dense(0.5 * (left + right))
        if self.dp_format == "above":
            first, second = dense(torch.cat([left, right], -2)).chunk(2, 1)
            return 0.5 * (first + second)
        mirrored = self.dp_format == "mirrored"
        features = dense(torch.cat([left, right.flip(-1) if mirrored else right], -1))
        first, second = features.chunk(2, 2)
        return 0.5 * (first + (second.flip(2) if mirrored else second))

    def _cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of patches of a photo of (height, width), rounded up."""
        scale = min(1.0, (self.read_pixels / (size[0] * size[1])) ** 0.5) / self.clip.patch_px
        # The tolerance keeps a side that comes out as a whole number of patches.
        height, width = (max(1, int(np.ceil(side * scale - 1e-6))) for side in size)
        return height, width


def check_prompts(prompts: tuple[str, ...], dp_format: str = "mirrored") -> None:
    """Raise ValueError for prompts that are none of the eight, and for an unknown format."""
    if unknown := [prompt for prompt in prompts if prompt not in BLUR_AWARE + DP_AWARE]:
        known = ", ".join(map(repr, BLUR_AWARE + DP_AWARE))
        raise ValueError(f"prompt {unknown[0]!r}: expected some of {known}")
    if dp_format not in DP_FORMATS:
        raise ValueError(f"dp_format {dp_format!r}: expected one of {', '.join(DP_FORMATS)}")


def in_windows(
    cells: tuple[int, int],
    read: Callable[[Span, Span], Plane],
    window: int = WINDOW_CELLS,
    overlap: int = OVERLAP_CELLS,
) -> Plane:
    """Assemble a map of (rows, columns) cells from overlapping windows of about equal size.

    read: read(rows, columns) returns a window's part of the map.

    A patch's feature depends on its window, so two windows differ a little where they overlap; they
    are blended by a raised cosine.
    """
    rows, columns = (_windows(count, window, overlap) for count in cells)
    blended = np.zeros(cells, np.float32)
    for row in rows:
        for column in columns:
            weights = blend_weights(row)[:, None] * blend_weights(column)
            part = read(row, column) * weights
            blended[row.start : row.stop, column.start : column.stop] += part
    return blended


def _windows(count: int, window: int, overlap: int) -> list[Span]:
    if count <= window:
        return [Span(0, count, 0, 0)]
    pieces = -(-(count - overlap) // (window - overlap))
    return spans(count, -(-(count + (pieces - 1) * overlap) // pieces), overlap, align=1)


def _resized(view: Picture, cells: tuple[int, int], patch_px: int) -> Picture:
    """Return the view with patch_px pixels a cell, as integers: 45 MP of floats are 0.5 GiB."""
    height, width = cells[0] * patch_px, cells[1] * patch_px
    if view.shape[:2] == (height, width):
        return view
    shrinks = height * width < view.shape[0] * view.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized: Picture = cv2.resize(view, (width, height), interpolation=method)  # type: ignore[assignment]
    if resized.dtype != np.float32:
        return resized
    levels = np.empty(resized.shape, np.uint16)
    for first in range(0, height, patch_px):  # in bands, for a copy less
        band = slice(first, first + patch_px)
        levels[band] = as_float(resized[band]).clip(0, 1) * np.float32(65535) + np.float32(0.5)
    return levels


def _tensor(view: Picture, device: torch.device) -> Tensor:
    """Return (1, 3, H, W), clipped to [0, 1] as CLIP's training pictures are."""
    return torch.from_numpy(as_float(view)).to(device).permute(2, 0, 1)[None].clamp(0, 1)
