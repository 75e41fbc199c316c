"""Whether a photo still has to be worked on, and whether what is at its target may be replaced."""

from __future__ import annotations

from pathlib import Path

from dpbatch.batch.journal import Past, Record
from dpbatch.errors import NotDualPixelError
from dpbatch.storage.stamps import Stamper, same_content, stamp, unchanged
from dpbatch.storage.urls import location
from dpbatch.types import Job, Outcome, Status


def why_skip(
    job: Job,
    past: Past | None,
    fingerprint: str,
    *,
    out: Path,
    overwrite: bool = False,
    retry_failed: bool = False,
    stamp_of: Stamper = stamp,
) -> Outcome | None:
    """Why a photo is not to be worked on, None where it is.

    past: what the journal of `out` knows of the photo's target. fingerprint: this run's.
    stamp_of: what says whether a file is there, and how it is.

    Done means: the same input content, the same fingerprint, all outputs still there. A file that
    lies at a target is replaced only if dpbatch made it, from this photo, and nobody has changed it
    since; `overwrite` replaces it in any case.
    """
    if past is not None and _is_ordinary(job, past, stamp_of):
        return Outcome(Status.SKIPPED, "scan", past.last.code, past.last.message)
    is_done = past is not None and _is_done(job, past, fingerprint, out, stamp_of)
    if retry_failed and (past is None or past.last.status != "failed"):
        if is_done:
            return _skip(job, "already-done", "already done")
        return _skip(job, "not-failed", "has not failed before, and --retry-failed was given")
    existing = next((path for path in job.outputs if _exists(path, stamp_of)), None)
    if overwrite or existing is None:
        return None
    if is_done:
        return _skip(job, "already-done", "already done")
    was_interrupted = past is not None and _was_interrupted(past.last)
    if past is None or (past.done is None and not was_interrupted):
        return _skip(
            job,
            "target-exists",
            f"{location(existing)} exists and was not made by dpbatch; --overwrite replaces it",
        )
    if not _is_of_same_photo(job, past, stamp_of):
        return _skip(
            job,
            "target-exists",
            f"{location(existing)} was made from {past.last.source}; give another --out or "
            "--template",
        )
    # After an interruption an output may be newer than its record, and is ours all the same.
    is_ours = was_interrupted or past.done is None or unchanged(past.done.outputs, out, stamp_of)
    if not is_ours:
        return _skip(
            job,
            "target-changed",
            f"{location(existing)} was changed after dpbatch wrote it; --overwrite replaces it",
        )
    return None


def _was_interrupted(last: Record) -> bool:
    """Whether the last run was about to write the outputs: it had found them replaceable."""
    return last.status == "started" or (last.status == "failed" and last.stage == "save")


def _is_done(job: Job, past: Past, fingerprint: str, out: Path, stamp_of: Stamper) -> bool:
    last = past.last
    return (
        last.status == "done"
        and last.fingerprint == fingerprint
        and all(_exists(out / output.path, stamp_of) for output in last.outputs)
        and same_content(last.inputs, job.photo.paths, stamp_of)
    )


def _is_ordinary(job: Job, past: Past, stamp_of: Stamper) -> bool:
    """Whether a run has found no second frame in this very file. Only of files that had to be
    fetched to find that out are there stamps; of those here a look tells."""
    last = past.last
    return last.code == NotDualPixelError.code and same_content(
        last.inputs, job.photo.paths, stamp_of
    )


def _is_of_same_photo(job: Job, past: Past, stamp_of: Stamper) -> bool:
    """By its place; or, where the photos have been moved, by its content."""
    if past.last.source == location(job.photo.paths[0]):
        return True
    return past.done is not None and same_content(past.done.inputs, job.photo.paths, stamp_of)


def _exists(path: Path, stamp_of: Stamper) -> bool:
    try:
        stamp_of(path, False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _skip(job: Job, code: str, reason: str) -> Outcome:
    return Outcome(Status.SKIPPED, "scan", code, f"{job}: {reason}")
