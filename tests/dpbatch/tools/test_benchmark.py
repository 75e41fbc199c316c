"""The benchmark: what it counts, how it compares, and one small run of it."""

from __future__ import annotations

import itertools
import json
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import dpbatch
from dpbatch.errors import AbortError, SettingsError
from dpbatch.raw.develop import develop
from dpbatch.raw.reader import read_dual
from dpbatch.settings import RawSettings, RestoreSettings, Settings
from dpbatch.tools.benchmark import clock as clock_module
from dpbatch.tools.benchmark.clock import Clock, find
from dpbatch.tools.benchmark.figures import Machine, Spent, StageFigures
from dpbatch.tools.benchmark.floor import floor_s, network_cost
from dpbatch.tools.benchmark.measure import BenchmarkOptions, run_benchmark
from dpbatch.tools.benchmark.photos import write_photos
from dpbatch.tools.benchmark.report import Report
from dpbatch.tools.benchmark.runs import RunFigures, ratios
from dpbatch.tools.benchmark.watch import RUN_NETWORK, WATCHED
from ldp.models.cost import PAPER_SIZE, cost_of_size
from ldp.models.network import SIZES, LDPNet

SETTINGS = Settings(restore=RestoreSettings(model="tiny", device="cpu", blur="disparity"))
CHECKOUT = Path(dpbatch.__file__).parents[1]


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> itertools.count[int]:
    """Time advances by 1 s at each look at the clock, processor time by 10 s."""
    wall = itertools.count()
    cpu = itertools.count(step=10)
    fake = types.SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
    monkeypatch.setattr(clock_module, "time", fake)
    return wall


@pytest.mark.usefixtures("ticks")
def test_time_of_an_inner_stage_does_not_count_for_the_outer_one() -> None:
    clock = Clock()
    with clock.stage("outer"):  # looks at the clock at 0 and 5
        with clock.stage("inner"):  # 1, 2
            pass
        with pytest.raises(ValueError, match="no"), clock.stage("inner"):  # 3, 4
            raise ValueError("no")
    assert clock.spent == {"outer": Spent(3, 30), "inner": Spent(2, 20)}
    with clock.stage("later"):
        pass
    assert clock.spent["later"] == Spent(1, 10)


@pytest.mark.usefixtures("ticks")
def test_watched_functions_are_timed_and_other_threads_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock_module, "probed", lambda x: x + 1, raising=False)
    clock = Clock()
    clock.watch("probe", "dpbatch.tools.benchmark.clock:probed")
    probed = clock_module.probed  # type: ignore[attr-defined]
    assert probed(1) == 2
    thread = threading.Thread(target=probed, args=(1,))
    thread.start()
    thread.join()
    assert clock.spent == {"probe": Spent(1, 10)}
    with pytest.raises(AttributeError):
        clock.watch("probe", "dpbatch.tools.benchmark.clock:renamed")


@pytest.mark.parametrize("function", [*(function for _, function in WATCHED), RUN_NETWORK])
def test_what_is_watched_is_there(function: str) -> None:
    owner, name = find(function)
    assert callable(getattr(owner, name))


def test_a_floor_is_the_larger_of_moving_and_multiplying() -> None:
    with torch.device("meta"):
        network = LDPNet(SIZES["tiny"])
    cost = network_cost(network)
    assert cost is not None
    assert cost.macs == cost_of_size("tiny").macs / (PAPER_SIZE[0] * PAPER_SIZE[1])
    assert 100 < cost.values < 10_000
    fast_copies = floor_s(Machine("cpu", 1e15, 1e9, "float32"), 10**6, 2 * 10**6, cost)
    assert fast_copies["network"] == pytest.approx(cost.macs * 2e6 / 1e9)
    slow_copies = floor_s(Machine("cpu", 1e6, 1e18, "bfloat16"), 10**6, 2 * 10**6, cost)
    assert slow_copies["network"] == pytest.approx(cost.values * 2 * 2e6 / 1e6)
    assert slow_copies["load"] == pytest.approx(4)
    assert "network" not in floor_s(Machine("cpu", 1, 1, "float32"), 1, 1, None)
    assert network_cost(torch.nn.Identity()) is None


def figures(run_s: float, **steps_s: float) -> RunFigures:
    return RunFigures(1.0, None, run_s, 0.0, steps_s, 0.5)


