"""What a run says while it works, and its closing table."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from tqdm import tqdm

from dpbatch.location import Location
from dpbatch.types import Job, Outcome, Status

EXIT_DONE, EXIT_SOME_FAILED, EXIT_USAGE, EXIT_ABORTED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

_LISTED = 20
_ACTORS_LISTED = 8
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_CERTAIN_REASONS = {"already-done": "already done", "not-reached": "the run was stopped before"}


@dataclass
class Reporter:
    """Counts the outcomes and tells them: a bar on a terminal, a line a photo elsewhere.

    messages: for people. log: one JSON object a line for every input and one for the end, or None.
    quiet: only the closing table.
    """

    messages: IO[str]
    log: IO[str] | None = None
    quiet: bool = False
    _counts: Counter[Status] = field(default_factory=Counter)
    _codes: Counter[tuple[Status, str]] = field(default_factory=Counter)
    _told_at_close: dict[tuple[Status, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """No more of a code than are listed: a run's memory does not grow with its photos."""
    _restoring: str = ""
    _use: str = ""
    _inputs: int = 0
    _planned: int = 0
    _to_do: int = 0
    _worked: int = 0
    _start: float = 0.0
    _bar: Any = None

    def begin(self, inputs: int) -> None:
        """inputs: how many there are; each is told to `ended` or `would_run` later."""
        self._inputs = inputs
        self.note(f"{inputs} inputs found" if inputs != 1 else "1 input found")

    def work(self, photos: int) -> None:
        """The engine starts, with so many photos to do."""
        self._to_do = photos
        self._start = time.monotonic()
        if photos and self.messages.isatty() and not self.quiet:
            # nrows: a pseudo terminal may claim to have no rows, and tqdm would show nothing.
            self._bar = tqdm(
                total=photos, file=self.messages, smoothing=0, nrows=2, bar_format=_BAR
            )

    def progress(self, job: Job[Location], done: int, of: int) -> None:
        """Within the photo being restored."""
        self._restoring = f"{job.photo.stem} {100 * done // max(of, 1)} %"
        self._tell_pace()

    def use(self, busy: Sequence[float]) -> None:
        """How busy each copy of the network has been, from 0 to 1."""
        if len(busy) > _ACTORS_LISTED:
            mean, least = sum(busy) / len(busy), min(busy)
            self._use = f"{len(busy)} actors {100 * mean:.0f} % busy, the least {100 * least:.0f} %"
        elif busy:
            self._use = f"busy {'/'.join(f'{100 * share:.0f}' for share in busy)} %"
        self._tell_pace()

    def _tell_pace(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._pace()))

    def ended(self, name: str, outcome: Outcome, job: Job[Location] | None = None) -> None:
        """An input has its outcome; once for every input."""
        self._counts[outcome.status] += 1
        self._remember(name, outcome)
        is_worked = self._start > 0 and outcome.stage != "run"
        if is_worked:
            self._worked += 1
        if self._bar is not None and is_worked:
            self._bar.update()
            self._tell_pace()
        is_failed = outcome.status is Status.FAILED
        if is_failed or (is_worked and self._bar is None):
            self.note(self._told(name, outcome))
        for warning in outcome.saved.warnings if outcome.saved else ():
            self.note(f"warning: {name}: {warning}")
        self._json(
            event="photo",
            input=name,
            output=str(job.target) if job and outcome.status is Status.DONE else None,
            status=outcome.status.value,
            stage=outcome.stage,
            code=outcome.code,
            message=outcome.message,
            seconds=asdict(outcome.seconds),
            warnings=outcome.saved.warnings if outcome.saved else (),
        )

    def would_run(self, job: Job[Location]) -> None:
        """In a dry run: this photo would be worked on."""
        self._planned += 1
        self.note(f"would run: {job} -> {job.target}")
        self._json(event="would-run", input=job.name, output=str(job.target))

    def count(self, status: Status) -> int:
        """How many inputs have ended so."""
        return self._counts[status]

    def close(self, interrupted: bool, aborted: str) -> int:
        """Tells the closing table and returns the exit code.

        interrupted: by Ctrl-C, before all was done. aborted: why else the run stopped early.
        """
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        code = self._exit_code(interrupted, aborted)
        for line in self._table():
            print(line, file=self.messages)
        if aborted or interrupted:
            why = (
                f"stopped: {aborted}" if aborted else "interrupted; the next run goes on from here"
            )
            print(why, file=self.messages)
        self.messages.flush()
        self._json(
            event="end",
            inputs=self._inputs,
            **{status.value: self.count(status) for status in Status},
            would_run=self._planned,
            aborted=aborted,
            interrupted=interrupted,
            exit_code=code,
        )
        return code

    def _exit_code(self, interrupted: bool, aborted: str) -> int:
        if interrupted:
            return EXIT_INTERRUPTED
        if aborted:
            return EXIT_ABORTED
        return EXIT_SOME_FAILED if self.count(Status.FAILED) else EXIT_DONE

    def _table(self) -> list[str]:
        rows = [("inputs", self._inputs)]
        rows += [(status.value, self.count(status)) for status in Status]
        if self._planned:
            rows.append(("would run", self._planned))
        lines = ["", *(f"{name:<9} {count:>6}" for name, count in rows)]
        for status in (Status.SKIPPED, Status.FAILED):
            lines += self._reasons(status)
        return lines

    def _reasons(self, status: Status) -> list[str]:
        """Every input of a status with its reason, by code; those of one obvious reason counted."""
        lines = []
        codes = sorted(code for ended_so, code in self._codes if ended_so is status)
        for code in codes:
            count = self._codes[status, code]
            certain = _CERTAIN_REASONS.get(code)
            lines.append(f"{status.value}, {code}: {count}" + (f" ({certain})" if certain else ""))
            if certain:
                continue
            lines += [f"  {reason}" for reason in self._told_at_close[status, code]]
            if count > _LISTED:
                lines.append(f"  and {count - _LISTED} more; --json-log lists them all")
        return lines

    def _remember(self, name: str, outcome: Outcome) -> None:
        kind = outcome.status, outcome.code
        self._codes[kind] += 1
        is_told = outcome.status is not Status.DONE and outcome.code not in _CERTAIN_REASONS
        if is_told and self._codes[kind] <= _LISTED:
            self._told_at_close[kind].append(_reason(name, outcome))

    def _told(self, name: str, outcome: Outcome) -> str:
        position = f"[{self._worked}/{self._to_do}] " if self._to_do else ""
        if outcome.status is not Status.DONE:
            return f"{position}{outcome.status.value}: {_reason(name, outcome)}"
        seconds = outcome.seconds
        took = (
            f"load {seconds.load:.1f} s, restore {seconds.restore:.1f} s, save {seconds.save:.1f} s"
        )
        target = str(outcome.saved.outputs[0]) if outcome.saved else ""
        return ", ".join([f"{position}{name} -> {target} ({took})", *self._left(), *self._pace()])

    def _left(self) -> Iterator[str]:
        missing = self._to_do - self._worked
        if missing > 0:
            left_s = (time.monotonic() - self._start) / max(self._worked, 1) * missing
            yield f"{tqdm.format_interval(left_s)} left"

    def _pace(self) -> Iterator[str]:
        minutes = (time.monotonic() - self._start) / 60
        if self._worked and minutes > 0:
            yield f"{self._worked / minutes:.3g} photos/min"
        if failed := self.count(Status.FAILED):
            yield f"{failed} failed"
        if self._use:
            yield self._use
        if self._restoring and self._bar is not None:
            yield self._restoring

    def note(self, text: str, always: bool = False) -> None:
        """A line for people. always: to the quiet, too."""
        if self.quiet and not always:
            return
        if self._bar is not None:
            self._bar.write(text, file=self.messages)
        else:
            print(text, file=self.messages, flush=True)

    def _json(self, **values: object) -> None:
        if self.log is not None:
            print(json.dumps(values), file=self.log, flush=True)


def _reason(name: str, outcome: Outcome) -> str:
    """The message, led by the input as it was given in place of its bare file name."""
    file, _, reason = outcome.message.partition(": ")
    text = f"{name}: {reason if file and name.endswith(file) else outcome.message}"
    return f"{text} [{outcome.stage}]" if outcome.status is Status.FAILED else text
