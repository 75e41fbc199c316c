"""Whether a photo still has to be worked on, and whether what is at its target may be replaced."""

from __future__ import annotations

from dataclasses import dataclass

from dpbatch.batch.journal import Past, Record
from dpbatch.errors import NotDualPixelError
from dpbatch.location import Location
from dpbatch.storage.base import InputSource, OutputFolder
from dpbatch.storage.stamps import same_content, unchanged
from dpbatch.types import Job, Outcome, Status


@dataclass(frozen=True)
class Resume:
    """Decides which photos a run processes.

    fingerprint: the run's. overwrite: replace what lies at a target in any case. retry_failed: only
    work on what failed before.
    """

    source: InputSource[Location]
    output: OutputFolder
    fingerprint: str
    overwrite: bool = False
    retry_failed: bool = False

    def why_skip(self, job: Job[Location], past: Past | None) -> Outcome | None:
        """Return why a photo is skipped, None where it is not.

        past: what the journal knows of the photo's target.

        Done means: the same input content, the same fingerprint, all outputs still there. A file
        that lies at a target is replaced only if dpbatch made it, from this photo, and nobody has
        changed it since; `overwrite` replaces it in any case.
        """
        if past is not None and self._is_ordinary(job, past):
            return Outcome(Status.SKIPPED, "scan", past.last.code, past.last.message)
        is_done = past is not None and self._is_done(job, past)
        if self.retry_failed and (past is None or past.last.status != "failed"):
            if is_done:
                return _skip(job, "already-done", "already done")
            return _skip(job, "not-failed", "has not failed before, and --retry-failed was given")
        existing = next(filter(self._exists, map(self.output.name_of, job.outputs)), None)
        if self.overwrite or existing is None:
            return None
        if is_done:
            return _skip(job, "already-done", "already done")
        return self._why_keep(job, past, str(self.output.root / existing))

    def _why_keep(self, job: Job[Location], past: Past | None, existing: str) -> Outcome | None:
        """Return why the file at a target may not be replaced, None where it may."""
        was_interrupted = past is not None and _was_interrupted(past.last)
        if past is None or (past.done is None and not was_interrupted):
            why = f"{existing} exists and was not made by dpbatch; --overwrite replaces it"
            return _skip(job, "target-exists", why)
        if not self._is_of_same_photo(job, past):
            why = f"{existing} was made from {past.last.source}; give another --out or --template"
            return _skip(job, "target-exists", why)
        # After an interruption an output may be newer than its record, and is ours all the same.
        if was_interrupted or past.done is None or unchanged(past.done.outputs, self.output.stamp):
            return None
        why = f"{existing} was changed after dpbatch wrote it; --overwrite replaces it"
        return _skip(job, "target-changed", why)

    def _is_done(self, job: Job[Location], past: Past) -> bool:
        last = past.last
        return (
            last.status == "done"
            and last.fingerprint == self.fingerprint
            and all(self._exists(output.path) for output in last.outputs)
            and same_content(last.inputs, job.photo.paths, self.source.stamp)
        )

    def _is_ordinary(self, job: Job[Location], past: Past) -> bool:
        """Return whether an earlier run has found no second frame in this file.

        Only files that had to be fetched for that have stamps; local files are probed anew.
        """
        is_known = past.last.code == NotDualPixelError.code
        return is_known and same_content(past.last.inputs, job.photo.paths, self.source.stamp)

    def _is_of_same_photo(self, job: Job[Location], past: Past) -> bool:
        """Compare by the photo's path; where photos have been moved, by content."""
        if past.last.source == str(job.photo.paths[0]):
            return True
        known = past.done.inputs if past.done is not None else ()
        return same_content(known, job.photo.paths, self.source.stamp)

    def _exists(self, name: str) -> bool:
        try:
            self.output.stamp(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def _was_interrupted(last: Record) -> bool:
    """Return whether the last run was about to write the outputs: they were replaceable then."""
    return last.status == "started" or (last.status == "failed" and last.stage == "save")


def _skip(job: Job[Location], code: str, reason: str) -> Outcome:
    return Outcome(Status.SKIPPED, "scan", code, f"{job}: {reason}")
