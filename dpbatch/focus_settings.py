"""Which depths of a photo are sharp: those that are restored, or those of another focus."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from dpbatch.errors import SettingsError

RESCUES = ("all", "subject")
LARGEST_PX = 1000
"""No photo has larger disparities."""
NOT_IN_PIXELS = {"pixels": False}
"""Of a setting that `dpbatch.fingerprints` does not count."""
IN_PIXELS_IF_CHANGED = {"pixels": "if changed"}
"""Of a setting of a later release: at its default it leaves the fingerprints of earlier results
valid."""
_NUMBER = r"([+-]?\d+(?:\.\d+)?)"
_RANGE = re.compile(rf"\s*{_NUMBER}(%?)\s*:\s*{_NUMBER}(%?)\s*")


@dataclass(frozen=True)
class FocusSettings:
    """The part of a photo that is restored, by default all; or how all of it is drawn anew."""

    rescue: str = "all"
    """all, or subject: the depth at the camera's AF area, or else of the sharpest large region."""
    focus_range: str = ""
    """NEAR:FAR, disparities in px such as 3:-1, or shares of the photo from its nearest point on,
    such as 10%:40%."""
    keep_background: bool = False
    """Leave what lies behind the focus plane as it is."""
    keep_foreground: bool = False
    """Leave what lies before the focus plane as it is."""
    mask: str = field(default="", metadata=NOT_IN_PIXELS)
    """A grey picture in the geometry of the result; white is restored."""
    strength: float = 1.0
    """Share of the restoration that is kept, 0 to 1."""
    refocus: str = field(default="", metadata=IN_PIXELS_IF_CHANGED)
    """PX: the disparity of the depth that is sharp as if the lens had been focused there."""
    bokeh_shift: float = field(default=0.0, metadata=IN_PIXELS_IF_CHANGED)
    """By how many px the strongest blur moves, near things to the right and far ones to the left;
    negative the other way."""

    def __post_init__(self) -> None:
        if self.rescue not in RESCUES:
            raise SettingsError(f"rescue {self.rescue!r}: expected one of {', '.join(RESCUES)}")
        if not 0 <= self.strength <= 1:  # true for NaN too
            raise SettingsError(f"strength {self.strength:g}: expected 0 to 1")
        if self.focus_range:
            parse_range(self.focus_range)
            if self.rescue != "all":
                raise SettingsError("rescue subject and focus_range: give one of the two")
        if self.keep_background and self.keep_foreground and self.rescue == "all":
            raise SettingsError(
                "keep_background and keep_foreground leave nothing to restore; give one of the two"
            )
        self._check_redrawing()

    def _check_redrawing(self) -> None:
        for name, px in (("refocus", self.refocus_px or 0.0), ("bokeh_shift", self.bokeh_shift)):
            if not math.isfinite(px):
                raise SettingsError(f"{name} {px:g}: expected a finite number")
            if abs(px) > LARGEST_PX:
                raise SettingsError(f"{name} {px:g}: expected {-LARGEST_PX} to {LARGEST_PX} px")
        if self.redraws and replace(self, refocus="", bokeh_shift=0.0) != FocusSettings():
            name = "refocus" if self.refocus else "bokeh_shift"
            raise SettingsError(
                f"{name} draws the whole restored photo anew; leave out rescue, focus_range, "
                "keep_background, keep_foreground, mask and strength"
            )

    @property
    def is_everything(self) -> bool:
        """Whether the whole photo is restored, with full strength."""
        return self == FocusSettings()

    @property
    def refocus_px(self) -> float | None:
        """The disparity of the chosen focus; None for none. Raises SettingsError."""
        if not self.refocus:
            return None
        try:
            return float(self.refocus)
        except ValueError as error:
            raise SettingsError(
                f"refocus {self.refocus!r}: expected a disparity in px, such as 3 or -1.5 (near of "
                "the focus plane is positive)"
            ) from error

    @property
    def redraws(self) -> bool:
        """Whether the restored photo is drawn anew, with another focus or moved bokeh."""
        return bool(self.refocus) or self.bokeh_shift != 0

    @property
    def needs_depth(self) -> bool:
        """Whether the disparity of the photo decides."""
        by_side = self.keep_background or self.keep_foreground
        return self.rescue != "all" or bool(self.focus_range) or by_side or self.redraws


def mask_blake2b(settings: FocusSettings) -> str:
    """Return the hash of the mask's content, "" without one: another mask makes results outdated.

    Raises SettingsError where it cannot be read.
    """
    if not settings.mask:
        return ""
    try:
        content = Path(settings.mask).read_bytes()
    except OSError as error:
        raise SettingsError(f"mask {settings.mask}: cannot be read: {error.strerror}") from error
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class FocusRange:
    """near, far: disparities in px, near of the focus positive, or shares of the photo from its
    nearest point on, in [0, 1]."""

    near: float
    far: float
    is_share: bool


def parse_range(text: str) -> FocusRange:
    """Return the range of NEAR:FAR. Raises SettingsError."""
    match = _RANGE.fullmatch(text)
    if match is None or match[2] != match[4]:
        raise SettingsError(
            f"focus_range {text!r}: expected NEAR:FAR in px of disparity, such as 3:-1, or in "
            "shares of the photo, such as 10%:40%"
        )
    near, far, is_share = float(match[1]), float(match[3]), match[2] == "%"
    if is_share:
        if not 0 <= near < far <= 100:
            raise SettingsError(
                f"focus_range {text!r}: expected shares that rise from near to far, 0% to 100%"
            )
        return FocusRange(near / 100, far / 100, True)
    if not math.isfinite(near) or near <= far:
        raise SettingsError(
            f"focus_range {text!r}: expected disparities that fall from near to far (near of the "
            "focus plane is positive), such as 3:-1"
        )
    return FocusRange(near, far, False)
