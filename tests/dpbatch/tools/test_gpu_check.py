"""The check for a GPU, on the CPU at a small size."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import ldp
from dpbatch.errors import AbortError
from dpbatch.tools import gpu_check
from dpbatch.tools.benchmark.clock import find
from dpbatch.tools.benchmark.watch import RUN_NETWORK, WATCHED
from dpbatch.tools.gpu_check import CheckOptions, run_check
from ldp.restore.compiled import Run

SMALL = CheckOptions(
    device="cpu",
    models=("tiny",),
    size_px=(640, 384),
    repeats=1,
    photos=2,
    agreement_px=128,
    tile=128,
    minutes=60,
    engines=("local",),
)


def traced(network: nn.Module) -> Run:
    run: Run = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    return run


@pytest.fixture(autouse=True)
def _unwatched_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back the functions that the check replaces for the rest of its process."""
    for function in (*(function for _, function in WATCHED), RUN_NETWORK):
        owner, name = find(function)
        monkeypatch.setattr(owner, name, getattr(owner, name))


@pytest.mark.slow
def test_every_part_of_the_check_has_its_figures_in_the_file() -> None:
    written: list[dict[str, Any]] = []
    figures = run_check(SMALL, lambda found: written.append(json.loads(json.dumps(found))), traced)
    assert json.loads(json.dumps(figures)) == written[-1]
    assert len(written) == 6  # after each of five parts, and at the end
    assert written[0]["runs"] == {}
    tiny = figures["networks"]["tiny"]
    assert set(tiny["beside the network s"]) == {"read", "find ahead", "write"}
    assert all(spent["cpu_s"] > 0 for spent in tiny["beside the network s"].values())
    for stages in (tiny["stages s"], tiny["stages compiled s"]):
        assert set(stages) == {"develop", "blur map", "network", "rest of restoring", "all"}
        assert all(seconds > 0 for seconds in stages.values())
    # The photo is out of focus from side to side: with their halos, windows have more pixels.
    assert tiny["windows' pixels"] > 640 * 384
    assert set(tiny["floor s"]) == set(tiny["stages s"]) - {"all"}
    assert min(tiny["compiling s"].values()) > 0
    assert tiny["PSNR to the CPU's, dB"] > 90  # it is the CPU
    assert tiny["PSNR compiled to as it is, dB"] > 50
    assert figures["runs"]["local, tiny"]["photos a minute"] > 0
    assert (figures["left out"], figures["failed"]) == ([], {})


def test_a_part_that_fails_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_run(*_: object, **__: object) -> None:
        raise AbortError("the benchmark's run ended with 3")

    monkeypatch.setattr(gpu_check, "measured_run", no_run)
    monkeypatch.setattr(gpu_check, "beside_network", no_run)
    monkeypatch.setattr(ldp, "load", no_run)
    tried = CheckOptions(
        device="cpu", models=("tiny",), size_px=(320, 192), engines=("local", "ray:1"), photos=1
    )
    told: list[str] = []
    failed = run_check(tried, lambda found: None, tell=told.append)["failed"]
    first = "beside the network"
    assert told[1:3] == [first, f"{first}: failed: the benchmark's run ended with 3"]
    assert list(failed) == [
        "beside the network",
        "tiny: as it is",
        "tiny: agreement",
        "tiny: compiled",
        "run: local, tiny",
        "run: ray:1, tiny",
    ]
    assert set(failed.values()) == {"the benchmark's run ended with 3"}


def test_parts_for_which_there_is_no_time_are_named() -> None:
    tried = CheckOptions(
        device="cpu", models=("tiny",), size_px=(320, 192), minutes=0, engines=("local", "ray:1")
    )
    told: list[str] = []
    figures = run_check(tried, lambda found: None, tell=told.append)
    assert told[1:] == [
        f"{part}: left out, there is no time for it" for part in figures["left out"]
    ]
    assert figures["left out"] == [
        "beside the network",
        "tiny: as it is",
        "tiny: agreement",
        "tiny: compiled",
        "run: local, tiny",
        "run: ray:1, tiny",
    ]
    assert figures["networks"] == {"tiny": {}}
