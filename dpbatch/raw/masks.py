"""Read a mask that the user gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch.errors import OutputError, SettingsError, UnreadableError

if TYPE_CHECKING:
    from ldp.types import Plane16


def check_mask(path: str) -> None:
    """Read a mask, before the first photo is restored for it. path: "" for none.

    Raises SettingsError where it is missing or no picture.
    """
    if not path:
        return
    try:
        read_mask(Path(path))
    except OutputError as error:
        raise SettingsError(str(error)) from error


def read_mask(path: Path) -> Plane16:
    """Read a grey picture as (h, w) uint16, 65535 white; of a colour picture its mean.

    Raises OutputError.
    """
    import numpy as np

    from dpbatch.raw.pictures import read_picture
    from ldp.types import as_float, to_uint16

    try:
        picture = as_float(read_picture(path).pixels)
    except UnreadableError as error:
        raise OutputError(f"--mask {error}") from error
    return to_uint16(np.asarray(picture.mean(axis=2), np.float32))
