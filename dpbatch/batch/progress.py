"""The messages of a run while it works, and its closing table."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from tqdm import tqdm

from dpbatch.location import Location
from dpbatch.terminal import named, printable, say
from dpbatch.types import Cost, Job, Outcome, Status

EXIT_DONE, EXIT_SOME_FAILED, EXIT_USAGE, EXIT_ABORTED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

_LISTED = 20
_ACTORS_LISTED = 8
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
NOT_REACHED = "not-reached"
"""The code of a photo that was left to do when the run was stopped."""
_CERTAIN_REASONS = {"already-done": "already done", NOT_REACHED: "the run was stopped before"}


@dataclass
class Reporter:
    """Counts the outcomes and reports them: a progress bar on a terminal, lines elsewhere.

    messages: stream for people.
    log: stream for programs: a line of JSON for every input and one for the end; None for none.
    quiet: whether to print only the closing table.
    """

    messages: IO[str]
    log: IO[str] | None = None
    quiet: bool = False
    _counts: Counter[Status] = field(default_factory=Counter)
    _codes: Counter[tuple[Status, str]] = field(default_factory=Counter)
    _networks: Counter[str] = field(default_factory=Counter)
    _reasons_at_close: dict[tuple[Status, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """At most as many per code as are listed, so that memory does not grow with the photos."""
    _restoring: str = ""
    _busy: str = ""
    _inputs: int = 0
    _would_run: int = 0
    _planned_photos: int = 0
    _finished_photos: int = 0
    _start_s: float = 0.0
    _bar: Any = None

    def start(self, inputs: int) -> None:
        """Report the number of inputs; each is passed to `finished` or `would_run` later."""
        self._inputs = inputs
        self.message(f"{inputs} inputs found" if inputs != 1 else "1 input found")

    def start_work(self, photos: int) -> None:
        """Record that the engine starts, with so many photos to do."""
        self._planned_photos = photos
        self._start_s = time.monotonic()
        if photos and self.messages.isatty() and not self.quiet:
            # nrows: tqdm shows nothing on a pseudo terminal that claims to have no rows.
            self._bar = tqdm(
                total=photos, file=self.messages, smoothing=0, nrows=2, bar_format=_BAR
            )

    def update_progress(self, job: Job[Location], done: int, total: int) -> None:
        """Show the progress of the photo being restored."""
        self._restoring = f"{job.photo.stem} {100 * done // max(total, 1)} %"
        self._show_pace()

    def update_busy(self, busy: Sequence[float]) -> None:
        """Show the share of time that each copy of the network has worked, in [0, 1]."""
        if len(busy) > _ACTORS_LISTED:
            mean, least = sum(busy) / len(busy), min(busy)
            self._busy = (
                f"{len(busy)} actors {100 * mean:.0f} % busy, the least {100 * least:.0f} %"
            )
        elif busy:
            self._busy = f"busy {'/'.join(f'{100 * share:.0f}' for share in busy)} %"
        self._show_pace()

    def _show_pace(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(printable(", ".join(self._pace())))

    def finished(self, name: str, outcome: Outcome, job: Job[Location] | None = None) -> None:
        """Report the outcome of an input; call it once for every input."""
        self._counts[outcome.status] += 1
        if outcome.status is Status.DONE and outcome.saved and outcome.saved.network:
            self._networks[outcome.saved.network] += 1
        self._remember(name, outcome)
        is_worked = self._start_s > 0 and outcome.stage != "run"
        if is_worked:
            self._finished_photos += 1
        if self._bar is not None and is_worked:
            self._bar.update()
            self._show_pace()
        is_failed = outcome.status is Status.FAILED
        if is_failed or (is_worked and self._bar is None):
            self.message(self._line(name, outcome))
        for warning in outcome.saved.warnings if outcome.saved else ():
            self.message(f"warning: {named(name, warning)}")
        self._json(
            event="photo",
            input=name,
            output=str(job.target) if job and outcome.status is Status.DONE else None,
            status=outcome.status.value,
            stage=outcome.stage,
            code=outcome.code,
            message=outcome.message,
            seconds=asdict(outcome.seconds),
            network=outcome.saved.network if outcome.saved else "",
            warnings=outcome.saved.warnings if outcome.saved else (),
        )

    def would_run(self, job: Job[Location]) -> None:
        """Report, in a dry run, that this photo would be done."""
        self._would_run += 1
        how = " (ordinary)" if job.photo.kind == "ordinary" else ""
        self.message(f"would run: {job}{how} -> {job.target}")
        kind = job.photo.kind
        self._json(event="would-run", input=job.name, output=str(job.target), kind=kind)

    def cost(self, cost: Cost, photos: int, loaders: int) -> None:
        """Report, in a dry run, what the photos would cost. loaders: photos loaded at a time."""
        photo_s = max(cost.load_s / loaders, cost.restore_s)
        total_s, total_bytes = photos * photo_s, photos * cost.output_bytes
        self.message(
            f"would take about {tqdm.format_interval(total_s)} on {cost.device} "
            f"(a photo: load {cost.load_s:.1f} s, restore about {cost.restore_s:.1f} s, at the "
            f"same time) and write at most {total_bytes / 1e9:.2f} GB"
        )
        self._json(
            event="cost",
            photos=photos,
            load_s=round(cost.load_s, 3),
            restore_s=round(cost.restore_s, 3),
            total_s=round(total_s, 1),
            output_bytes=total_bytes,
            device=cost.device,
        )

    def count(self, status: Status) -> int:
        """Return the number of inputs with this outcome so far."""
        return self._counts[status]

    def close(self, interrupted: bool, aborted: str) -> int:
        """Print the closing table; returns the exit code.

        interrupted: whether Ctrl-C stopped the run before all was done.
        aborted: why else the run stopped early, "" where it did not.
        """
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        code = self._exit_code(interrupted, aborted)
        for line in self._table():
            say(printable(line), self.messages)
        if aborted or interrupted:
            how = (
                f"stopped: {aborted}" if aborted else "interrupted; the next run goes on from here"
            )
            say(printable(how), self.messages)
        self._json(
            event="end",
            inputs=self._inputs,
            **{status.value: self.count(status) for status in Status},
            would_run=self._would_run,
            networks=dict(sorted(self._networks.items())),
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
        counts = {"inputs": self._inputs, **{s.value: self.count(s) for s in Status}}
        if not_reached := self._codes[Status.SKIPPED, NOT_REACHED]:  # as in `dpbatch status`
            counts["skipped"] -= not_reached
            counts["not reached"] = not_reached
        if self._would_run:
            counts["would run"] = self._would_run
        width = max(9, *map(len, counts))
        lines = ["", *(f"{name:<{width}} {count:>6}" for name, count in counts.items())]
        if len(self._networks) > 1:
            by = ", ".join(f"{name} {count}" for name, count in sorted(self._networks.items()))
            lines.append(f"restored by: {by}")
        for status in (Status.SKIPPED, Status.FAILED):
            lines += self._reasons(status)
        return lines

    def _reasons(self, status: Status) -> list[str]:
        """List the inputs of a status with their reasons; obvious ones are only counted.

        Those that were not reached have a row of the table instead.
        """
        lines = []
        codes = sorted(
            code for found, code in self._codes if found is status and code != NOT_REACHED
        )
        for code in codes:
            count = self._codes[status, code]
            certain = _CERTAIN_REASONS.get(code)
            lines.append(f"{status.value}, {code}: {count}" + (f" ({certain})" if certain else ""))
            if certain:
                continue
            lines += [f"  {reason}" for reason in self._reasons_at_close[status, code]]
            if count > _LISTED:
                lines.append(f"  and {count - _LISTED} more; --json-log lists them all")
        return lines

    def _remember(self, name: str, outcome: Outcome) -> None:
        kind = outcome.status, outcome.code
        self._codes[kind] += 1
        is_listed = outcome.status is not Status.DONE and outcome.code not in _CERTAIN_REASONS
        if is_listed and self._codes[kind] <= _LISTED:
            self._reasons_at_close[kind].append(_reason(name, outcome))

    def _line(self, name: str, outcome: Outcome) -> str:
        position = (
            f"[{self._finished_photos}/{self._planned_photos}] " if self._planned_photos else ""
        )
        if outcome.status is not Status.DONE:
            return f"{position}{outcome.status.value}: {_reason(name, outcome)}"
        # A step that a command does not have, as `split` does not restore, takes no time.
        steps = {name: f"{took_s:.1f} s" for name, took_s in asdict(outcome.seconds).items()}
        known = [f"{name} {took_s}" for name, took_s in steps.items() if took_s != "0.0 s"]
        took = ", ".join(known) or "0.0 s"
        target = str(outcome.saved.outputs[0]) if outcome.saved else ""
        if outcome.saved and outcome.saved.network:
            took += f", {outcome.saved.network}"
        return ", ".join([f"{position}{name} -> {target} ({took})", *self._left(), *self._pace()])

    def _left(self) -> Iterator[str]:
        missing = self._planned_photos - self._finished_photos
        if missing > 0:
            left_s = (time.monotonic() - self._start_s) / max(self._finished_photos, 1) * missing
            yield f"{tqdm.format_interval(left_s)} left"

    def _pace(self) -> Iterator[str]:
        minutes = (time.monotonic() - self._start_s) / 60
        if self._finished_photos and minutes > 0:
            yield f"{self._finished_photos / minutes:.3g} photos/min"
        if failed := self.count(Status.FAILED):
            yield f"{failed} failed"
        if self._busy:
            yield self._busy
        if self._restoring and self._bar is not None:
            yield self._restoring

    def message(self, text: str, always: bool = False) -> None:
        """Print a line for people. always: even if `quiet`."""
        if self.quiet and not always:
            return
        if self._bar is not None:
            self._bar.write(printable(text), file=self.messages)
        else:
            say(printable(text), self.messages)

    def _json(self, **values: object) -> None:
        if self.log is not None:
            say(json.dumps(values), self.log)  # ASCII, and nothing else


def _reason(name: str, outcome: Outcome) -> str:
    text = named(name, outcome.message)
    return f"{text} [{outcome.stage}]" if outcome.status is Status.FAILED else text
