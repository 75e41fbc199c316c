"""Retries after failures that may be temporary, of the network or of a store under load."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import tenacity

from dpbatch.errors import DISK_FULL

_T = TypeVar("_T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Pause before each new try. The store's own library may retry as well."""

_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError)
_FINAL_NUMBERS = {*DISK_FULL, errno.EILSEQ}


def with_retries(action: Callable[[], _T]) -> _T:
    """Return what `action` returns; call it again after an OSError that may pass.

    Raises the last error; at once where another try cannot help (no such file, no permission, no
    space).
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(1 + len(PAUSES_S)),
        wait=tenacity.wait_chain(*map(tenacity.wait_fixed, PAUSES_S or (0.0,))),
        reraise=True,
    )
    return retrying(action)


def _may_pass(error: BaseException) -> bool:
    is_final = isinstance(error, _FINAL)
    return isinstance(error, OSError) and not is_final and error.errno not in _FINAL_NUMBERS
