"""The command line: what it accepts, what it answers, with which exit code, and what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dpbatch.batch.photo_stages import PhotoStages
from dpbatch.cli.main import main
from dpbatch.settings import OutputSettings, RawSettings, RestoreSettings, Settings
from dpbatch.types import Processes, RunOptions
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.weights import save_network
from tests.helpers.scenes import write_test_dpraw


def dpbatch(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of next to nothing."""
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    config = NetworkConfig(width=8, encoder=(1,), middle=1, decoder=(1,), shuffle=2, crop_px=64)
    save_network(LDPNet(config), path)
    return path


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    folder = tmp_path / "shoot"
    (folder / "day 1").mkdir(parents=True)
    write_test_dpraw(folder / "IMG_1.CR2", 96, 128)
    write_test_dpraw(folder / "day 1" / "IMG_2.CR2", 96, 128, seed=2)
    whole = (folder / "IMG_1.CR2").read_bytes()
    (folder / "cut.CR2").write_bytes(whole[: len(whole) // 2])
    (folder / "old.CRW").write_bytes(b"II\x1a\0\0\0HEAPCCDR" + bytes(50))
    return folder


def test_a_shoot_is_restored_and_told_in_numbers_that_add_up(
    shoot: Path, tmp_path: Path, weights: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["run", shoot, "--out", out, "--model", weights, "--device", "cpu"]
    ran = dpbatch(*arguments)
    assert ran.exit_code == 1, ran.output
    for row in ("inputs         4", "done           2", "skipped        1", "failed         1"):
        assert row in ran.output
    assert "1 raw frame, expected 2" in ran.output
    assert "cut.CR2: " in ran.output
    assert (out / "IMG_1.tif").exists()
    assert (out / "day 1" / "IMG_2.tif").exists()

    again = dpbatch(*arguments, "--exclude", "cut*", "--json-log")
    assert again.exit_code == 0
    printed = [json.loads(line) for line in again.stdout.splitlines()]
    assert sorted(photo["code"] for photo in printed[:-1]) == [
        "already-done",
        "already-done",
        "not-dual-pixel",
    ]
    assert printed[-1] == {
        "event": "end",
        "inputs": 3,
        "done": 0,
        "skipped": 3,
        "failed": 0,
        "would_run": 0,
        "networks": {},
        "aborted": "",
        "interrupted": False,
        "exit_code": 0,
    }


@pytest.mark.usefixtures("inline")
def test_split_writes_both_views(shoot: Path, tmp_path: Path) -> None:
    ran = dpbatch("split", shoot, "--out", tmp_path / "out", "--exclude", "cut*", "--quiet")
    assert ran.exit_code == 0, ran.output
    written = sorted(path.name for path in (tmp_path / "out").rglob("*.tif"))
    assert written == ["IMG_1_L.tif", "IMG_1_R.tif", "IMG_2_L.tif", "IMG_2_R.tif"]


def test_inspect_describes_what_it_can_read_and_names_the_rest(shoot: Path) -> None:
    ran = dpbatch("inspect", shoot, "--json")
    assert ran.exit_code == 1
    files = {described["file"]: described for described in json.loads(ran.stdout)}
    assert {name: file["is_dual_pixel"] for name, file in files.items()} == {
        "IMG_1.CR2": True,
        "IMG_2.CR2": True,
        "old.CRW": False,
    }
    assert "cut.CR2" in ran.stderr
    as_text = dpbatch("inspect", shoot / "IMG_1.CR2")
    assert as_text.exit_code == 0
    assert "IMG_1.CR2" in as_text.stdout


def test_presets_are_listed_and_shown() -> None:
    listed = dpbatch("presets").output
    assert "archive" in listed
    assert "web" in listed
    assert "bit_depth = 8" in dpbatch("presets", "web").output
    assert dpbatch("presets", "none-such").exit_code == 2


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunOptions, Settings]]:
    """What the command line hands to a run, which then does nothing."""
    calls: list[tuple[RunOptions, Settings]] = []

    def fake_run(options: RunOptions, settings: Settings, *_: Any, **__: Any) -> int:
        calls.append((options, settings))
        return 0

    monkeypatch.setattr("dpbatch.batch.run.run", fake_run)
    monkeypatch.setattr("dpbatch.engine.processes.core_count", lambda: 2)
    return calls


def test_beside_a_gpu_many_cores_find_ahead_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def fake_run(
        options: RunOptions, _: Settings, stages: PhotoStages, *__: Any, **___: Any
    ) -> int:
        found.append((options.processes, stages.finds_ahead))
        return 0

    monkeypatch.setattr("dpbatch.batch.run.run", fake_run)
    for cores in (2, 16):
        monkeypatch.setattr("dpbatch.engine.processes.core_count", lambda cores=cores: cores)
        assert dpbatch("run", "in", "--out", "out", "--device", "cuda").exit_code == 0
    (few, few_ahead), (many, many_ahead) = found
    assert (few, few_ahead) == (Processes(), False)
    assert (many.photos_at_restorer, many.finds_ahead, many_ahead) == (2, True, True)


def test_without_flags_everything_is_at_its_default(
    captured: list[tuple[RunOptions, Settings]],
) -> None:
    assert dpbatch("split", "in", "--out", "out").exit_code == 0
    assert captured == [(RunOptions((Path("in"),), Path("out"), pairs=False), Settings())]


def test_a_quality_may_be_in_capitals(captured: list[tuple[RunOptions, Settings]]) -> None:
    for quality in ("BEST", "best"):
        ran = dpbatch("run", "in", "--out", "out", "--quality", quality)
        assert ran.exit_code == 0, ran.output
    assert captured[0] == captured[1]


def test_flags_override_the_preset_that_overrides_the_defaults(
    captured: list[tuple[RunOptions, Settings]], tmp_path: Path, weights: Path
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text(
        "[raw]\nswap = true\nshading = false\n[output]\nbit_depth = 8\nlayers = ['blur']\n"
    )
    flags = ["--preset", preset, "--no-swap", "--layers", " disparity, blur,", "--format", "PNG"]
    flags += ["--model", weights, "--tile", 512, "--device", "cuda:1", "--template", "{stem}"]
    flags += ["--include", "*.CR2", "--include", "*.CR3", "--exclude", "x*", "--no-recursive"]
    flags += ["--overwrite", "--retry-failed", "--max-errors", 3, "--jobs", 2, "--dry-run"]
    flags += ["--time-limit", 2.5, "--wait-for-space", 0]
    flags += ["--look", "neutral", "--exposure", -0.5, "--white-balance", "2,1,1.5"]
    ran = dpbatch("run", "a", "b", "-o", "out", *flags)
    assert ran.exit_code == 0, ran.output
    settings = Settings(
        RawSettings(swap=False, shading=False, white_balance="2,1,1.5"),
        RestoreSettings(model=str(weights), device="cuda:1", tile=512, blur="disparity"),
        OutputSettings("png", 8, "{stem}", ("disparity", "blur"), look="neutral", exposure=-0.5),
    )
    options = RunOptions(
        (Path("a"), Path("b")),
        Path("out"),
        recursive=False,
        include=("*.CR2", "*.CR3"),
        exclude=("x*",),
        overwrite=True,
        retry_failed=True,
        max_errors=3,
        processes=Processes(2),
        step_limit_s=150,
        wait_for_space_s=0,
        dry_run=True,
    )
    assert captured == [(options, settings)]


def test_fail_fast_stops_at_the_first_failure(
    captured: list[tuple[RunOptions, Settings]],
) -> None:
    dpbatch("split", "in", "--out", "out", "--fail-fast")
    assert captured[0][0].max_errors == 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--format", "webp"], 2, "format 'webp': expected one of tif, png, jpg"),
        (["--layer-format", "jpg"], 2, "layer_format 'jpg': expected one of tif, png"),
        (["--jpeg-quality", "0"], 2, "0 is not in the range"),
        (["--template", "{stem:>9999999999}"], 2, "too wide for a file name"),
        (["--bit-depth", "12"], 2, "'12' is not one of"),
        (["--layers", "sky"], 2, "layers 'sky': expected one of depth, blur"),
        (["--device", "gpu"], 2, "device 'gpu': expected auto, cpu, cuda or cuda:N"),
        (["--template", "{name}"], 2, "known fields are"),
        (["--preset", "none-such"], 2, "shipped are archive"),
        (["--max-errors", "0"], 2, "0 is not in the range"),
        (["--exposure", "nan"], 2, "'nan' is not a finite number"),
        (["--exposure", "20"], 2, "20.0 is not in the range -10<=x<=10"),
        (["--white-balance", "1,2"], 2, "expected camera, auto, daylight, or gains R,G,B"),
        (["--white-balance", "1e30,1,1"], 2, "each 0.01 to 100"),
        (["--white-balance", "1e-30,1,1"], 2, "each 0.01 to 100"),
        (["--jobs", "99999999999"], 2, "99999999999 is not in the range"),
        (["--time-limit", "nan"], 2, "'nan' is not a finite number"),
        (["--wait-for-space", "inf"], 2, "'inf' is not a finite number"),
        (["--gpus-per-actor", "NaN"], 2, "'NaN' is not a finite number"),
        (["--model", "none-such"], 2, "no such network and no such file"),
        (["--model", "single"], 2, "use --ordinary single --single-weights single"),
        (["--template", "{root}"], 2, "taken twice"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_photo(
    shoot: Path, tmp_path: Path, weights: Path, flags: list[str], code: int, message: str
) -> None:
    ran = dpbatch("run", shoot, "--out", tmp_path / "out", "--model", weights, *flags)
    assert (ran.exit_code, message in ran.output) == (code, True), ran.output
    assert "Traceback" not in ran.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "shoot", "--out", "out", "--model", "none-such"],
        ["demo", "--out", "out", "--model", "none-such"],
        ["benchmark", "--model", "none-such"],
        ["models", "describe", "none-such"],
    ],
)
def test_a_network_that_does_not_exist_is_wrong_usage(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = dpbatch(*arguments)
    assert (ran.exit_code, "no such network and no such file" in ran.output) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "size", ["0x0", "8192", "63x64", "8192x99999999999999", "-8x8", "66x64", "3824x64", "64x640"]
)
def test_a_size_that_no_raw_has_is_wrong_usage(size: str) -> None:
    ran = dpbatch("benchmark", "--size", size)
    assert (ran.exit_code, f"size {size}: " in ran.output) == (2, True), ran.output


