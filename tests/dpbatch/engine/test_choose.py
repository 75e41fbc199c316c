"""Which engine a run takes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dpbatch.engine.choose import choose, gpu_count, uses_gpu
from dpbatch.errors import SettingsError
from dpbatch.types import ClusterOptions

HERE = ClusterOptions()
THERE = ClusterOptions(address="10.0.0.1:6379")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Ray, without a GPU, on which no cluster is named."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def no_warning(text: str) -> None:
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
    assert choose(engine, options, device, no_warning) == (options if is_ray else None)


def test_a_submitted_job_takes_the_cluster_that_it_was_submitted_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose("auto", HERE, "auto", no_warning) == HERE
    assert choose("local", HERE, "auto", no_warning) is None


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for engine, options in (("ray", HERE), ("auto", THERE)):
        with pytest.raises(SettingsError, match=r"pip install 'ray\[default\]'"):
            choose(engine, options, "auto", no_warning)
    assert choose("auto", HERE, "auto", no_warning) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    warnings: list[str] = []
    assert choose("auto", HERE, "auto", warnings.append) is None
    assert "3 GPUs found, one will be used" in warnings[0]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="--engine ray"):
        choose("local", THERE, "auto", no_warning)
    with pytest.raises(SettingsError, match="ray job submit"):
        choose("auto", ClusterOptions(address="ray://head:10001"), "auto", no_warning)
    for share in (0.0, -1.0, 1.5, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="--gpus-per-actor"):
            ClusterOptions(gpus_per_actor=share)


def test_gpus_are_counted_by_their_device_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr("dpbatch.engine.choose._DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_count() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-8f2")
    assert gpu_count() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpu_count() == 0


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


@pytest.mark.parametrize(
    ("device", "cluster", "gpus", "expected"),
    [
        ("auto", None, "", False),
        ("auto", None, "0", True),
        ("cpu", None, "0", False),
        ("cuda:1", None, "", True),
        ("auto", HERE, "", False),
        ("auto", HERE, "0,1", True),
        ("auto", THERE, "", True),
        ("auto", ClusterOptions(address="10.0.0.1:6379", cpu_actors=2), "0", False),
    ],
)
def test_where_photos_are_restored_is_known_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    cluster: ClusterOptions | None,
    gpus: str,
    expected: bool,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert uses_gpu(device, cluster) is expected
