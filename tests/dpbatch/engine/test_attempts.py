"""The order of a run's photos: a suspect never runs beside another, nothing is tried for ever."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dpbatch.engine.attempts import Attempts
from dpbatch.errors import AbortError, WorkerCrashError
from dpbatch.types import Limits, Outcome, Seconds, Status

CRASH = WorkerCrashError("x.CR2: the load process died: killed by SIGSEGV")


def simulate(
    names: list[str], poison: set[str], slots: int, seed: int
) -> tuple[Counter[str], dict[str, Outcome], list[set[str]]]:
    """An engine on paper, whose photos end in any order: the tries of each photo, what became of
    those that crashed for good, and which ran beside each other at every moment."""
    order = random.Random(seed)
    attempts = Attempts(names, Limits(crashes_in_a_row=len(names) + 1))
    tries: Counter[str] = Counter()
    failed: dict[str, Outcome] = {}
    in_flight: set[str] = set()
    moments = []
    while in_flight or attempts.left:
        while len(in_flight) < slots:
            name = attempts.next(len(in_flight))
            if name is None:
                break
            tries[name] += 1
            in_flight.add(name)
            moments.append(set(in_flight))
        if not in_flight:
            continue
        name = order.choice(sorted(in_flight))
        in_flight.remove(name)
        if name in poison:
            outcome = attempts.crashed(name, "load", CRASH)
            if outcome is not None:
                assert name not in failed
                failed[name] = outcome
        else:
            attempts.ended()
    return tries, failed, moments


@pytest.mark.parametrize("seed", range(20))
def test_each_photo_is_tried_as_often_as_promised_and_suspects_alone(seed: int) -> None:
    names = [f"{n}" for n in range(30)]
    poison = set(random.Random(seed).sample(names, 5))
    tries, failed, moments = simulate(names, poison, slots=4, seed=seed)
    assert tries == {name: 3 if name in poison else 1 for name in names}
    assert set(failed) == poison
    seen: Counter[str] = Counter()
    before: set[str] = set()
    for together in moments:
        for name in together - before:
            seen[name] += 1
        before = together
        if any(seen[name] > 1 for name in together):
            assert len(together) == 1


def test_a_photo_that_crashed_for_good_has_failed_with_its_reason() -> None:
    attempts = Attempts(["x.CR2"], Limits(tries=2))
    seconds = Seconds(load=1.5)
    assert attempts.next(0) == "x.CR2"
    assert attempts.crashed("x.CR2", "restore", CRASH, seconds) is None
    assert attempts.next(0) == "x.CR2"
    outcome = attempts.crashed("x.CR2", "restore", CRASH, seconds)
    assert outcome is not None
    assert (outcome.status, outcome.stage, outcome.code) == (
        Status.FAILED,
        "restore",
        "worker-crash",
    )
    assert outcome.message == f"{CRASH} (tried 2 times, at last alone)"
    assert outcome.seconds == seconds
    assert attempts.next(0) is None
    assert not attempts.left


def test_every_retry_is_told_and_the_last_crash_is_not() -> None:
    told: list[tuple[str, str]] = []
    attempts = Attempts(["a"], Limits(), on_retry=lambda job, why: told.append((job, why)))
    for _ in range(3):
        attempts.next(0)
        attempts.crashed("a", "load", CRASH)
    assert told == [("a", str(CRASH))] * 2


def test_a_photo_whose_neighbour_took_its_process_away_has_lost_no_try() -> None:
    attempts = Attempts(["a"], Limits(tries=1))
    for _ in range(5):
        assert attempts.next(1) == "a"  # at once, while another is in flight: it is no suspect
        attempts.interrupted("a")
        assert attempts.left
    assert attempts.next(1) == "a"
    assert attempts.crashed("a", "load", CRASH) is not None


def test_many_different_photos_in_a_row_are_the_machines_fault() -> None:
    attempts = Attempts("abcdef", Limits(crashes_in_a_row=3))
    for name in "ab":
        attempts.crashed(name, "load", CRASH)
    attempts.ended()
    for name in "cd":
        attempts.crashed(name, "load", CRASH)
    attempts.crashed("c", "load", CRASH)  # again the same one: no news about the machine
    with pytest.raises(AbortError, match=r"3 photos in a row.*SIGSEGV"):
        attempts.crashed("e", "load", CRASH)


def test_jobs_are_drawn_one_by_one() -> None:
    drawn = []

    def jobs() -> object:
        for number in range(3):
            drawn.append(number)
            yield number

    attempts = Attempts(jobs(), Limits())  # type: ignore[arg-type]
    assert drawn == []
    attempts.next(0)
    assert drawn == [0]
    attempts.next(7)
    assert drawn == [0, 1]
