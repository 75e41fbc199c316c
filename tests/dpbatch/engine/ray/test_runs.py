"""Whole runs on Ray: compared with the local engine, interrupted, measured, on two hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from dpbatch.types import Status
from tests.helpers.ray_helpers import (
    ENVIRONMENT,
    LONGEST_S,
    count_done,
    one_node,
    records,
    start_ray_run,
)
from tests.helpers.scenes import write_test_dpraw
from tests.helpers.toy_runs import wait_for, write_pair
from tests.helpers.toy_stages import Toy, ToyStages

ray = pytest.importorskip("ray")

from dpbatch.engine.ray.engine import RayEngine  # noqa: E402
from dpbatch.types import ClusterOptions  # noqa: E402

pytestmark = pytest.mark.slow


def dpbatch(
    *arguments: object,
    before: tuple[str, ...] = (),
    code: int | None = None,
    environment: Mapping[str, str] = {},
) -> str:
    """Run the command and return its output.

    before: prefix of the command. code: the expected exit code, None for 0 or 1.
    """
    command = [*before, sys.executable, "-m", "dpbatch", *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in ((0, 1) if code is None else (code,)), done.stdout + done.stderr
    return done.stdout + done.stderr


def has_started(log: Path) -> bool:
    return "runtime started" in log.read_text()


def write_shoot(folder: Path, photos: int) -> None:
    """Small Dual Pixel RAW files; one of them is cut short, and one has lost its second frame."""
    folder.mkdir()
    for number in range(photos):
        write_test_dpraw(folder / f"IMG_{number:02}.CR2", 64, 96, seed=number)
    whole = (folder / "IMG_07.CR2").read_bytes()
    (folder / "IMG_07.CR2").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "IMG_11.CR2").write_bytes(b"")


def journal_of(out: Path) -> dict[str, tuple[Any, ...]]:
    """The last word on every target, less what differs from run to run."""
    names = ("status", "stage", "code", "message", "inputs", "fingerprint")
    return {record["target"]: tuple(record.get(name) for name in names) for record in records(out)}


def test_both_engines_give_the_same_pixels_and_outcomes(tmp_path: Path) -> None:
    shoot = tmp_path / "shoot"
    write_shoot(shoot, 16)
    # The last bit of a sum depends on the number of threads: as many as each of two actors has.
    threads = str(max(1, (os.cpu_count() or 1) // 2))
    local = ("run", shoot, "--out", tmp_path / "local", "--engine", "local")
    dpbatch(*local, environment={"OMP_NUM_THREADS": threads})
    output = dpbatch("run", shoot, "--out", tmp_path / "ray", "--cpu-actors", 2)
    assert journal_of(tmp_path / "ray") == journal_of(tmp_path / "local")
    statuses = Counter(record[0] for record in journal_of(tmp_path / "ray").values())
    assert statuses == {"done": 14, "failed": 2}
    pictures = sorted((tmp_path / "local").glob("*.tif"))
    assert len(pictures) == 14
    for picture in pictures:
        ours, theirs = (
            tifffile.imread(path) for path in (picture, tmp_path / "ray" / picture.name)
        )
        assert np.array_equal(ours, theirs)
    assert "raylet" not in output  # Ray's own words are in the log


def test_an_interrupted_run_finishes_its_files_and_a_killed_one_goes_on(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        write_pair(shoot, name)
    driver = start_ray_run(shoot, out, "", actors=2, save_s=0.3)
    wait_for(lambda: count_done(out) >= 3, driver, LONGEST_S)
    family = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert not psutil.wait_procs(family, timeout=20)[1]
    pictures = [path for path in out.iterdir() if path.is_file()]
    assert 3 <= len(pictures) == count_done(out) < len(names)
    assert all(path.read_bytes().endswith(b"slexip") for path in pictures)

    driver = start_ray_run(shoot, out, "", actors=2, save_s=0.3)
    wait_for(lambda: count_done(out) >= len(pictures) + 3, driver, LONGEST_S)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.communicate()
    raylets = [process for process in family if "raylet" in process.name()]
    assert not psutil.wait_procs(raylets, timeout=30)[1]

    driver = start_ray_run(shoot, out, "", actors=2, save_s=0.0)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, said
    done = Counter(record["target"] for record in records(out) if record["status"] == "done")
    assert done == Counter(f"{name}.tif" for name in names)
    assert {path.name for path in out.iterdir() if path.is_file()} == set(done)


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    for number in range(6):
        write_pair(shoot, str(number))
    driver = start_ray_run(shoot, out, "", actors=2, save_s=120.0)
    wait_for(lambda: list(out.rglob(".*.tif")), driver, LONGEST_S)
    family = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(driver.pid, signal.SIGINT)
    driver.communicate(timeout=60)  # a save would take twice as long
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert count_done(out) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Sixteen processors on paper, and metrics that need not be waited for."""
    with one_node(16, _system_config={"metrics_report_interval_ms": 500}):
        yield


