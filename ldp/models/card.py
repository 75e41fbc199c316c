"""What the card beside a weights file says: NAME.md beside NAME.safetensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """licence: "" where no card names one. training_radius_px: None where no card gives it."""

    licence: str = ""
    training_radius_px: float | None = None


def read_card(weights: Path) -> Card:
    """Read the lines `Licence: ...` and `Training radius: N px` of a weights file's card.

    An absent card is an empty one.
    """
    path = weights.with_suffix(".md")
    if not path.is_file():
        return Card()
    text = path.read_text(encoding="utf-8")
    licence = _line(text, r"Licen[cs]e")
    radius = re.match(r"\d+(\.\d+)?", _line(text, r"Training radius"))
    return Card(licence, float(radius[0]) if radius else None)


def _line(text: str, name: str) -> str:
    found = re.search(rf"^[-* ]*{name}[:*]+ *(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
