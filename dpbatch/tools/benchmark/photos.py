"""Make Dual Pixel RAW files of any size to measure with, a part of each in focus."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dpbatch.errors import SettingsError
from ldp.types import FloatArray
from training.simulator.cr2.writer import write_dpraw_cr2
from training.simulator.optics import EOS_5D_MARK_IV_KERNEL, view_kernels

_WB_RGGB = (2.0, 1.0, 1.0, 1.5)
_DARKEST_DN, _BRIGHTEST_DN = 150.0, 7000.0  # of one photodiode; the composite has twice as much
_DETAIL_PX = (4, 16, 64, 256)
_ELECTRONS_PER_DN = 2.5
_READ_NOISE_DN = 2.0


def write_photos(folder: Path, size_px: tuple[int, int], count: int, in_focus: float) -> None:
    """Write IMG_0000.CR2 and so on: a grey texture in focus at the left, blurred at the right.

    size_px: (width, height) of the active area. in_focus: share of the width, 0 to 1. The radius of
    the blur is width / 400, 20 px at 45 MP. Raises SettingsError for a size that a CR2 cannot have.
    """
    width, height = size_px
    for number in range(count):
        rng = np.random.default_rng(number)
        left, right = _views(_texture(rng, width, height), in_focus)
        mosaics = [_mosaic(view, rng) for view in (left, right)]
        try:
            write_dpraw_cr2(
                folder / f"IMG_{number:04}.CR2", *mosaics, wb_rggb=_WB_RGGB, seed=number
            )
        except ValueError as error:
            raise SettingsError(f"size {width}x{height}: {error}") from error


def _texture(rng: np.random.Generator, width: int, height: int) -> FloatArray:
    """Return a grey picture with detail of several sizes, in DN above black."""
    total = np.zeros((height, width), np.float32)
    for cell_px in _DETAIL_PX:
        cells = rng.random((height // cell_px + 2, width // cell_px + 2), np.float32)
        total += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    total -= total.min()
    total *= np.float32((_BRIGHTEST_DN - _DARKEST_DN) / max(float(total.max()), 1e-6))
    total += np.float32(_DARKEST_DN)
    return total


def _views(sharp: FloatArray, in_focus: float) -> list[FloatArray]:
    """Return what the left and the right photodiodes see of a picture."""
    width = sharp.shape[1]
    first = round(width * in_focus)
    views = [sharp.copy(), sharp.copy()]
    if first < width:
        for view, kernel in zip(
            views, view_kernels(width / 400, EOS_5D_MARK_IV_KERNEL), strict=True
        ):
            # filter2D correlates: a convolution turns the kernel.
            turned = np.ascontiguousarray(kernel[::-1, ::-1])
            view[:, first:] = cv2.filter2D(sharp, -1, turned, borderType=cv2.BORDER_REFLECT_101)[
                :, first:
            ]
    return views


def _mosaic(view: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return what a photodiode of each site measures, with noise; changes the view."""
    gains = np.array(_WB_RGGB, np.float32).reshape(2, 2)
    for row, column in np.ndindex(2, 2):
        view[row::2, column::2] /= gains[row, column]
    noise = rng.standard_normal(view.shape, np.float32)
    noise *= np.sqrt(np.maximum(view, 0) / np.float32(_ELECTRONS_PER_DN) + _READ_NOISE_DN**2)
    noise += view
    return noise
