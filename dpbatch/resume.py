"""Whether a photo still has to be worked on, and whether what is at its target may be replaced."""

from __future__ import annotations

from pathlib import Path

from dpbatch.engine.stages import Outcome, Status
from dpbatch.journal import Past, same_content, unchanged
from dpbatch.photo import Job


def why_skip(
    job: Job,
    past: Past | None,
    fingerprint: str,
    *,
    out: Path,
    overwrite: bool = False,
    retry_failed: bool = False,
) -> Outcome | None:
    """Why a photo is not to be worked on, None where it is.

    past: what the journal of `out` knows of the photo's target. fingerprint: this run's.

    Done means: the same input content, the same fingerprint, all outputs still there. A file that
    lies at a target is replaced only if dpbatch made it, from this photo, and nobody has changed it
    since; `overwrite` replaces it in any case.
    """
    is_done = past is not None and _is_done(job, past, fingerprint, out)
    if retry_failed and (past is None or past.last.status != "failed"):
        if is_done:
            return _skip(job, "already-done", "already done")
        return _skip(job, "not-failed", "has not failed before, and --retry-failed was given")
    existing = next((path for path in job.outputs if path.exists()), None)
    if overwrite or existing is None:
        return None
    if is_done:
        return _skip(job, "already-done", "already done")
    was_interrupted = past is not None and past.last.status == "started"
    if past is None or (past.done is None and not was_interrupted):
        return _skip(
            job,
            "target-exists",
            f"{existing} exists and was not made by dpbatch; --overwrite replaces it",
        )
    if not _is_of_same_photo(job, past):
        return _skip(
            job,
            "target-exists",
            f"{existing} was made from {past.last.source}; give another --out or --template",
        )
    # After an interruption an output may be newer than its record, and is ours all the same.
    if past.done is not None and not was_interrupted and not unchanged(past.done.outputs, out):
        return _skip(
            job,
            "target-changed",
            f"{existing} was changed after dpbatch wrote it; --overwrite replaces it",
        )
    return None


def _is_done(job: Job, past: Past, fingerprint: str, out: Path) -> bool:
    last = past.last
    return (
        last.status == "done"
        and last.fingerprint == fingerprint
        and all((out / output.path).exists() for output in last.outputs)
        and same_content(last.inputs, job.photo.paths)
    )


def _is_of_same_photo(job: Job, past: Past) -> bool:
    """By its place; or, where the photos have been moved, by its content."""
    if past.last.source == str(job.photo.paths[0]):
        return True
    return past.done is not None and same_content(past.done.inputs, job.photo.paths)


def _skip(job: Job, code: str, reason: str) -> Outcome:
    return Outcome(Status.SKIPPED, "scan", code, f"{job}: {reason}")
