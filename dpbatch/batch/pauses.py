"""The pauses of a run on a full disk: where room is needed, how much, and who is informed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dpbatch.batch.disk_space import Space
from dpbatch.batch.journal_writer import JournalWriter
from dpbatch.batch.progress import Reporter
from dpbatch.batch.stop import StopSignal
from dpbatch.location import Location
from dpbatch.storage.base import InputSource, OutputFolder
from dpbatch.types import Job, Outcome

_JOURNAL_BYTES = 1 << 20


class Pauses:
    """Pauses a run until there is room for a photo, or for a line of the journal."""

    def __init__(
        self,
        longest_s: float,
        source: InputSource[Location],
        output: OutputFolder,
        *,
        writer: JournalWriter,
        reporter: Reporter,
        stop: StopSignal,
    ) -> None:
        """longest_s: see `Space`. A pause ends early once `stop` is requested."""
        self._space = Space(longest_s, stop.is_requested, self._report)
        self._source, self._output = source, output
        self._writer, self._reporter = writer, reporter
        self._largest_bytes = 0

    def photo_finished(self) -> None:
        """Record that a photo was finished; the time for pauses starts again from 0."""
        self._space.finished()

    def record_size(self, size_bytes: int) -> None:
        """Record the size of all files of a photo."""
        self._largest_bytes = max(self._largest_bytes, size_bytes)

    def wait_for_photo(self, job: Job[Location], outcome: Outcome) -> bool:
        """Wait until there is room for a photo that met a full disk, and for one beside it.

        Returns False where the wait was in vain.
        """
        need_bytes = 2 * self._largest_bytes
        if not need_bytes:  # no result is known yet; a 16-bit one is not larger than that
            need_bytes = 4 * sum(self._source.stamp(path, False).size for path in job.photo.paths)
        if outcome.stage == "load":
            folder = Path(tempfile.gettempdir())  # where a remote photo is fetched to
        else:
            folder = self._output.needs_room_in(job.id)
        return self._space.wait(job.name, folder, need_bytes)

    def wait_for_journal(self) -> bool:
        """Wait until there is room for lines of the journal; False where it was in vain."""
        return self._space.wait("the journal", self._output.processes_log.parent, _JOURNAL_BYTES)

    def _report(self, text: str, is_paused: bool) -> None:
        self._reporter.message(text, always=True)
        if is_paused:
            self._writer.run_paused(text)
        else:
            self._writer.run_resumed()
