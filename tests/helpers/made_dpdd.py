"""A made-up DPDD folder: small scenes in the data set's own layout or in the common repack."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint16]


def made_scene(seed: int, height: int, width: int) -> tuple[Pixels, Pixels, Pixels]:
    """Left, right and sharp, (H, W, 3) uint16 RGB."""
    noise = np.random.default_rng(seed).random((height // 4, width // 4, 3)).astype(np.float32)
    sharp = cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 1.5)
    left, right = np.roll(blurred, 1, axis=1), np.roll(blurred, -1, axis=1)
    return tuple((x * 65535).astype(np.uint16) for x in (left, right, sharp))  # type: ignore[return-value]


def write_dpdd(
    folder: Path, count: int = 3, height: int = 96, width: int = 128, repack: bool = False
) -> Path:
    """Writes `count` training scenes; returns the folder."""
    for index in range(count):
        pictures = made_scene(index, height, width)
        source, target = f"1P0A{917 + 2 * index:04d}", f"1P0A{918 + 2 * index:04d}"
        names = (
            f"train_l/source/{source}_L.png",
            f"train_r/source/{source}_R.png",
            f"train_c/target/{target}.png",
        )
        if repack:
            names = tuple(f"train/{part}/{source}.png" for part in ("inputL", "inputR", "target"))  # type: ignore[assignment]
        for name, picture in zip(names, pictures, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / name), picture[..., ::-1])
    return folder
