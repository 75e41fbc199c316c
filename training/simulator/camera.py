"""Simulate a camera on crops of linear light: shading, noise, quantisation, rendering to sRGB.

The random values are sampled where a crop is cut (`sample_camera`, numpy) and applied to a whole
batch where the network is trained (`simulate_camera`, torch), on a GPU at little cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ldp.srgb import encode_srgb_tensor

LEFT, RIGHT, SHARP = slice(0, 3), slice(3, 6), slice(6, 9)
"""Planes of a crop in linear light; after them comes the blur amount."""
# White balance, exposure and picture styles differ between cameras; these are spans, not one model.
_SHADING = 0.04
_NOISY_SHARE = 0.8
_PALETTE_SHARE = 0.3
# A whole picture's palette has 256; fewer of them serve any one crop.
_LOG_COLOURS = (6.0, 8.0)
_JPEG_QUALITIES = (80, 100)


class CameraSample(NamedTuple):
    """The values of one random camera and exposure.

    shading: gain of the left view at the right edge is 1 + shading and at the left edge
        1 - shading, the right view's the other way round: what correcting the shading leaves.
    shot, read: a photodiode's noise has the variance shot * light + read^2, white at 1.
    mosaic: 0, or 1 to 4: which Bayer mosaic correlates the noise; see `mosaicked`.
    levels: a photodiode's number of levels from black to white.
    gamma, contrast: of the curve after sRGB encoding.
    colours: the palette that the views went through, 0 for none.
    jpeg_quality: of the JPEG that a single picture went through, 0 for none; views have none.
    """

    gain: float
    shading: float
    shot: float
    read: float
    mosaic: float
    levels: float
    gamma: float
    contrast: float
    colours: float
    jpeg_quality: float = 0.0


class LinearCrops(NamedTuple):
    """A batch before the camera.

    planes: (B, 10, S, S) float16: left, right, sharp in linear light, and the blur amount.
    cameras: (B, 10) float64 on the CPU, rows of CameraSample.
    seeds: (B,) int64 on the CPU, of the noise.
    """

    planes: Tensor
    cameras: Tensor
    seeds: Tensor


def sample_camera(
    rng: np.random.Generator,
    noise: bool = True,
    mosaic_share: float = 0.0,
    *,
    noise_stops: float = 0.0,
    jpeg_share: float = 0.0,
) -> CameraSample:
    """Sample a camera.

    noise: False samples cameras without noise; True gives most of them noise.
    noise_stops: how many stops the strongest noise lies above that of about ISO 4400.
    mosaic_share: share of the noisy cameras whose noise is correlated between pixels, as a demosaic
        leaves it, in [0, 1].
    jpeg_share: share of all cameras that save their pictures as JPEG, in [0, 1].
    """
    shot = read = 0.0
    mosaic = 0
    gain, shading = rng.uniform(0.6, 1.25), rng.uniform(-_SHADING, _SHADING)
    if noise and rng.random() < _NOISY_SHARE:
        decades = noise_stops * np.log10(2)
        shot = 10 ** rng.uniform(-5.0, -2.9 + decades)
        read = 10 ** rng.uniform(-4.0, -2.5 + decades)
        if rng.random() < mosaic_share:
            mosaic = int(rng.integers(1, 5))
    sample = CameraSample(
        gain=gain,
        shading=shading,
        shot=shot,
        read=read,
        mosaic=mosaic,
        levels=2 ** rng.uniform(12, 14),
        gamma=rng.uniform(0.85, 1.15),
        contrast=rng.uniform(0.0, 0.5),
        colours=round(2 ** rng.uniform(*_LOG_COLOURS)) if rng.random() < _PALETTE_SHARE else 0,
    )
    if jpeg_share and rng.random() < jpeg_share:
        sample = sample._replace(jpeg_quality=float(rng.integers(*_JPEG_QUALITIES)))
    return sample


def simulate_camera(crops: LinearCrops, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a batch into what the network is trained on, float32 on the device.

    Returns views (B, 6, S, S), blur maps (B, 1, S, S) and sharp pictures (B, 3, S, S); views and
    pictures are sRGB-encoded in [0, 1]. A crop's noise follows from its seed alone, whatever else
    is in the batch.
    """
    samples = [CameraSample(*row) for row in crops.cameras.tolist()]
    seeds = crops.seeds.tolist()
    planes = crops.planes.to(device, non_blocking=True)
    cameras = crops.cameras.to(device, torch.float32, non_blocking=True)
    gain, shading, shot, read, _, levels, gamma, contrast, *_ = (
        column.view(-1, 1, 1, 1) for column in cameras.unbind(1)
    )
    light = planes[:, :9].float() * gain
    amount = planes[:, 9:].float()
    ramp = torch.linspace(-1, 1, planes.shape[-1], device=device) * shading
    light[:, LEFT] *= 1 + ramp
    light[:, RIGHT] *= 1 - ramp
    generator = torch.Generator(device)
    views = light[:, :6]
    if any(sample.read for sample in samples):
        noise = torch.zeros_like(views)
        for index, sample in enumerate(samples):
            if sample.read:
                generator.manual_seed(seeds[index])
                noise[index].normal_(generator=generator)
        noise *= (views.clamp_min(0) * shot + read * read).sqrt_()
        for index, sample in enumerate(samples):
            if sample.mosaic:
                noise[index] = mosaicked(noise[index], int(sample.mosaic))
        views += noise
    torch.div((views * levels).round_(), levels, out=views)
    rendered = styled(light, gamma, contrast)
    for index, sample in enumerate(samples):
        if sample.colours:
            generator.manual_seed(seeds[index] + 1)
            for view in (LEFT, RIGHT):
                seen = rendered[index, view]
                rendered[index, view] = in_few_colours(seen, int(sample.colours), generator)
    return rendered[:, :6], amount, rendered[:, SHARP]


