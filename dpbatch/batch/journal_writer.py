"""What a run writes into its journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from dpbatch.batch.journal import Journal, Record, RunLine
from dpbatch.errors import AbortError, NotDualPixelError
from dpbatch.storage.places import Places
from dpbatch.storage.stamps import stamp
from dpbatch.storage.urls import location, url_of
from dpbatch.types import FileStamp, Job, Outcome, Saved


@dataclass(frozen=True)
class Book:
    """Keeps the journal of a run into `out`. fingerprint: the run's.

    What decides about resuming raises AbortError where it cannot be written; what is for
    `dpbatch status` alone is left out then.
    """

    out: Path
    places: Places
    journal: Journal
    fingerprint: str

    def begun(self, job: Job) -> None:
        """Before a photo is touched: a file that then lies at its target without a `done` was
        written by a run that was killed, and may be written again."""
        self.journal.append(self._record("started", job))

    def runs_again(self, job: Job, code: str, reason: str) -> None:
        """A try of a photo came to nothing, and there will be another. code: the error's."""
        self._note(replace(self._record("started", job), code=code, message=reason))

    def ended(self, job: Job, outcome: Outcome) -> int:
        """A photo has its outcome. Returns how many bytes were written for it."""
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
        )
        self.journal.append(record)
        return sum(file.size for file in outputs)

    def run_started(self, inputs: int) -> None:
        """A run begins to look at so many inputs."""
        self._note(RunLine("run-started", inputs=inputs))

    def no_photo(self, name: str, outcome: Outcome) -> None:
        """An input failed that could not even be taken for a photo."""
        stage, code, message = outcome.stage, outcome.code, outcome.message
        self._note(Record("failed", "", name, stage=stage, code=code, message=message))

    def run_planned(self, to_do: int, skipped: Mapping[str, int]) -> None:
        """So many photos are left to do; skipped: by code, how many inputs are not."""
        self._note(RunLine("run-planned", to_do=to_do, skipped=tuple(sorted(skipped.items()))))

    def run_paused(self, message: str) -> None:
        """The run stands still."""
        self._note(RunLine("run-paused", message=message))

    def run_resumed(self) -> None:
        """It goes on."""
        self._note(RunLine("run-resumed"))

    def run_ended(self, exit_code: int, message: str) -> None:
        """The end. message: why it came early, or "" """
        self._note(RunLine("run-ended", exit_code=exit_code, message=message))

    def _note(self, line: Record | RunLine) -> None:
        with contextlib.suppress(AbortError):
            self.journal.append(line)

    def _record(self, status: str, job: Job) -> Record:
        target, source = below(self.out, job.target), location(job.photo.paths[0])
        return Record(status, target, source, self.fingerprint)

    def _outputs(self, saved: Saved) -> Iterator[FileStamp]:
        for path, stored in zip_longest(saved.outputs, saved.stored):
            with contextlib.suppress(OSError):  # taken away already: the next run makes it again
                now = stored or stamp(path, content=False)
                yield replace(now, path=below(self.out, path))

    def _ordinary_inputs(self, job: Job, outcome: Outcome) -> Iterator[FileStamp]:
        """Of a photo that had to be fetched to find no second frame: so it is fetched once."""
        if outcome.code == NotDualPixelError.code:
            for path in job.photo.paths:
                if url_of(path) is not None:
                    yield self.places.stamp(path, False)


def below(out: Path, target: Path) -> str:
    """A target as the journal names it: its path below the output folder, with /."""
    return target.relative_to(out).as_posix()
