"""The order of a run's photos: a suspect never runs beside another, nothing is tried for ever."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from dpbatch.engine.attempts import Attempts
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import Limits, Outcome, Seconds, Status
from tests.helpers.toy_stages import Toy

CRASH = WorkerCrashError("x.CR2: the load process died: killed by SIGSEGV")


def simulate(
    jobs: list[Toy], poison: set[str], slots: int, seed: int
) -> tuple[Counter[str], dict[str, Outcome], list[set[str]]]:
    """Run an engine on paper, whose photos end in any order.

    Returns the tries of each job, the outcomes of those that crashed for good, and which ran at
    the same time at every moment; all by id.
    """
    order = random.Random(seed)
    attempts = Attempts(jobs, Limits(crashes_in_a_row=len(jobs) + 1))
    tries: Counter[str] = Counter()
    failed: dict[str, Outcome] = {}
    in_flight: dict[str, Toy] = {}
    moments = []
    while in_flight or attempts.left:
        while len(in_flight) < slots:
            job = attempts.next(len(in_flight))
            if job is None:
                break
            tries[job.id] += 1
            in_flight[job.id] = job
            moments.append(set(in_flight))
        if not in_flight:
            continue
        job = in_flight.pop(order.choice(sorted(in_flight)))
        if job.id in poison:
            outcome = attempts.crashed(job, "load", CRASH)
            if outcome is not None:
                assert job.id not in failed
                failed[job.id] = outcome
        else:
            attempts.finished()
    return tries, failed, moments


@pytest.mark.parametrize("seed", range(20))
def test_each_photo_is_tried_as_often_as_promised_and_suspects_alone(seed: int) -> None:
    names = [f"{n}" for n in range(30)]
    poison = set(random.Random(seed).sample(names, 5))
    tries, failed, moments = simulate([Toy(name) for name in names], poison, slots=4, seed=seed)
    assert tries == {name: 3 if name in poison else 1 for name in names}
    assert set(failed) == poison
    seen: Counter[str] = Counter()
    before: set[str] = set()
    for running in moments:
        for name in running - before:
            seen[name] += 1
        before = running
        if any(seen[name] > 1 for name in running):
            assert len(running) == 1


def test_a_photo_that_crashed_for_good_has_failed_with_its_reason() -> None:
    job = Toy("x.CR2")
    attempts = Attempts([job], Limits(tries=2))
    seconds = Seconds(load=1.5)
    assert attempts.next(0) is job
    assert attempts.crashed(job, "restore", CRASH, seconds) is None
    assert attempts.next(0) is job
    outcome = attempts.crashed(job, "restore", CRASH, seconds)
    assert outcome is not None
    assert (outcome.status, outcome.stage, outcome.code) == (
        Status.FAILED,
        "restore",
        "worker-crash",
    )
    assert outcome.message == f"{CRASH} (tried 2 times, the last time alone)"
    assert outcome.seconds == seconds
    assert attempts.next(0) is None
    assert not attempts.left


def test_jobs_are_distinguished_by_their_id_and_not_by_their_name() -> None:
    """Two folders may hold photos of one name."""
    attempts = Attempts([Namesake("1"), Namesake("2")], Limits(tries=2))
    for _ in range(2):
        job = attempts.next(0)
        assert job is not None
        assert attempts.crashed(job, "load", CRASH) is None  # the first crash of each
    assert len({job.id for job in (attempts.next(0), attempts.next(0)) if job}) == 2


def test_every_retry_is_reported_and_the_last_crash_is_not() -> None:
    reported: list[tuple[str, str]] = []
    job = Toy("a")
    attempts = Attempts([job], Limits(), on_retry=lambda job, why: reported.append((job.id, why)))
    for _ in range(3):
        attempts.next(0)
        attempts.crashed(job, "load", CRASH)
    assert reported == [("a", str(CRASH))] * 2


def test_a_photo_whose_neighbour_took_its_process_away_has_lost_no_try() -> None:
    job = Toy("a")
    attempts = Attempts([job], Limits(tries=1))
    for _ in range(5):
        assert attempts.next(1) is job  # at once, while another is in flight: it is no suspect
        attempts.interrupted(job)
        assert attempts.left
    assert attempts.next(1) is job
    assert attempts.crashed(job, "load", CRASH) is not None


def test_many_different_photos_in_a_row_are_the_machines_fault() -> None:
    a, b, c, d, e = jobs = [Toy(name) for name in "abcde"]
    attempts = Attempts(jobs, Limits(crashes_in_a_row=3))
    for job in (a, b):
        attempts.crashed(job, "load", CRASH)
    attempts.finished()
    for job in (c, d):
        attempts.crashed(job, "load", CRASH)
    attempts.crashed(c, "load", CRASH)  # again the same one: no news about the machine
    with pytest.raises(AbortError, match=r"3 photos in a row.*SIGSEGV"):
        attempts.crashed(e, "load", CRASH)


def test_exceptions_are_not_the_machines_fault_however_many_there_are() -> None:
    jobs = [Toy(str(number)) for number in range(30)]
    attempts = Attempts(jobs, Limits(tries=1, crashes_in_a_row=3))
    for job in jobs[:27]:
        outcome = attempts.crashed(job, "load", CRASH, has_died=False)
        assert outcome is not None
        assert outcome.status is Status.FAILED
    for job in jobs[27:29]:
        attempts.crashed(job, "load", CRASH)
    attempts.crashed(jobs[0], "load", CRASH, has_died=False)
    with pytest.raises(AbortError, match="3 photos in a row died"):
        attempts.crashed(jobs[29], "load", CRASH)


def test_jobs_are_taken_one_by_one() -> None:
    taken = []

    def jobs() -> Iterator[Toy]:
        for number in range(3):
            taken.append(number)
            yield Toy(str(number))

    attempts = Attempts(jobs(), Limits())
    assert taken == []
    attempts.next(0)
    assert taken == [0]
    attempts.next(7)
    assert taken == [0, 1]


class Namesake(Toy):
    """A job that people call as they call another."""

    def __str__(self) -> str:
        return "x.CR2"
