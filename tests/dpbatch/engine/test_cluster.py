"""Which engine a run takes, and what is found wrong with a node before the first photo."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dpbatch.engine import cluster
from dpbatch.engine.cluster import Needs, choose, found_from_anywhere, gpu_count, node_check
from dpbatch.errors import AbortError, SettingsError
from dpbatch.settings import Settings
from dpbatch.types import ClusterOptions

HERE = ClusterOptions()
THERE = ClusterOptions(address="10.0.0.1:6379")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Ray, without a GPU, on which no cluster is named."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def no_note(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("engine", "options", "gpus", "device", "is_ray"),
    [
        ("auto", HERE, "", "auto", False),
        ("auto", HERE, "0", "auto", False),
        ("auto", HERE, "0,1", "auto", True),
        ("auto", HERE, "0,1", "cuda:1", False),
        ("auto", HERE, "0,1", "cpu", False),
        ("auto", THERE, "", "auto", True),
        ("auto", ClusterOptions(cpu_actors=2), "", "auto", True),
        ("local", HERE, "0,1", "auto", False),
        ("ray", HERE, "", "auto", True),
    ],
)
def test_ray_is_for_clusters_and_several_gpus(
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    options: ClusterOptions,
    gpus: str,
    device: str,
    is_ray: bool,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert choose(engine, options, device, no_note) == (options if is_ray else None)


def test_a_submitted_job_takes_the_cluster_that_it_was_submitted_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose("auto", HERE, "auto", no_note) == HERE
    assert choose("local", HERE, "auto", no_note) is None


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for engine, options in (("ray", HERE), ("auto", THERE)):
        with pytest.raises(SettingsError, match=r"pip install 'ray\[default\]'"):
            choose(engine, options, "auto", no_note)
    assert choose("auto", HERE, "auto", no_note) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    notes: list[str] = []
    assert choose("auto", HERE, "auto", notes.append) is None
    assert "3 GPUs, and one will be used" in notes[0]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="--engine ray"):
        choose("local", THERE, "auto", no_note)
    with pytest.raises(SettingsError, match="ray job submit"):
        choose("auto", ClusterOptions(address="ray://head:10001"), "auto", no_note)
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(SettingsError, match="--gpus-per-actor"):
            ClusterOptions(gpus_per_actor=share)


def test_gpus_are_counted_by_their_device_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(cluster, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_count() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-8f2")
    assert gpu_count() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpu_count() == 0


def test_weights_are_named_so_that_every_node_finds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = Settings()
    assert found_from_anywhere(shipped) == shipped
    own = replace(shipped, restore=replace(shipped.restore, model="own.safetensors"))
    assert found_from_anywhere(own).restore.model == str(tmp_path / "own.safetensors")


def problem(needs: Needs, meanwhile: Callable[[], object]) -> str:
    """What a node says on which something has happened since the driver looked."""
    with node_check(needs) as check:
        meanwhile()
        return check()


def test_a_node_that_sees_what_the_driver_sees_is_fit(tmp_path: Path) -> None:
    shoot, out, photo = tmp_path / "shoot", tmp_path / "out", tmp_path / "shoot" / "a.CR2"
    shoot.mkdir()
    photo.write_bytes(b"raw")
    needs = Needs((shoot, photo), out, "tiny")
    assert problem(needs, lambda: None) == ""
    assert list((out / ".dpbatch").iterdir()) == []  # the probe has left nothing


def test_what_a_node_lacks_is_named_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, out = tmp_path / "a.CR2", tmp_path / "out"
    photo.write_bytes(b"raw")
    needs = Needs((photo,), out)
    said = problem(needs, lambda: photo.write_bytes(b"another"))
    assert "sees another file" in said
    assert str(photo) in said
    said = problem(needs, photo.unlink)
    assert f"cannot read the input {photo}" in said
    photo.write_bytes(b"raw")
    said = problem(needs, lambda: (out / ".dpbatch").rename(tmp_path / "elsewhere"))
    assert f"does not see the driver's output folder {out}" in said
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(
        (Path(cluster.__file__).parents[2] / "ldp/weights/tiny.safetensors").read_bytes()
    )
    needs = Needs((), out, str(weights))
    assert f"other weights than the driver for {weights}" in problem(
        needs, lambda: weights.write_bytes(b"others")
    )
    assert str(weights) in problem(needs, weights.unlink)
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with node_check(Needs((), out)) as check:
        monkeypatch.setattr(cluster, "__version__", "0.0.2")
        assert "has dpbatch 0.0.2, the driver 0.0.1" in check()


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with node_check(Needs((), tmp_path / "out")) as check:
        monkeypatch.setattr(cluster.tempfile, "TemporaryFile", refuse)
        assert check() == (f"cannot write the output folder {tmp_path / 'out'}: Permission denied")
    (tmp_path / "file").touch()
    with pytest.raises(AbortError, match="file"), node_check(Needs((), tmp_path / "file" / "out")):
        pass


def test_ray_is_imported_only_where_it_is_the_engine(tmp_path: Path) -> None:
    tests = "\n".join(
        [
            "import sys",
            "from dpbatch.cli.main import main",
            "for arguments in (['--help'], ['run', sys.argv[1], '-o', sys.argv[1], '--dry-run']):",
            "    try:",
            "        main(arguments)",
            "    except SystemExit:",
            "        pass",
            "assert not {'ray', 'dpbatch.engine.ray.engine'} & set(sys.modules)",
            "import dpbatch.batch.run, dpbatch.engine.local",
            "assert not {'ray', 'dpbatch.engine.ray.engine'} & set(sys.modules)",
        ]
    )
    (tmp_path / "a_L.tif").touch()
    (tmp_path / "a_R.tif").touch()
    subprocess.run([sys.executable, "-c", tests, str(tmp_path)], check=True, capture_output=True)
