"""What a run is going to do: which photos there are, and which of them are left to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpbatch.batch.journal import Journal
from dpbatch.batch.journal_writer import below
from dpbatch.batch.progress import Reporter
from dpbatch.batch.resume import why_skip
from dpbatch.batch.scan import jobs_of, scan
from dpbatch.errors import AbortError, NotDualPixelError, PhotoError
from dpbatch.raw.container import probe
from dpbatch.settings import Settings
from dpbatch.storage.places import Places
from dpbatch.storage.urls import location, shown, url_of
from dpbatch.types import Job, Outcome, Photo, Status, outcome_of

if TYPE_CHECKING:
    from dpbatch.types import RunOptions


@dataclass(frozen=True)
class Plan:
    """jobs: photos to be considered. ended: inputs whose outcome is known without opening them
    wholly, each with its name. suspect: jobs that the probe found something wrong with."""

    jobs: tuple[Job, ...]
    ended: tuple[tuple[str, Outcome], ...]
    suspect: tuple[tuple[Job, PhotoError], ...]


def make_plan(
    options: RunOptions, settings: Settings, suffixes: tuple[str, ...], places: Places
) -> Plan:
    """What is there, and what would become of it. Raises SettingsError, AbortError."""
    found = scan(
        options.inputs,
        recursive=options.recursive,
        include=options.include,
        exclude=options.exclude,
        pairs=options.pairs,
        out=options.out,
        list_remote=places.files_below,
    )
    if not found.photos and not found.others:
        given = ", ".join(location(path) for path in options.inputs)
        raise AbortError(f"{given}: no raw files (.cr2, .cr3) and no left/right pairs found")
    ended = []
    for other in found.others:
        status = Status.FAILED if other.failed else Status.SKIPPED
        ended.append((shown(other.path), Outcome(status, "scan", other.code, other.message)))
    photos: list[Photo] = []
    problems: dict[Photo, PhotoError] = {}
    for photo in found.photos:
        try:
            _check(photo)
        except NotDualPixelError as error:
            ended.append((shown(photo.paths[0]), outcome_of(error, "scan")))
            continue
        except PhotoError as error:
            problems[photo] = error  # loading it will say so again, and the journal with it
        photos.append(photo)
    jobs = jobs_of(photos, options.out, settings, suffixes)
    suspect = [(job, problems[job.photo]) for job in jobs if job.photo in problems]
    return Plan(jobs, tuple(ended), tuple(suspect))


def _check(photo: Photo) -> None:
    if url_of(photo.paths[0]) is not None:
        return  # a look into each of a whole archive's remote files costs more than it saves
    if photo.kind == "raw" and not probe(photo.paths[0]).is_dual_pixel:
        raise NotDualPixelError(
            f"{photo.paths[0].name}: 1 raw frame, expected 2; "
            "switch on Dual Pixel RAW in the camera"
        )


def show(
    plan: Plan,
    options: RunOptions,
    key: str,
    places: Places,
    journal: Journal,
    reporter: Reporter,
) -> int:
    """The dry run: tells what a run would do, and returns its exit code."""
    reporter.begin(len(plan.ended) + len(plan.jobs))
    for name, outcome in plan.ended:
        reporter.ended(name, outcome)
    problems = dict(plan.suspect)
    for job in plan.jobs:
        skip = why_not(job, journal, key, options, places)
        if skip is None and job in problems:
            skip = outcome_of(problems[job], "scan")
        if skip is None:
            reporter.would_run(job)
        else:
            reporter.ended(job.name, skip)
    return reporter.close(interrupted=False, aborted="")


def why_not(
    job: Job, journal: Journal, key: str, options: RunOptions, places: Places
) -> Outcome | None:
    """Why a photo is not to be worked on, None where it is; see `why_skip`."""
    return why_skip(
        job,
        journal.past(below(options.out, job.target)),
        key,
        out=options.out,
        overwrite=options.overwrite,
        retry_failed=options.retry_failed,
        stamp_of=places.stamp,
    )