def mosaicked(noise: Tensor, phase: int) -> Tensor:
    """Correlate noise as a Bayer mosaic and its bilinear demosaic do: smoother, and less of it.

    noise: (6, H, W), that of both views, even sides. phase: 1 to 4, which of four pixels is the
    first. The pictures themselves stay as a better demosaic leaves them: bilinear ones show seams
    of colour that a network should not learn to reproduce.
    """
    row, column = divmod(phase - 1, 2)
    kept = torch.zeros_like(noise)
    for view in (0, 3):
        kept[view, row::2, column::2] = noise[view, row::2, column::2]
        kept[view + 1, row::2, 1 - column :: 2] = noise[view + 1, row::2, 1 - column :: 2]
        kept[view + 1, 1 - row :: 2, column::2] = noise[view + 1, 1 - row :: 2, column::2]
        kept[view + 2, 1 - row :: 2, 1 - column :: 2] = noise[
            view + 2, 1 - row :: 2, 1 - column :: 2
        ]
    sparse = [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]
    dense = [[0.0, 0.25, 0.0], [0.25, 1.0, 0.25], [0.0, 0.25, 0.0]]
    kernels = torch.tensor([sparse, dense, sparse] * 2, device=noise.device)
    # Reflected at the edge a mosaic goes on as a mosaic.
    padded = functional.pad(kept[None], (1, 1, 1, 1), "reflect")
    return functional.conv2d(padded, kernels[:, None], groups=6)[0]


def in_few_colours(encoded: Tensor, colours: int, generator: torch.Generator) -> Tensor:
    """Reduce a view, (3, H, W) in [0, 1], to the nearest of `colours` of its own colours.

    Many copies of published pairs went through a palette.
    """
    pixels = encoded.reshape(3, -1)
    chosen = torch.randint(pixels.shape[1], (colours,), generator=generator, device=encoded.device)
    palette = pixels[:, chosen]
    # A GPU may multiply float32 with too few bits to tell near colours apart.
    exact = torch.float64 if encoded.is_cuda else torch.float32
    offered = palette.to(exact).T
    squares = (offered * offered).sum(1, keepdim=True)
    # As many at once as a core's cache takes.
    at_once = 1 << 20 if encoded.is_cuda else 1 << 12
    nearest = [
        # The squared distance, less what is the same for every colour.
        torch.addmm(squares, offered, some.to(exact), alpha=-2).min(0).indices
        for some in torch.split(pixels, at_once, 1)
    ]
    return palette[:, torch.cat(nearest)].reshape(encoded.shape)


def single_crop(planes: npt.NDArray[np.float16], camera: CameraSample, seed: int) -> LinearCrops:
    """Return a batch of one; planes: (10, S, S)."""
    return LinearCrops(
        torch.from_numpy(np.ascontiguousarray(planes))[None],
        torch.tensor([camera], dtype=torch.float64),
        torch.tensor([seed]),
    )


def collate(crops: Sequence[LinearCrops]) -> LinearCrops:
    """Concatenate several batches."""
    return LinearCrops(*(torch.cat(parts) for parts in zip(*crops, strict=True)))


def styled(light: Tensor, gamma: Tensor, contrast: Tensor) -> Tensor:
    """Encode to sRGB, then apply a gamma and an S-curve as picture styles do; clip at white."""
    encoded = encode_srgb_tensor(light.clamp(0, 1)).clamp_(0, 1).pow(gamma)
    return encoded + contrast * 2 * encoded * (1 - encoded) * (encoded - 0.5)
