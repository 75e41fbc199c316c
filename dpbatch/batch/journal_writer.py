"""What a run writes into its journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from dpbatch.batch.journal import Journal, Record, RunLine
from dpbatch.errors import AbortError, NotDualPixelError
from dpbatch.location import Location
from dpbatch.storage.base import InputSource, OutputFolder
from dpbatch.types import FileStamp, Job, Outcome, Saved

ADOPTED_IN = "scan"
"""The stage of a `done` for results that a run found without a journal, and did not write."""


@dataclass(frozen=True)
class JournalWriter:
    """Writes what happens in a run. fingerprint, ordinary_fingerprint: the run's.

    Lines that decide about resuming raise AbortError where they cannot be written; lines for
    `dpbatch status` alone are left out then.
    """

    source: InputSource[Location]
    output: OutputFolder
    journal: Journal
    fingerprint: str
    ordinary_fingerprint: str = ""

    def started(self, job: Job[Location]) -> None:
        """Note a photo before it is touched.

        A file that then lies at its target without a `done` was written by a run that was killed,
        and may be written again.
        """
        self.journal.append(self._record("started", job))

    def runs_again(self, job: Job[Location], code: str, reason: str) -> None:
        """Note that a try of a photo failed, and that there will be another. code: the error's."""
        self._note(replace(self._record("started", job), code=code, message=reason))

    def finished(self, job: Job[Location], outcome: Outcome) -> int:
        """Note how a photo ended. Returns how many bytes were written for it."""
        saved, seconds = outcome.saved, outcome.seconds
        outputs = tuple(self._outputs(saved)) if saved else ()
        record = replace(
            self._record(outcome.status.value, job),
            inputs=saved.inputs if saved else tuple(self._ordinary_inputs(job, outcome)),
            outputs=outputs,
            stage=outcome.stage,
            code=outcome.code,
            message=outcome.message,
            detail=outcome.detail,
            load_s=round(seconds.load, 3),
            restore_s=round(seconds.restore, 3),
            save_s=round(seconds.save, 3),
            warnings=saved.warnings if saved else (),
            rescued=saved.rescued if saved else "",
        )
        if saved:
            own = saved.fingerprint or record.fingerprint
            record = replace(record, network=saved.network, fingerprint=own)
        self.journal.append(record)
        return sum(file.size for file in outputs)

    def recognised(self, job: Job[Location], saved: Saved) -> None:
        """Note results of an earlier run that the journal did not know."""
        record = self._record("done", job)
        outputs = tuple(self._outputs(saved))
        self._note(replace(record, inputs=saved.inputs, outputs=outputs, stage=ADOPTED_IN))

    def run_started(self, inputs: int) -> None:
        """Note the start of a run with so many inputs."""
        self._note(RunLine("run-started", inputs=inputs))

    def no_photo(self, name: str, outcome: Outcome) -> None:
        """Note an input that failed before it could be taken for a photo."""
        stage, code, message = outcome.stage, outcome.code, outcome.message
        self._note(Record("failed", "", name, stage=stage, code=code, message=message))

    def run_planned(self, to_do: int, skipped: Mapping[str, int]) -> None:
        """Note how many photos are left to do, and how many inputs are skipped, by code."""
        self._note(RunLine("run-planned", to_do=to_do, skipped=tuple(sorted(skipped.items()))))

    def run_paused(self, message: str) -> None:
        """Note that the run pauses, and why."""
        self._note(RunLine("run-paused", message=message))

    def run_resumed(self) -> None:
        """Note the end of a pause."""
        self._note(RunLine("run-resumed"))

    def run_ended(self, exit_code: int, message: str) -> None:
        """Note the end of the run. message: why it came early, or ""."""
        self._note(RunLine("run-ended", exit_code=exit_code, message=message))

    def _note(self, line: Record | RunLine) -> None:
        with contextlib.suppress(AbortError):
            self.journal.append(line)

    def _record(self, status: str, job: Job[Location]) -> Record:
        is_ordinary = job.photo.kind == "ordinary"
        fingerprint = self.ordinary_fingerprint if is_ordinary else self.fingerprint
        return Record(status, job.id, str(job.photo.paths[0]), fingerprint)

    def _outputs(self, saved: Saved) -> Iterator[FileStamp]:
        for path, stored, checksum in zip_longest(saved.outputs, saved.stored, saved.checksums):
            name = self.output.name_of(path)
            with contextlib.suppress(OSError):  # taken away already: the next run makes it again
                now = stored or self.output.stamp(name)
                yield replace(now, path=name, blake2b=checksum or "")

    def _ordinary_inputs(self, job: Job[Location], outcome: Outcome) -> Iterator[FileStamp]:
        """Yield the stamps of a photo without a second frame that had to be fetched to find out.

        They keep the next run from fetching it again; into a local file it looks anyway.
        """
        if outcome.code == NotDualPixelError.code:
            for path in job.photo.paths:
                if self.source.local_file(path) is None:
                    yield self.source.stamp(path, False)