@pytest.mark.usefixtures("inline")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_with_the_name_of_a_raw_file_is_refused_and_the_others_done(
    shoot: Path, tmp_path: Path
) -> None:
    os.mkfifo(shoot / "pipe.CR2")
    (shoot / "zero.CR2").symlink_to("/dev/zero")
    ran = dpbatch("split", shoot, "--out", tmp_path / "out", "--exclude", "cut*")
    assert ran.exit_code == 1
    assert "done           2" in ran.output
    assert "failed         2" in ran.output
    for name, kind in (("pipe", "a pipe"), ("zero", "a folder or a device")):
        path = shoot / f"{name}.CR2"
        assert f"failed: {path}: cannot be read: not a file but {kind} [load]\n" in ran.output
    inspected = dpbatch("inspect", shoot / "pipe.CR2", shoot / "zero.CR2")
    assert inspected.exit_code == 1
    assert "failed: pipe.CR2: not a file but a pipe\n" in inspected.output
    assert "failed: zero.CR2: not a file but a folder or a device\n" in inspected.output


@pytest.mark.usefixtures("inline")
def test_results_and_layers_in_other_formats(shoot: Path, tmp_path: Path, weights: Path) -> None:
    flags = ["--format", "JPEG", "--layers", "blur, disparity", "--layer-format", "PNG"]
    photo, out = shoot / "IMG_1.CR2", tmp_path / "out"
    ran = dpbatch("run", photo, "--out", out, "--model", weights, "--device", "cpu", *flags)
    assert ran.exit_code == 0, ran.output
    written = {path.name: path.read_bytes()[:4] for path in out.glob("*.*") if path.is_file()}
    assert written == {
        "IMG_1.jpg": b"\xff\xd8\xff\xe0",
        "IMG_1.blur.png": b"\x89PNG",
        "IMG_1.disparity.png": b"\x89PNG",
    }


