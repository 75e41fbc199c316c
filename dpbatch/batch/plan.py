"""What a run is going to do: which photos there are, and which of them are left to be done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dpbatch.batch.scan import jobs_of, scan
from dpbatch.errors import AbortError, NotDualPixelError, OutputError, PhotoError, SettingsError
from dpbatch.location import Location, short_name
from dpbatch.raw.canon_tags import read_canon_tags, single_frame_message
from dpbatch.raw.container import probe
from dpbatch.settings import Settings
from dpbatch.storage.base import InputSource
from dpbatch.storage.local import takes_name
from dpbatch.types import Job, Outcome, Photo, RunOptions, Status, outcome_of


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    jobs: photos to be considered.
    ended: inputs whose outcome is known without opening them wholly, each with its name.
    suspect: jobs that the probe found something wrong with.
    """

    jobs: tuple[Job[Location], ...]
    ended: tuple[tuple[str, Outcome], ...]
    suspect: tuple[tuple[Job[Location], PhotoError], ...]


def make_plan(
    options: RunOptions,
    settings: Settings,
    suffixes: tuple[str, ...],
    source: InputSource[Location],
) -> Plan:
    """Scan the inputs and return what there is to do. Raises SettingsError, AbortError."""
    found = scan(
        options.inputs,
        source,
        recursive=options.recursive,
        include=options.include,
        exclude=options.exclude,
        pairs=options.pairs,
        ordinary=settings.restore.ordinary != "skip",
        pictures=options.pictures,
        out=options.out,
    )
    if not found.photos and not found.others:
        given = ", ".join(map(str, options.inputs))
        raise AbortError(f"{given}: no raw files (.cr2, .cr3) and no left/right pairs found")
    ended = []
    for other in found.others:
        status = Status.FAILED if other.failed else Status.SKIPPED
        outcome = Outcome(status, "scan", other.code, other.message)
        ended.append((short_name(other.path), outcome))
    photos: list[Photo[Location]] = []
    problems: dict[Photo[Location], PhotoError] = {}
    for photo in found.photos:
        try:
            _check(photo, source)
        except NotDualPixelError as error:
            if settings.restore.ordinary != "skip" and not _is_burst_roll(photo, source):
                photos.append(replace(photo, kind="ordinary"))
                continue
            ended.append((short_name(photo.paths[0]), outcome_of(error, "scan")))
            continue
        except PhotoError as error:
            problems[photo] = error  # loading it will say so again, and the journal with it
        photos.append(photo)
    jobs, too_long = _by_length(jobs_of(photos, options.out, settings, suffixes), options.out)
    if too_long and not jobs:
        raise SettingsError(str(too_long[0][1]))
    ended += [(job.name, outcome_of(error, "scan")) for job, error in too_long]
    suspect = [(job, problems[job.photo]) for job in jobs if job.photo in problems]
    return Plan(jobs, tuple(ended), tuple(suspect))


def _by_length(
    jobs: Iterable[Job[Location]], out: Location
) -> tuple[tuple[Job[Location], ...], list[tuple[Job[Location], OutputError]]]:
    """Return the jobs whose outputs can have their names, and the others with their errors."""
    fit, too_long = [], []
    for job in jobs:
        longest = max((os.fsencode(part) for path in job.outputs for part in path.parts), key=len)
        if isinstance(out, Path) and not takes_name(out, os.fsdecode(longest)):
            message = (
                f"{job}: the name of its output is too long for the file system, {len(longest)} "
                f"bytes: {os.fsdecode(longest)[:30]}...; give a --template that is shorter, or "
                "rename the photo"
            )
            too_long.append((job, OutputError(message)))
        else:
            fit.append(job)
    return tuple(fit), too_long


def _is_burst_roll(photo: Photo[Location], source: InputSource[Location]) -> bool:
    """Return whether a raw with one frame holds several pictures, of which none is restored."""
    file = source.local_file(photo.paths[0])
    return file is not None and read_canon_tags(file, probe(file).format).pictures > 1


def _check(photo: Photo[Location], source: InputSource[Location]) -> None:
    file = source.local_file(photo.paths[0])
    if file is None:
        return  # a look into each of a whole archive's remote files costs more than it saves
    if photo.kind == "raw":
        container = probe(file)
        if not container.is_dual_pixel:
            raise NotDualPixelError(single_frame_message(file, container))
