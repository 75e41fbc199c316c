"""Black levels of a decoded raw frame, measured on its optically black columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpbatch.errors import UnreadableError
from dpbatch.raw.checks import Area, Blacks, Cfa, Mosaic

_EDGE_PX = 8
_MIN_SAMPLES = 500
_MAX_MASKED_NOISE_DN = 256.0
_MIN_LIT_STEP_DN = 4.0
_BLACK_TOLERANCE_DN = 16.0


@dataclass(frozen=True)
class MaskedLevel:
    """Black of each colour index and its noise, in DN, on the masked columns of one frame."""

    black: Blacks
    noise_dn: float


def measure_masked_level(mosaic: Mosaic, cfa: Cfa, visible: Area) -> MaskedLevel | None:
    """Measure the optically black columns on the left of the visible area.

    visible: (top, left, height, width). The columns next to either edge are left out. Returns None
    where the columns are too few, hold one single value (the camera did not store them), or vary
    as much as a picture.
    """
    top, left, height, _ = visible
    first, last = _EDGE_PX, (left - _EDGE_PX) // 2 * 2
    last = _before_light(mosaic[top : top + height, first:last], first)
    black, noise = np.zeros(4), []
    for row, column in np.ndindex(2, 2):
        rows = slice(top + (top + row) % 2, top + height, 2)
        masked = mosaic[rows, first + column : max(last, first) : 2].astype(np.float64).ravel()
        if masked.size < _MIN_SAMPLES:
            return None
        middle = np.median(masked)
        spread = 1.4826 * float(np.median(np.abs(masked - middle)))
        # DN are integers: a spread below 1 is measured as 0 or 1.
        kept = masked[np.abs(masked - middle) <= 4 * max(spread, 1.0)]
        black[cfa[row, column]] = kept.mean()
        noise.append(float(kept.std()))
    noise_dn = max(noise)
    return MaskedLevel(black, noise_dn) if 0 < noise_dn < _MAX_MASKED_NOISE_DN else None


def _before_light(masked: Mosaic, first: int) -> int:
    """Return where the masked columns end: the first column that is brighter than those before."""
    if masked.shape[1] < 4:
        return first
    level = np.median(masked, axis=0)
    dark = level[: level.size // 2]
    limit = np.median(dark) + max(_MIN_LIT_STEP_DN, 3 * float(dark.std()))
    lit = np.flatnonzero(level > limit)
    return first + int(lit[0] if lit.size else level.size) // 2 * 2


@dataclass(frozen=True)
class FrameBlack:
    """Black per colour index and its noise, in DN; noise 0 where it could not be measured.

    notes: remarks. warnings: where the level was not measured.
    """

    level: Blacks
    noise_dn: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_black(
    mosaic: Mosaic, cfa: Cfa, masked: Area, *, stated: Blacks, which: str, name: str
) -> FrameBlack:
    """Measure a frame's black, or take the stated one with a warning.

    The frame's own masked columns take precedence: for several cameras, and always for the second
    frame, LibRaw repeats the MakerNote's value for the composite.

    masked: (top, left, height, width) of the area right of the masked columns. stated: LibRaw's
    black per colour index. which: the frame's name in messages.
    Raises UnreadableError where nothing could be measured and no black is stated.
    """
    measured = measure_masked_level(mosaic, cfa, masked)
    if measured is None:
        if not stated.any():
            raise UnreadableError(
                f"{name}: no black level: {which} frame has no usable masked columns, and the file "
                "states none; its colours would be wrong"
            )
        warning = (
            f"{which} black could not be measured (no usable masked columns); the file's "
            f"{_whole(stated)} used, shadows may have a cast"
        )
        return FrameBlack(stated, 0.0, warnings=(warning,))
    if np.abs(measured.black - stated).max() <= _BLACK_TOLERANCE_DN:
        return FrameBlack(measured.black, measured.noise_dn)
    note = (
        f"{which} black: {_whole(measured.black)} measured on the masked columns and used, "
        f"LibRaw says {_whole(stated)}"
    )
    return FrameBlack(measured.black, measured.noise_dn, (note,))


def _whole(levels: Blacks) -> str:
    return "/".join(f"{level:.0f}" for level in levels)
