"""Describe a raw file: camera, frames, levels, clipping."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpbatch.errors import DamagedError, UnreadableError
from dpbatch.raw.cells import CFA_POSITIONS
from dpbatch.raw.clipping import ClipLevels
from dpbatch.raw.container import OTHER_RAW_SUFFIXES, Container, probe
from dpbatch.raw.frames import RawPair
from dpbatch.raw.ordinary import picture_size
from dpbatch.raw.reader import read_dual
from dpbatch.terminal import printable
from dpbatch.tools.camera import Camera, read_camera

# Signal of the composite above which the share of a photodiode is measured.
_SIGNAL_DN = 200.0


@dataclass(frozen=True)
class Frames:
    """Measurements on the two frames of a dual-pixel raw.

    size, active_size: (width, height) in photosites. active_origin: (left, top) of the active area.
    composite_black, photodiode_black: DN of each colour index. white_level: DN, black included.
    composite_clip_level, photodiode_clip_level: DN of each colour index at which clipped samples
    pile up, black included; None for a colour without clipped samples.
    composite_clipped, photodiode_clipped: share of the samples of the active area, in [0, 1].
    photodiode_share: median of photodiode / composite above black, near 0.5, over samples with
        signal that are not clipped; None if there are none.
    orientation: EXIF, 1 to 8.
    """

    size: tuple[int, int]
    active_size: tuple[int, int]
    active_origin: tuple[int, int]
    composite_black: tuple[float, ...]
    photodiode_black: tuple[float, ...]
    white_level: float
    composite_clip_level: tuple[float | None, ...]
    photodiode_clip_level: tuple[float | None, ...]
    composite_clipped: float
    photodiode_clipped: float
    photodiode_share: float | None
    orientation: int


@dataclass(frozen=True)
class Inspection:
    """format: cr2, cr3, crw, or another maker's, as the file's suffix names it. frames: None for an
    ordinary raw. notes: warnings and remarks."""

    file: str
    format: str
    is_dual_pixel: bool
    camera: Camera
    frames: Frames | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a table of two columns; fields without a value are left out."""
        lines = [
            ("file", self.file),
            ("dual pixel", "yes" if self.is_dual_pixel else "no: one raw frame"),
            ("camera", self.camera.name),
            *(
                (name.replace("_", " "), value)
                for name, value in list(asdict(self.camera).items())[2:]
            ),
        ]
        if self.frames is not None:
            lines += _frame_lines(self.frames)
        lines += [("note", note) for note in self.notes]
        width = max(len(name) for name, _ in lines)
        rows = (f"{name:<{width}}  {value}" for name, value in lines if value)
        return "\n".join(map(printable, rows))


def inspect(path: Path) -> Inspection:
    """Describe a raw file; decode and measure its frames if it has two.

    Metadata that cannot be read becomes a note. Raises UnreadableError and DamagedError.
    """
    is_canons = path.suffix.lower() not in OTHER_RAW_SUFFIXES
    container = probe(path) if is_canons else Container(path.suffix[1:].lower(), 1)
    notes: list[str] = []
    camera, quality = Camera(container.make, container.model), ""
    try:
        camera, quality = read_camera(path, container.format)
    except (UnreadableError, DamagedError) as error:
        notes.append(str(error))
    frames = None
    if not is_canons:
        notes.append("{} x {} pixels".format(*picture_size(path)))
    if not container.is_dual_pixel:
        notes.append("one view: skipped by `dpbatch run`, or restored with --ordinary single")
    if container.is_dual_pixel:
        pair = read_dual(path)
        frames = measure_frames(pair)
        notes += pair.warnings + pair.notes
        if container.format == "cr3" and quality != "RAW":
            kind = "lossy C-RAW" if quality == "CRAW" else "lossless or lossy, not known which"
            notes.append(f"{kind}: left + right may differ a little from the composite")
    return Inspection(
        path.name, container.format, container.is_dual_pixel, camera, frames, tuple(notes)
    )


def measure_frames(pair: RawPair) -> Frames:
    """Measure the levels, clipped shares and balance of two decoded frames."""
    top, left, height, width = pair.active
    photodiode_shares = []
    clipped: list[npt.NDArray[np.bool_]] = []
    second_clipped: list[npt.NDArray[np.bool_]] = []
    for row, column in CFA_POSITIONS:
        color = pair.cfa[row, column]
        composite = pair.composite[row::2, column::2]
        photodiode = pair.photodiode[row::2, column::2]
        composite_dn = composite - np.float32(pair.composite_black[color])
        photodiode_dn = photodiode - np.float32(pair.photodiode_black[color])
        usable = (composite_dn > _SIGNAL_DN) & (composite < pair.composite_clip.start[color])
        usable &= photodiode < pair.photodiode_clip.start[color]
        clipped.append(composite >= pair.composite_clip.full[color])
        second_clipped.append(photodiode >= pair.photodiode_clip.full[color])
        photodiode_shares.append(photodiode_dn[usable] / composite_dn[usable])
    shares = np.concatenate(photodiode_shares)
    return Frames(
        size=(pair.frame_size[1], pair.frame_size[0]),
        active_size=(width, height),
        active_origin=(left, top),
        composite_black=tuple(round(float(black), 2) for black in pair.composite_black),
        photodiode_black=tuple(round(float(black), 2) for black in pair.photodiode_black),
        white_level=float(pair.white_level),
        composite_clip_level=_levels_or_none(pair.composite_clip),
        photodiode_clip_level=_levels_or_none(pair.photodiode_clip),
        composite_clipped=float(np.mean(clipped)),
        photodiode_clipped=float(np.mean(second_clipped)),
        photodiode_share=round(float(np.median(shares)), 4) if shares.size else None,
        orientation=pair.orientation,
    )


def _levels_or_none(clip: ClipLevels) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(level) else float(level) for level in clip.pile)


def _frame_lines(frames: Frames) -> list[tuple[str, str]]:
    def levels(black: tuple[float, ...]) -> str:
        return " ".join(f"{level:g}" for level in black)

    def clip_levels(found: tuple[float | None, ...]) -> str:
        if found.count(None) == len(found):
            return "nothing clipped"
        return " ".join("-" if level is None else f"{level:g}" for level in found)

    share = frames.photodiode_share
    return [
        ("frame size", "{} x {}".format(*frames.size)),
        ("active area", "{} x {} at {}, {}".format(*frames.active_size, *frames.active_origin)),
        ("orientation", str(frames.orientation)),
        ("composite black", levels(frames.composite_black)),
        ("photodiode black", levels(frames.photodiode_black)),
        ("white level", f"{frames.white_level:g}"),
        ("composite clips at", clip_levels(frames.composite_clip_level)),
        ("composite clipped", f"{frames.composite_clipped:.3%}"),
        ("photodiode clips at", clip_levels(frames.photodiode_clip_level)),
        ("photodiode clipped", f"{frames.photodiode_clipped:.3%}"),
        (
            "photodiode / composite",
            "no usable signal" if share is None else f"{share:.3f} (median)",
        ),
    ]
