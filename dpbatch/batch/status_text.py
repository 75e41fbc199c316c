"""The text of `dpbatch status`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from tqdm import tqdm

from dpbatch.batch.status import Failure, FolderStatus, LatestRun, seconds_between, time_of
from dpbatch.terminal import named, printable

_LISTED = 20


def to_text(status: FolderStatus, now: datetime | None = None) -> str:
    """Return the status as text. now: for the time since the last activity."""
    now = now or datetime.now(UTC)
    run, folder = status.latest_run, status.whole_folder
    lines = [printable(f"{status.folder}: {_headline(status, now)}")]
    if run is not None:
        lines += ["", *_numbers(run), *_speed(run)]
        lines += _listed(_working_title(run), list(_working(run, now)))
        lines += _listed("failed", [_shown(failure) for failure in run.failures])
        warnings = [printable(named(warned.source, warned.message)) for warned in run.warnings]
        lines += _listed("warnings", warnings)
        rescued = [printable(f"{photo.source}: {photo.what}") for photo in run.rescued]
        lines += _listed("restored in part or drawn anew", rescued)
    skipped = f", {folder.skipped} skipped" if folder.skipped else ""
    lines += [
        "",
        f"the whole folder, by all runs: {folder.done} done, {folder.failed} failed{skipped}, "
        f"{folder.unfinished} unfinished",
    ]
    of_this_run = {failure.source for failure in run.failures} if run else set()
    earlier = [_shown(f) for f in folder.failures if f.source not in of_this_run]
    lines += _listed("failed in earlier runs, and not done since", earlier)
    return "\n".join(lines)


def _headline(status: FolderStatus, now: datetime) -> str:
    run = status.latest_run
    ago = f"last activity {_ago(status.last_activity, now)}"
    if run is None or (run.state == "ended" and status.running):
        return (
            f"a run has just started, {ago}" if status.running else f"no run is in progress, {ago}"
        )
    latest = f"the latest run, started {_local(run.started)},"
    match run.state:
        case "running":
            return f"a run is in progress, started {_local(run.started)}; {ago}"
        case "paused":
            return f"{run.message} (since {_local(status.last_activity)})"
        case "ended":
            why = f" ({run.message})" if run.message else ""
            return f"{latest} ended {_local(run.ended)} with exit code {run.exit_code}{why}"
        case "broken off":
            return f"{latest} was killed, {ago}; the next run continues from there"
        case "unknown":
            return f"{latest} has not ended: it is still running or was killed; {ago}"


def _numbers(run: LatestRun) -> Iterator[str]:
    by_code = ", ".join(f"{code}: {count}" for code, count in run.skipped_by_code.items())
    yield f"{'inputs':<12} {run.inputs:>6}"
    yield f"{'done':<12} {run.done:>6}"
    yield f"{'skipped':<12} {run.skipped:>6}" + (f"  ({by_code})" if by_code else "")
    yield f"{'failed':<12} {run.failed:>6}"
    if run.state == "ended":
        begun = f"  ({run.in_progress} of them begun)" if run.in_progress else ""
        yield f"{'not reached':<12} {run.in_progress + run.waiting:>6}{begun}"
        return
    is_over = run.state == "broken off"
    yield f"{'unfinished' if is_over else 'in progress':<12} {run.in_progress:>6}"
    yield f"{'not reached' if is_over else 'waiting':<12} {run.waiting:>6}"


def _speed(run: LatestRun) -> Iterator[str]:
    if run.photos_per_minute:
        left_s = run.seconds_left
        left = f", {tqdm.format_interval(left_s)} left" if left_s is not None else ""
        yield f"{run.photos_per_minute:.3g} photos/min{left}"


def _working_title(run: LatestRun) -> str:
    return "unfinished" if run.state in ("ended", "broken off") else "in progress"


def _working(run: LatestRun, now: datetime) -> Iterator[str]:
    for photo in run.working_on:
        if photo.runs_again:
            reason = named(photo.source, photo.runs_again).removeprefix(f"{photo.source}: ")
            yield printable(f"{photo.source}: runs again; {reason}")
        else:
            yield printable(f"{photo.source}: started {_ago(photo.since, now)}")


def _listed(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield f"{title}:"
        yield from (f"  {line}" for line in lines[:_LISTED])
        if len(lines) > _LISTED:
            yield f"  and {len(lines) - _LISTED} more; --json lists them all"


def _shown(failure: Failure) -> str:
    return printable(f"{named(failure.source, failure.message)} [{failure.stage}]")


def _local(text: str) -> str:
    time = time_of(text)
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "at an unknown time"


def _ago(text: str, now: datetime) -> str:
    return f"{tqdm.format_interval(seconds_between(text, now))} ago" if text else "unknown"
