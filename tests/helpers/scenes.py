"""Write small dual-pixel raw files whose truth is known, for the tests of every module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.simulator.cr2.layout import CameraTags
from training.simulator.cr2.writer import write_dpraw_cr2

WB_RGGB = (2.0, 1.0, 1.0, 1.5)
BLACK, PHOTODIODE_BLACK, WHITE = 512, 300, 16383


@dataclass(frozen=True)
class Scene:
    """The truth of a test file.

    left_dn, right_dn: (H, W) mosaics of the active area, DN above each frame's black, not rounded
    and not clipped.
    """

    left_dn: npt.NDArray[np.float32]
    right_dn: npt.NDArray[np.float32]
    disparity_px: float


def write_test_dpraw(
    path: Path,
    height: int = 256,
    width: int = 384,
    *,
    disparity_px: float = 2.0,
    level_dn: float = 3000.0,
    highlight: bool = False,
    grey_patch: bool = False,
    noise_dn: float = 0.0,
    photodiode_black: int = PHOTODIODE_BLACK,
    tags: CameraTags | None = None,
    preview_rgb: npt.NDArray[np.uint8] | None = None,
    seed: int = 0,
) -> Scene:
    """Write a coloured texture whose views are `disparity_px` apart (near of focus positive).

    level_dn: the mean green level of the composite.

    highlight: a disk in the middle, of radius height / 8, in which the composite clips and neither
        photodiode does in green.
    grey_patch: the top-left quarter is one even grey.
    noise_dn: standard deviation of independent noise on each photodiode.
    preview_rgb: the camera's picture in the file, (h, w, 3) sRGB; a plain rendering by default.
    """
    rng = np.random.default_rng(seed)
    scene = level_dn * _texture(height, width, rng)
    if grey_patch:
        scene[: height // 2, : width // 2] = level_dn
    if highlight:
        y, x = np.mgrid[:height, :width]
        disk = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 8) ** 2
        scene[disk] = 1.4 * (WHITE - BLACK)
    left, right = (
        _mosaic(_shifted(scene, sign * disparity_px / 2) / np.float32(2))
        + noise_dn * rng.standard_normal((height, width), np.float32)
        for sign in (1, -1)
    )
    write_dpraw_cr2(
        path,
        left,
        right,
        tags=tags,
        wb_rggb=WB_RGGB,
        black_level=BLACK,
        photodiode_black=photodiode_black,
        white_level=WHITE,
        preview_rgb=preview_rgb,
        seed=seed,
    )
    return Scene(left, right, disparity_px)


def write_depth_scene(folder: Path) -> tuple[Path, Path]:
    """Write picture.png, (128, 256) noise of 8 bits, and depth.png of 16 bits; return both paths.

    The depth is black on the left half and white on the right half.
    """
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (128, 256, 3)).astype(np.uint8), (0, 0), 1)
    depth = np.zeros((64, 128), np.uint16)
    depth[:, 64:] = 65535
    assert cv2.imwrite(str(folder / "picture.png"), picture)
    assert cv2.imwrite(str(folder / "depth.png"), depth)
    return folder / "picture.png", folder / "depth.png"


def _texture(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return (H, W, 3) detail of mean 1 within about 0.3 to 1.7, mostly grey with some colour."""

    def blotches(sigma_px: float) -> npt.NDArray[np.float32]:
        noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma_px)
        return (noise / noise.std()).astype(np.float32)

    grey = 0.15 * blotches(2.0) + 0.15 * blotches(8.0)
    colour = np.stack([0.05 * blotches(12.0) for _ in range(3)], axis=-1)
    return np.clip(1 + grey[..., None] + colour, 0.3, 1.7).astype(np.float32)


def _shifted(picture: npt.NDArray[np.float32], dx_px: float) -> npt.NDArray[np.float32]:
    """Move the content to the right by dx_px."""
    matrix = np.array([[1, 0, dx_px], [0, 1, 0]], np.float32)
    size = (picture.shape[1], picture.shape[0])
    moved = cv2.warpAffine(
        picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, np.float32)


def _mosaic(rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return RGGB samples in camera space: divided by the white balance gains."""
    mosaic = np.empty(rgb.shape[:2], np.float32)
    for (row, column), channel, gain in zip(
        ((0, 0), (0, 1), (1, 0), (1, 1)), (0, 1, 1, 2), WB_RGGB, strict=True
    ):
        mosaic[row::2, column::2] = rgb[row::2, column::2, channel] / np.float32(gain)
    return mosaic