@pytest.mark.usefixtures("cluster")
def test_eight_actors_are_kept_busy_and_prometheus_can_watch(tmp_path: Path) -> None:
    """A network that takes 2 s, as loading and saving take their time too."""
    pytest.importorskip("prometheus_client")
    actors, restore_s, photos, first = 8, 2.0, 100, 40
    seconds = {"load": 0.5, "restore": restore_s, "save": 0.2}
    busy: list[list[float]] = []
    engine = RayEngine(
        ToyStages(seconds=seconds),
        ClusterOptions(cpu_actors=actors),
        on_busy=lambda shares: busy.append(list(shares)),
    )
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ended_s: list[float] = []
    for job, outcome in engine.run([Toy(str(n), folder=tmp_path) for n in range(first + photos)]):
        assert outcome.status is Status.DONE, job
        ended_s.append(time.monotonic())
        if len(ended_s) == photos:
            with urllib.request.urlopen(url, timeout=10) as answer:
                metrics = answer.read().decode()
    # Once all processes are up, and until the queue is empty: what the actors did of what they
    # could have done.
    begin, end = first - 1, first + photos - actors - 1
    share = (end - begin) * restore_s / (actors * (ended_s[end] - ended_s[begin]))
    print(f"actors are {100 * share:.1f} % busy")  # noqa: T201
    # 0.95 where nothing else runs: a figure to read, since no test asserts a time. Actors that wait
    # for each other, or for the driver, would be far below this.
    assert share > 0.5
    assert len(busy[-1]) == actors
    assert all(0 < one <= 1 for one in busy[-1])
    for name in ("photos_total", "step_seconds_sum", "in_flight", "actors", "actor_busy"):
        assert f"ray_dpbatch_{name}{{" in metrics


@pytest.mark.usefixtures("cluster")
def test_the_drivers_memory_does_not_grow_with_the_queue(tmp_path: Path) -> None:
    process, rss, taken, most = psutil.Process(), {}, 0, 0

    def jobs() -> Iterator[Toy]:
        nonlocal taken
        for number in range(5000):
            taken += 1
            yield Toy(str(number), "load:damaged", folder=tmp_path)

    for ended, _ in enumerate(RayEngine(ToyStages(), ClusterOptions(cpu_actors=1)).run(jobs()), 1):
        most = max(most, taken - ended)
        if ended in (200, 5000):
            rss[ended] = process.memory_info().rss
    assert most <= 2 + 16 + 1  # twice the actors, and a load for each processor
    print(f"driver {rss[200] >> 20} MiB after 200, {rss[5000] >> 20} MiB after 5000")  # noqa: T201
    assert rss[5000] - rss[200] < 16 << 20


def in_namespace(host: int) -> tuple[str, ...]:
    return ("ip", "netns", "exec", f"dpbatch{os.getpid()}-{host}")


@pytest.fixture
def two_hosts() -> Iterator[None]:
    """Two network name spaces with a wire between them: each has addresses and ports of its own."""
    pid = os.getpid()
    names = [f"dpbatch{pid}-{host}" for host in (1, 2)]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(
        f"ip link add dpb{pid}a netns {names[0]} type veth peer dpb{pid}b netns {names[1]}"
    )
    for host, (name, end) in enumerate(zip(names, "ab", strict=True), 1):
        commands += [
            f"ip -n {name} addr add 10.77.0.{host}/24 dev dpb{pid}{end}",
            f"ip -n {name} link set dpb{pid}{end} up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for command in commands:
            try:
                subprocess.run(command.split(), check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("network name spaces need Linux and root")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.usefixtures("two_hosts")
def test_a_worker_host_does_the_heads_photos(tmp_path: Path) -> None:
    shoot, out = tmp_path / "shoot", tmp_path / "out"
    write_shoot(shoot, 12)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}  # as the README has it
    environment = {**os.environ, **ENVIRONMENT, **token}
    script = str(Path(sys.executable).with_name("ray"))
    head = ["--head", "--port=6400", "--num-cpus=0", "--node-ip-address=10.77.0.1"]
    worker = ["--address=10.77.0.1:6400", "--num-cpus=2", "--node-ip-address=10.77.0.2"]
    hosts: list[subprocess.Popen[str]] = []
    try:
        for host, arguments in ((1, head), (2, worker)):
            log = tmp_path / f"host{host}.log"
            with log.open("w") as stream:
                hosts.append(
                    subprocess.Popen(
                        [*in_namespace(host), script, "start", "--block", *arguments],
                        env=environment,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                )
            wait_for(partial(has_started, log), hosts[-1], LONGEST_S)
        two = ("--cpu-actors", 2, "--address", "10.77.0.1:6400")
        command = ("run", shoot, "--out", out, *two)
        said = dpbatch(*command, before=in_namespace(1), environment=token)
        assert count_done(out) == 10, said
        # The head has no processor: all was done by the host that shares only the folder with it.
        again = dpbatch(*command, before=in_namespace(1), environment=token)
        assert "already done" in again
        # A folder of this name that the other host has not: known before the first photo.
        own_disk = tmp_path / "own disk"
        own_disk.mkdir()
        mounted = f"mount -t tmpfs none '{own_disk}' && exec \"$@\""
        alone = (*in_namespace(1), "unshare", "--mount", "sh", "-c", mounted, "sh")
        command = ("run", shoot, "--out", own_disk / "out", *two)
        refused = dpbatch(*command, before=alone, code=3, environment=token)
        assert "does not see the driver's output folder" in refused
    finally:
        for process in reversed(hosts):
            process.terminate()
            process.wait(30)