def test_versions_are_compared_turn_by_turn() -> None:
    this = [figures(2, load=1), figures(30, load=1), figures(4, load=1)]
    other = [figures(4, load=2), figures(50, load=2), figures(4, load=0)]
    found = {ratio.name: ratio for ratio in ratios(this, other)}
    run = found["whole run"]
    assert (run.least, run.median, run.most) == (0.5, 0.6, 1)
    assert (run.this, run.other) == (4, 4)
    # A step that the other version's log does not have, or processor time that nobody tells.
    assert set(found) == {"whole run", "start to first result", "peak memory"}


def test_photos_are_in_focus_at_the_left_and_not_at_the_right(tmp_path: Path) -> None:
    write_photos(tmp_path, (1280, 256), 1, in_focus=0.5)
    views = develop(read_dual(tmp_path / "IMG_0000.CR2"), RawSettings())
    left, right = (np.asarray(view, np.float32)[..., 1] for view in (views.left, views.right))
    middle = left.shape[1] // 2

    def shift_px(part: slice) -> int:
        """The x at which the correlation of the left view with the right one is largest."""
        rows = [view[:, part] - view[:, part].mean(axis=1, keepdims=True) for view in (left, right)]
        spectra = [np.fft.rfft(row, axis=1) for row in rows]
        correlation = np.fft.irfft(spectra[0] * spectra[1].conj(), axis=1).sum(axis=0)
        place = int(correlation.argmax())
        return place if place < correlation.size // 2 else place - correlation.size

    assert shift_px(slice(40, middle - 40)) == 0
    assert abs(shift_px(slice(middle + 40, -40))) >= 1
    across = [
        np.abs(np.diff(left[:, part], 2)).mean() for part in (slice(middle), slice(middle, None))
    ]
    assert across[0] > 1.2 * across[1]


def test_a_size_that_no_cr2_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="size 66x64"):
        write_photos(tmp_path, (66, 64), 1, 0.5)


def test_the_report_has_a_line_for_each_stage_and_ratio() -> None:
    spent = {"load": Spent(1, 2), "network": Spent(4, 5)}
    machine = Machine("cpu", 10e9, 1e12, "float32")
    this = figures(12.5, load=1.5)
    report = Report(
        version="1.2.3",
        size_px=(64, 32),
        photos=3,
        in_focus=0.25,
        model="tiny",
        stages=StageFigures(spent, spent, {"network": 1.0, "save": 1.0}, machine),
        run=this,
        other="/checkout",
        turns=3,
        ratios=ratios([this], [figures(25, load=1.5)]),
    )
    lines = report.to_text().splitlines()
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["load"][1:6] == ["1.00", "s", "1.00", "s", "2.00"]
    assert rows["network"][-1] == "25.0%"
    assert "save" not in rows
    assert rows["all"][1:5] == ["5.00", "s", "5.00", "s"]
    assert any(line.split()[:3] == ["whole", "run", "0.500"] for line in lines)
    again = json.loads(json.dumps(report.to_dict()))
    assert again["stages"]["warm"]["network"] == {"wall_s": 4, "cpu_s": 5}


def test_another_checkout_must_be_one(tmp_path: Path) -> None:
    options = BenchmarkOptions((320, 192), 1, 0.5, compare=tmp_path)
    with pytest.raises(SettingsError, match="no folder dpbatch"):
        run_benchmark(options, SETTINGS)


@pytest.mark.slow
def test_stages_runs_and_memory_are_measured_and_compared() -> None:
    options = BenchmarkOptions((320, 192), 2, 0.5, compare=CHECKOUT, turns=2)
    report = run_benchmark(options, SETTINGS)
    assert set(report.stages.warm) == {
        "load", "develop", "blur map", "network", "rest of restoring", "save",
    }  # fmt: skip
    run = report.run
    assert run.later_s is not None
    assert run.first_s + run.later_s <= run.run_s
    assert 0 < sum(run.steps_s.values()) < run.run_s
    # One process holds torch, so this is neither zero nor a sum over many gigabytes.
    assert 0.1 < run.peak_memory_gib < 4
    assert report.stages.floor_s["network"] > 0
    same = {ratio.name: ratio for ratio in report.ratios}
    assert 0.2 < same["processor time"].median < 5


@pytest.mark.slow
def test_a_run_that_fails_is_no_measurement() -> None:
    settings = Settings(restore=RestoreSettings(model="tiny", device="cuda:63", blur="disparity"))
    with pytest.raises(AbortError, match="63"):
        run_benchmark(BenchmarkOptions((320, 192), 1, 0.5), settings)
