"""Compare the results in an output folder with the checksums in its journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dpbatch.batch.journal import no_journal, read_past
from dpbatch.batch.journal_writer import ADOPTED_IN
from dpbatch.errors import AbortError
from dpbatch.location import Location
from dpbatch.storage.base import OutputFolder
from dpbatch.storage.choose import output_folder
from dpbatch.storage.stamps import stamp
from dpbatch.terminal import printable
from dpbatch.types import FileStamp

Finding = Literal["as written", "missing", "changed", "unreadable", "no checksum", "adopted"]

_NOT_COMPARED: dict[Finding, str] = {
    "no checksum": "written by an earlier release; only the size was compared",
    "adopted": "found without a journal by a later run; damage before that is not detected",
}
_GOOD: tuple[Finding, ...] = ("as written", *_NOT_COMPARED)


@dataclass(frozen=True)
class Checked:
    """A result that differs from the journal, or cannot be compared.

    file: its path below the output folder.
    finding: "no checksum" where an earlier release wrote it and the size is right; "adopted" where
        its checksum was not made while it was written, but when a run without a journal found it.
    """

    file: str
    finding: Finding
    message: str


@dataclass(frozen=True)
class Verification:
    """folder: the output folder. counts: of all results, by finding. files: the ones to look at."""

    folder: str
    counts: dict[Finding, int]
    files: tuple[Checked, ...]

    @property
    def is_good(self) -> bool:
        """Whether no result is missing, changed or unreadable."""
        return self.counts.keys() <= set(_GOOD)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a line for each result to look at, then what was not compared, and the counts."""
        lines = [f"{file.finding}: {file.file}: {file.message}" for file in self.files]
        lines += [f"{kind}: {why}" for kind, why in _NOT_COMPARED.items() if kind in self.counts]
        counts = ", ".join(f"{count} {finding}" for finding, count in self.counts.items())
        return "\n".join(map(printable, [*lines, f"{self.folder}: {counts}"]))


def verify(out: Location) -> Verification:
    """Read every result of an output folder and compare it with the journal.

    Raises AbortError where there is no journal with results, or it cannot be read.
    """
    output = output_folder(out)
    log = output.log()
    done = [past.done for past in read_past(log).values() if past.done is not None]
    checked = [
        _check(output, file, is_adopted=record.stage == ADOPTED_IN)
        for record in done
        for file in record.outputs
    ]
    if not checked and next(log.lines(), None) is None:
        raise no_journal(out, log)
    if not checked:
        raise AbortError(
            f"{log.name}: no results in this journal; give the folder that a run writes to, its "
            "--out"
        )
    counts: Counter[Finding] = Counter(file.finding for file in checked)
    files = tuple(_to_look_at(checked))
    return Verification(str(out), dict(sorted(counts.items())), files)


def _to_look_at(checked: list[Checked]) -> Iterator[Checked]:
    for file in checked:
        if file.finding not in _GOOD:
            yield file


def _check(output: OutputFolder, written: FileStamp, is_adopted: bool) -> Checked:
    name = written.path
    try:
        with output.local_copy(name) as path:
            now = stamp(path, content=bool(written.blake2b))
    except (FileNotFoundError, NotADirectoryError):
        return Checked(name, "missing", "not there any more")
    except OSError as error:
        return Checked(name, "unreadable", error.strerror or str(error))
    if now.size != written.size:
        message = f"{now.size} bytes, expected {written.size}"
        return Checked(name, "changed", message)
    if written.blake2b and now.blake2b != written.blake2b:
        message = f"its checksum is {now.blake2b}, expected {written.blake2b}"
        return Checked(name, "changed", message)
    if is_adopted:
        return Checked(name, "adopted", "")
    return Checked(name, "as written" if written.blake2b else "no checksum", "")
