"""Simulate what an ordinary camera makes of a rendered scene: the composite of the two views."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from training.simulator.camera import (
    LEFT,
    RIGHT,
    SHARP,
    CameraSample,
    LinearCrops,
    in_few_colours,
    mosaicked,
    styled,
)

_GREEN = 1
_LEVEL_ERROR = 0.25
"""Standard deviation of the logarithm of the given level, since users get an estimated one."""


def simulate_composite(crops: LinearCrops, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a batch into what a network of one view is trained on, float32 on the device.

    Returns composites (B, 3, S, S), noise levels (B, 1, S, S) and sharp pictures (B, 3, S, S);
    composites and pictures are sRGB-encoded in [0, 1]. A level is that of the noise in the encoded
    green, see `noise_level`, with a random error. A crop's noise follows from its seed alone.
    """
    samples = [CameraSample(*row) for row in crops.cameras.tolist()]
    planes = crops.planes.to(device, non_blocking=True)
    cameras = crops.cameras.to(device, torch.float32, non_blocking=True)
    gain, _, shot, read, _, levels, gamma, contrast, *_ = (
        column.view(-1, 1, 1, 1) for column in cameras.unbind(1)
    )
    light = planes[:, :9].float() * gain
    clean = (light[:, LEFT] + light[:, RIGHT]) / 2
    generator = torch.Generator(device)
    noise = torch.zeros_like(clean)
    for index, (sample, seed) in enumerate(zip(samples, crops.seeds.tolist(), strict=True)):
        if sample.read:
            generator.manual_seed(seed)
            noise[index].normal_(generator=generator)
    # The mean of two photodiodes has half the variance of one.
    noise *= ((clean.clamp_min(0) * shot + read * read) / 2).sqrt_()
    for index, sample in enumerate(samples):
        if sample.mosaic:
            noise[index] = mosaicked(noise[index].repeat(2, 1, 1), int(sample.mosaic))[:3]
    seen = torch.round((clean + noise) * levels) / levels
    rendered = styled(torch.cat([seen, clean, light[:, SHARP]], 1), gamma, contrast)
    composite, encoded_clean, sharp = torch.split(rendered, 3, 1)
    composite = composite.contiguous()
    for index, (sample, seed) in enumerate(zip(samples, crops.seeds.tolist(), strict=True)):
        if sample.colours:
            generator.manual_seed(seed + 1)
            composite[index] = in_few_colours(composite[index], int(sample.colours), generator)
        if sample.jpeg_quality:
            composite[index] = through_jpeg(composite[index], int(sample.jpeg_quality))
    level = noise_level((composite - encoded_clean)[:, _GREEN])
    for index, seed in enumerate(crops.seeds.tolist()):
        level[index] *= float(np.exp(np.random.default_rng(seed).normal(0, _LEVEL_ERROR)))
    planes_of_level = level.view(-1, 1, 1, 1).expand(-1, 1, *composite.shape[-2:]).contiguous()
    return composite, planes_of_level, sharp


def noise_level(noise: Tensor) -> Tensor:
    """Return the level (B,) of noise (B, H, W), as ldp.restore.noise estimates it in a picture.

    That is the standard deviation of white noise; noise that a demosaic or a JPEG left, which is
    smoother, has a lower level.
    """
    along_x = noise[..., :-2] - 2 * noise[..., 1:-1] + noise[..., 2:]
    both = along_x[:, :-2] - 2 * along_x[:, 1:-1] + along_x[:, 2:]
    return both.abs().flatten(1).median(1).values / (0.6745 * 6)


def through_jpeg(encoded: Tensor, quality: int) -> Tensor:
    """Return a picture, (3, H, W) in [0, 1], as a JPEG of a quality from 1 to 100 leaves it."""
    rgb = (encoded.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    setting = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, packed = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), setting)
    decoded = torch.from_numpy(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)))
    return decoded.flip(2).permute(2, 0, 1).to(encoded.device).float() / 255
