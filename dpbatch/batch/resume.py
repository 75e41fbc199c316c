"""Whether a photo still has to be worked on, and whether what is at its target may be replaced."""

from __future__ import annotations

from dataclasses import dataclass

from dpbatch.batch.journal import Past, Record
from dpbatch.batch.results import Results, State
from dpbatch.errors import NotDualPixelError
from dpbatch.location import Location
from dpbatch.storage.base import InputSource
from dpbatch.storage.stamps import same_content
from dpbatch.types import Job, Outcome, Saved, Status


@dataclass(frozen=True)
class Resume:
    """Decides which photos a run processes.

    fingerprint: the run's. ordinary: that of ordinary photos, "" where they are skipped.
    earlier: those of results that an earlier release made with the same settings: they have other
    pixels, and are kept all the same. overwrite: replace what lies at a target in any case.
    retry_failed: only work on what failed before.
    """

    source: InputSource[Location]
    results: Results
    fingerprint: str
    ordinary: str = ""
    earlier: tuple[str, ...] = ()
    overwrite: bool = False
    retry_failed: bool = False

    def why_skip(self, job: Job[Location], past: Past | None) -> Outcome | None:
        """Return why a photo is skipped, None where it is not.

        past: what the journal knows of the photo's target.

        Done means: the same input content, the same fingerprint, all outputs there and none of them
        damaged. A file that lies at a target is replaced only if dpbatch made it, from this photo,
        and nobody has changed it since; `overwrite` replaces it in any case. Outputs that somebody
        has changed are named in the outcome's warnings. The outcome lists the outputs where their
        metadata alone show that they are done, for the journal.
        """
        if past is not None and self._is_ordinary(job, past):
            return Outcome(Status.SKIPPED, "scan", past.last.code, past.last.message)
        done = self._done(job, past) if past is not None else None
        if self.retry_failed and (past is None or past.last.status != "failed"):
            why = "has not failed before, and --retry-failed was given"
            return done or _skip(job, "not-failed", why)
        names = self._names(job)
        existing = next(filter(self.results.exists, names), None)
        if self.overwrite or existing is None:
            return None
        return done or self._why_keep(job, past, self._shown(existing))

    def _why_keep(self, job: Job[Location], past: Past | None, existing: str) -> Outcome | None:
        """Return why the file at a target may not be replaced, None where it may."""
        was_interrupted = past is not None and _was_interrupted(past.last)
        if past is None or (past.done is None and not was_interrupted):
            recognised = self._recognised(job)
            return recognised or _skip(job, "target-exists", self._why_not_ours(job, existing))
        if not self._is_of_same_photo(job, past):
            why = f"{existing} was made from {past.last.source}; give another --out or --template"
            return _skip(job, "target-exists", why)
        # After an interruption an output may be newer than its record, and is ours all the same.
        if was_interrupted or past.done is None:
            return None
        states = {self.results.state(output): output.path for output in past.done.outputs}
        if State.EDITED in states:
            how = f"{self._shown(states[State.EDITED])} was changed after dpbatch wrote it"
        elif State.TOUCHED in states:
            name = self._shown(states[State.TOUCHED])
            how = f"{name} may have been changed: another date, and no checksum in the journal"
        else:
            return None
        return _skip(job, "target-changed", f"{how}; --overwrite replaces it")

    def _why_not_ours(self, job: Job[Location], existing: str) -> str:
        damaged = next(filter(self.results.is_damaged, self._names(job)), None)
        if damaged is not None:
            return (
                f"{self._shown(damaged)} exists and does not open: it is damaged, or no picture; "
                "--overwrite makes it again"
            )
        return (
            f"{existing} exists, and neither the journal nor its metadata say that it was made "
            "from this photo with these settings; --overwrite replaces it"
        )

    def _done(self, job: Job[Location], past: Past) -> Outcome | None:
        """Return the outcome of a photo that is done, None for another."""
        last = past.last
        is_earlier = last.fingerprint in self.earlier
        # Whether a file has one view or two follows from its content, which is the same.
        is_current = last.fingerprint in {self.fingerprint, self.ordinary or self.fingerprint}
        if last.status != "done" or not (is_current or is_earlier):
            return None
        states = {output.path: self.results.state(output) for output in last.outputs}
        if {State.MISSING, State.DAMAGED} & set(states.values()):
            return None
        if not same_content(last.inputs, job.photo.paths, self.source.stamp):
            return None
        edited = (name for name, state in states.items() if state is State.EDITED)
        warnings = tuple(
            f"{self._shown(name)} was changed after dpbatch wrote it, and is kept"
            for name in edited
        )
        code, reason = "already-done", "already done"
        if is_earlier:
            code = "done-by-earlier-release"
            reason = "done by an earlier release of dpbatch; --overwrite makes it again"
        return _skip(job, code, reason, Saved((), (), warnings))

    def _recognised(self, job: Job[Location]) -> Outcome | None:
        """Return the outcome of a photo that is done by the metadata of its results.

        A run notes it in the journal, which may have been lost.
        """
        try:
            inputs = tuple(self.source.stamp(path) for path in job.photo.paths)
            names = self._names(job)
            if not self.results.are_made_from(names, inputs):
                return None
            output = self.results.output
            checksums = tuple(output.stamp(name, content=True).blake2b for name in names)
        except OSError:
            return None
        saved = Saved(inputs, job.outputs, checksums=checksums)
        return _skip(job, "already-done", "already done", saved)

    def _names(self, job: Job[Location]) -> list[str]:
        return list(map(self.results.output.name_of, job.outputs))

    def _shown(self, name: str) -> str:
        return str(self.results.output.root / name)

    def _is_ordinary(self, job: Job[Location], past: Past) -> bool:
        """Return whether an earlier run has found no second frame in this file.

        Only files that had to be fetched for that have stamps; local files are probed anew.
        """
        is_known = past.last.code == NotDualPixelError.code and not self.ordinary
        return is_known and same_content(past.last.inputs, job.photo.paths, self.source.stamp)

    def _is_of_same_photo(self, job: Job[Location], past: Past) -> bool:
        """Compare by the photo's path; where photos have been moved, by content."""
        if past.last.source == str(job.photo.paths[0]):
            return True
        known = past.done.inputs if past.done is not None else ()
        return same_content(known, job.photo.paths, self.source.stamp)


def _was_interrupted(last: Record) -> bool:
    """Return whether the last run was about to write the outputs: they were replaceable then."""
    return last.status == "started" or (last.status == "failed" and last.stage == "save")


def _skip(job: Job[Location], code: str, reason: str, saved: Saved | None = None) -> Outcome:
    return Outcome(Status.SKIPPED, "scan", code, f"{job}: {reason}", saved=saved)
