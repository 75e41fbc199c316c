"""Files of an earlier choice that stay beside a photo's new picture, such as its layers.

They are named and not removed: a map of the depths may be wanted for a picture with another look.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from dpbatch.batch.journal import Past
from dpbatch.batch.results import Results
from dpbatch.types import Outcome, Status


def with_stale_files(outcome: Outcome, past: Past | None, results: Results) -> Outcome:
    """Return a photo's outcome with a warning that names the files that an earlier run wrote for
    it and this one did not.

    past: what the journal knew of the photo's target before.
    """
    if outcome.status is not Status.DONE or outcome.saved is None:
        return outcome
    written = {results.output.name_of(path) for path in outcome.saved.outputs}
    names = ", ".join(PurePosixPath(name).name for name in _there(past, results, written))
    if not names:
        return outcome
    warning = f"left by an earlier run with other settings, and not of this picture: {names}"
    warnings = (*outcome.saved.warnings, warning)
    return replace(outcome, saved=replace(outcome.saved, warnings=warnings))


def _there(past: Past | None, results: Results, written: set[str]) -> Iterator[str]:
    for file in past.done.outputs if past is not None and past.done is not None else ():
        with contextlib.suppress(OSError):  # a warning less
            if file.path not in written and results.exists(file.path):
                yield file.path