@pytest.mark.usefixtures("inline")
def test_split_writes_tiff_whatever_a_preset_says(shoot: Path, tmp_path: Path) -> None:
    """A JPEG or PNG in a file called .tif would not be read as a pair."""
    photo, out = shoot / "IMG_1.CR2", tmp_path / "out"
    assert dpbatch("split", photo, "--out", out, "--preset", "web").exit_code == 0
    assert (out / "IMG_1_L.tif").read_bytes()[:4] == b"II*\0"


def test_nothing_to_do_is_said(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = ["--out", tmp_path / "out", "--model", weights]
    empty = dpbatch("run", tmp_path / "empty", *run)
    assert (empty.exit_code, "no raw files" in empty.output) == (3, True)
    missing = dpbatch("run", tmp_path / "missing", *run)
    assert (missing.exit_code, "no such file or folder" in missing.output) == (2, True)
    assert dpbatch("run", "--out", "x").exit_code == 2
    assert dpbatch("inspect", tmp_path / "empty").exit_code == 3


def test_an_unwritable_output_folder_is_said(shoot: Path, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "file").touch()
    ran = dpbatch("run", shoot, "--out", tmp_path / "file" / "out", "--model", weights)
    assert (ran.exit_code, "cannot be written" in ran.output) == (3, True)


def test_a_device_that_is_not_there_is_said(shoot: Path, tmp_path: Path, weights: Path) -> None:
    flags = ["--model", weights, "--device", "cuda:63"]
    ran = dpbatch("run", shoot / "IMG_1.CR2", "--out", tmp_path / "out", *flags)
    assert ran.exit_code == 3
    assert "CUDA devices" in ran.output
    assert "; use --device cpu\n" in ran.output


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_on_a_terminal_there_is_a_bar(shoot: Path, tmp_path: Path) -> None:
    import pty

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "dpbatch", "split", str(shoot), "--out", str(tmp_path / "o")]
    process = subprocess.Popen(command, stdout=child, stderr=child)
    os.close(child)
    printed = b""
    try:
        while block := os.read(parent, 4096):
            printed += block
    except OSError:
        pass  # how a pseudo terminal ends
    os.close(parent)
    assert process.wait() == 1
    assert b"3/3" in printed
    assert b"photos/min, 1 failed" in printed
    assert b"IMG_1.CR2 ->" not in printed
