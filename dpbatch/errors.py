"""All exceptions. A message names the file, what was found, what was expected, and what to do.

DpbatchError
    SettingsError              wrong usage or settings                          exit code 2
    AbortError                 nothing could run, or the run had to stop        exit code 3
    PhotoError                 this one photo cannot be done; the batch goes on exit code 1
        NotDualPixelError      an ordinary raw: counted as skipped, not as failed
        UnreadableError        missing, empty, no permission, not a known format
        DamagedError           a known format whose content is broken or inconsistent
        PairMismatchError      two files that should be a left/right pair do not fit each other
        RestoreError           the network could not restore it (unusable pixels, memory)
        OutputError            the result could not be written
            DiskFullError      no space left where the result goes
        WorkerCrashError       the process that worked on the photo died
"""

from __future__ import annotations

import errno
from typing import ClassVar

DISK_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""The errno of an OSError where a disk or a user's quota is full."""


class DpbatchError(Exception):
    """Base of all exceptions that dpbatch raises."""


class SettingsError(DpbatchError):
    """Wrong usage or settings."""


class AbortError(DpbatchError):
    """Nothing could run, or the run had to stop."""


class PhotoError(DpbatchError):
    """This one photo cannot be done. `code` is a stable name that the journal keeps."""

    code: ClassVar[str] = "photo-error"


class NotDualPixelError(PhotoError):
    """A readable raw file without a second frame; `run` counts it as skipped."""

    code = "not-dual-pixel"


class UnreadableError(PhotoError):
    """Missing, empty, not permitted, or not a format that dpbatch reads."""

    code = "unreadable"


class DamagedError(PhotoError):
    """The format is known, its content is broken or contradicts itself."""

    code = "damaged"


class PairMismatchError(PhotoError):
    """Two files that should be a left/right pair do not fit each other."""

    code = "pair-mismatch"


class RestoreError(PhotoError):
    """The network could not restore the photo: unusable pixels, or too little memory."""

    code = "restore"


class OutputError(PhotoError):
    """The result could not be written."""

    code = "output"


class DiskFullError(OutputError):
    """No space is left where the result goes."""

    code = "disk-full"


class WorkerCrashError(PhotoError):
    """The process that worked on the photo died (a crash in native code, or it was killed)."""

    code = "worker-crash"


def too_large(name: str, error: MemoryError) -> UnreadableError:
    """Return the error of a photo that memory does not hold when it is read."""
    reason = str(error) or "out of memory"
    return UnreadableError(
        f"{name}: too large for this machine's memory: {reason}; expected a photo that fits (a "
        "damaged file may claim any size); close other programs or leave the file out with "
        "--exclude"
    )


def needs_two_views(name: str) -> OutputError:
    """Return the error of an ordinary photo of which chosen depths are wanted, or another focus."""
    return OutputError(
        f"{name}: focus control and refocusing work on photos of two views, and this is an "
        "ordinary one; leave it out with --ordinary skip"
    )


def no_raw_colours(name: str) -> RestoreError:
    """Return the error of a pair of pictures of which a DNG is wanted. name: of the left file."""
    return RestoreError(
        f"{name}: a pair of pictures has no raw colours, expected a raw file for --format dng; "
        "use --format tif"
    )
