"""A dry run finds out whether the run could work and what it would cost, and writes nothing."""

from __future__ import annotations

import io
import json
from collections import namedtuple
from pathlib import Path

import pytest

from dpbatch.batch.dry_run import Measure
from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.batch.progress import Reporter
from dpbatch.batch.run import run
from dpbatch.errors import DamagedError, SettingsError
from dpbatch.settings import RestoreSettings, Settings
from dpbatch.storage.choose import output_folder
from dpbatch.types import Cost, Job, Photo, Processes, RunOptions
from ldp.errors import WeightsError
from tests.helpers.scenes import write_test_dpraw
from tests.helpers.toy_runs import write_shoot
from tests.helpers.toy_stages import CopyStages

COST = Cost(load_s=3.0, restore_s=10.0, output_bytes=300_000_000, device="cpu")


def dry(shoot: Path, out: Path, measure: Measure | None, loaders: int = 1) -> tuple[int, str]:
    """The exit code and the messages of a dry run of toy stages."""
    messages = io.StringIO()
    options = RunOptions((shoot,), out, dry_run=True, processes=Processes(loaders))
    code = run(options, Settings(), CopyStages(), Reporter(messages), measure=measure)
    return code, messages.getvalue()


def raising(error: Exception) -> Measure:
    def measure(_: Job) -> Cost:
        raise error

    return measure


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    return write_shoot(tmp_path / "shoot")


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_time_and_room_are_those_of_all_photos(shoot: Path, tmp_path: Path) -> None:
    before = everything(tmp_path)
    code, text = dry(shoot, tmp_path / "out", lambda _: COST)
    assert code == 0
    assert "would take about 00:20 on cpu" in text
    assert "load 3.0 s, restore about 10.0 s" in text
    assert "write at most 0.60 GB" in text
    assert everything(tmp_path) == before


@pytest.mark.parametrize(("loaders", "total"), [(1, "00:24"), (4, "00:20")])
def test_more_loaders_help_until_restoring_is_the_slowest(
    shoot: Path, tmp_path: Path, loaders: int, total: str
) -> None:
    slow = Cost(load_s=12.0, restore_s=10.0, output_bytes=1, device="cuda:0")
    _, text = dry(shoot, tmp_path / "out", lambda _: slow, loaders)
    assert f"would take about {total} on cuda:0" in text


def test_the_log_for_programs_has_the_cost(shoot: Path, tmp_path: Path) -> None:
    log = io.StringIO()
    options = RunOptions((shoot,), tmp_path / "out", dry_run=True)
    run(options, Settings(), CopyStages(), Reporter(io.StringIO(), log), measure=lambda _: COST)
    (cost,) = [
        line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == "cost"
    ]
    assert (cost["photos"], cost["total_s"], cost["output_bytes"]) == (2, 20.0, 600_000_000)


@pytest.mark.parametrize(
    "error", [SettingsError("device 'cuda:7': 0 CUDA devices"), WeightsError("w: damaged")]
)
def test_a_device_or_weights_that_cannot_be_used_are_a_problem(
    shoot: Path, tmp_path: Path, error: Exception
) -> None:
    code, text = dry(shoot, tmp_path / "out", raising(error))
    assert code == 3
    assert f"problem: {error}" in text


def test_photos_that_cannot_be_loaded_leave_the_cost_open(shoot: Path, tmp_path: Path) -> None:
    code, text = dry(shoot, tmp_path / "out", raising(DamagedError("a: cut short")))
    assert code == 0
    assert "cost: not measured" in text


def test_too_little_room_is_a_problem(
    shoot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 500_000_000))
    code, text = dry(shoot, tmp_path / "out", lambda _: COST)
    assert code == 3
    assert "0.6 GB may be written, 0.5 GB are free" in text


def test_an_output_folder_that_cannot_be_written_is_a_problem(
    shoot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def refuse(dir: Path) -> None:
        asked.append(dir)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    code, text = dry(shoot, tmp_path / "not" / "yet", None)
    assert code == 3
    assert "yet: the output folder cannot be written: Permission denied" in text
    assert asked == [tmp_path]


def test_a_folder_that_another_run_holds_is_a_problem(shoot: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out).hold():
        code, text = dry(shoot, out, None)
    assert code == 3
    assert "another dpbatch is writing there" in text


def test_the_cost_of_a_real_photo_is_measured_on_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.CR2"
    write_test_dpraw(path, 256, 384)
    monkeypatch.setattr("dpbatch.batch.photo_stages._MEASURED_PX", 128)
    stages = PhotoStages(Settings(restore=RestoreSettings(model="tiny")), "hash")
    job = Job("a.tif", "a.CR2", Photo("raw", (path,), "a"), (tmp_path / "a.tif",))
    cost = stages.measure(job)
    assert cost.output_bytes == 256 * 384 * 6
    assert cost.device == "cpu" or cost.device.startswith("cuda")
    assert cost.load_s > 0
    assert cost.restore_s > 0
    assert list(tmp_path.iterdir()) == [path]
