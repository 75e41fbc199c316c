"""What results say about how they were made, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpbatch import __version__
from dpbatch.fingerprints import described
from dpbatch.settings import Settings
from dpbatch.types import FileStamp, Photo

if TYPE_CHECKING:
    from dpbatch.output.metadata import ProcessingNote


def opens(path: Path) -> bool:
    """Return whether a result opens. Raises OSError."""
    from dpbatch.output import whole

    return whole.opens(path)


def is_made_from(path: Path, inputs: Sequence[FileStamp], fingerprint: str) -> bool:
    """Return whether a result says that it was made from these files by such a run.

    Files whose hashes are unknown are compared by name. Raises OSError.
    """
    from dpbatch.output.exr import read_exr_note
    from dpbatch.output.metadata import read_note

    note = read_exr_note(path) if path.suffix == ".exr" else read_note(path)
    if note is None or note.fingerprint != fingerprint:
        return False
    if all(file.blake2b for file in inputs):
        return note.source_blake2b == _joined(file.blake2b for file in inputs)
    return note.source == _joined(file.path.rpartition("/")[2] for file in inputs)


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(texts)


def processing_note(
    photo: Photo, settings: Settings, inputs: Sequence[FileStamp], fingerprint: str
) -> ProcessingNote:
    """Return what a photo's results say about how they were made."""
    from dpbatch.output.metadata import ProcessingNote

    return ProcessingNote(
        version=__version__,
        source=_joined(path.name for path in photo.paths),
        settings=described(settings),
        source_blake2b=_joined(file.blake2b for file in inputs),
        fingerprint=fingerprint,
    )
