"""Runs whose inputs or outputs, or both, are in a bucket: what holds for folders holds there."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from dpbatch.batch.journal import Record, read_history
from dpbatch.batch.status import read_status
from dpbatch.cli.main import main
from dpbatch.errors import AbortError
from dpbatch.location import RemotePath
from dpbatch.storage import store
from dpbatch.storage.choose import output_folder
from dpbatch.types import ClusterOptions
from ldp.models.network import LDPNet, NetworkConfig
from ldp.models.weights import save_network
from tests.helpers.s3_server import S3Server, put_folder, remote, stored
from tests.helpers.scenes import write_test_dpraw
from tests.helpers.toy_runs import (
    REPOSITORY,
    RESULTS,
    go,
    start_toy_run,
    visible,
    wait_for,
)
from tests.helpers.toy_stages import CopyStages

pytestmark = pytest.mark.slow  # processes are started


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where photos are fetched to."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def put_pair(shoot: RemotePath, name: str, content: str) -> None:
    store.write(shoot / f"{name}_L.tif", content.encode())
    store.write(shoot / f"{name}_R.tif", b"right")


def results(out: RemotePath) -> dict[str, bytes]:
    """The results; and nothing else is left beside them and the journal."""
    left = [path for path in store.files_below(out / ".dpbatch") if "journal-" not in path.name]
    assert left == []
    return stored(str(out))


def journal_of(out: RemotePath) -> list[tuple[str, str]]:
    history = read_history(output_folder(out).log())
    return [(line.status, line.target) for line in history if isinstance(line, Record)]


def test_photos_of_a_bucket_are_done_once(
    shoot: RemotePath, out: RemotePath, scratch: Path, server: S3Server
) -> None:
    ran = go(shoot, out)
    assert (ran.code, ran.codes) == (0, {"a": "done", "b": "done"})
    assert results(out) == RESULTS
    assert ran.photos["b"]["input"].startswith("s3://bucket-")
    assert ran.photos["b"]["output"] == f"{out}/day 1/b.tif"
    assert list(scratch.iterdir()) == []
    server.forget()
    again = go(shoot, out)
    assert (again.code, again.codes) == (0, {"a": "already-done", "b": "already-done"})
    assert not [path for _, path in server.asked if path.endswith("_L.tif")]  # nothing fetched


@pytest.mark.usefixtures("inline")
def test_from_a_bucket_to_a_folder_and_back(
    shoot: RemotePath, out: RemotePath, local: Path, tmp_path: Path
) -> None:
    for given, to in ((shoot, tmp_path / "out"), (local, out)):
        assert go(given, to).codes == {"a": "done", "b": "done"}
        assert go(given, to).codes == {"a": "already-done", "b": "already-done"}
    assert visible(tmp_path / "out") == results(out) == RESULTS


@pytest.mark.usefixtures("inline")
def test_what_is_new_changed_or_lost_is_done_and_only_that(
    shoot: RemotePath, out: RemotePath
) -> None:
    put_pair(shoot, "lost", "pixels of lost")
    put_pair(shoot, "edited", "pixels of edited")
    go(shoot, out)
    put_pair(shoot, "new", "pixels of new")
    put_pair(shoot, "a", "pixels of A")  # as many bytes as before
    store.remove(out / "lost.tif")
    store.write(out / "edited.tif", b"retouched by hand")
    assert go(shoot, out).codes == {
        "a": "done",
        "b": "already-done",
        "edited": "already-done",
        "lost": "done",
        "new": "done",
    }
    other = CopyStages(fingerprint="second")
    assert go(shoot, out, other).codes["edited"] == "target-changed"
    assert results(out)["edited.tif"] == b"retouched by hand"
    assert results(out)["a.tif"] == b"A fo slexip"


@pytest.mark.usefixtures("inline")
def test_failures_name_the_url_and_an_ordinary_raw_is_fetched_once(
    shoot: RemotePath, out: RemotePath, server: S3Server, scratch: Path
) -> None:
    put_pair(shoot, "broken", "load:damaged")
    put_pair(shoot, "ordinary", "load:ordinary")
    put_pair(shoot, "unwritable", "save:damaged")
    store.write(out / "a.tif", b"somebody else's")
    first = go(shoot, out)
    assert first.codes == {
        "a": "target-exists",
        "b": "done",
        "broken": "damaged",
        "ordinary": "not-dual-pixel",
        "unwritable": "damaged",
    }
    assert f"{shoot}/broken_L.tif + {shoot}/broken_R.tif: half of it" in first.text
    assert str(scratch) not in first.text
    assert list(scratch.iterdir()) == []
    assert results(out) == {**RESULTS, "a.tif": b"somebody else's"}
    server.forget()
    second = go(shoot, out)
    assert second.codes == first.codes | {"b": "already-done"}
    fetched = {path.rpartition("/")[2] for method, path in server.asked if method == "GET"}
    assert "broken_L.tif" in fetched
    assert not {"ordinary_L.tif", "b_L.tif"} & fetched


@pytest.mark.usefixtures("inline")
def test_a_full_scratch_disk_is_told_as_such(
    shoot: RemotePath, out: RemotePath, scratch: Path
) -> None:
    put_pair(shoot, "0", "save:full")
    ran = go(shoot, out, wait_for_space_s=0.0)
    assert (ran.code, ran.codes["0"]) == (3, "disk-full")
    assert f"{scratch}: no space left" in ran.text
    assert "TMPDIR" in ran.text


def written(state: Path) -> int:
    """The photos that a run going on has done, by its journal on this disk."""
    return sum(path.read_text().count('"done"') for path in state.rglob("journal-*.jsonl"))


def kill(process: subprocess.Popen[str]) -> None:
    children = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_after_kill_9_another_machine_goes_on_where_the_run_ended(
    shoot: RemotePath,
    out: RemotePath,
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(10):
        put_pair(shoot, f"{number:02}", f"pixels of {number:02}")
    process = start_toy_run(shoot, out, save_s=0.3)
    wait_for(lambda: written(tmp_path / "state") >= 2 and list(scratch.iterdir()), timeout_s=120)

    with pytest.raises(AbortError, match=rf"another dpbatch .*process {process.pid} on "):
        go(shoot, out)

    kill(process)
    done = sum(status == "done" for status, _ in journal_of(out))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other machine"))
    rest = go(shoot, out)
    assert rest.code == 0
    assert Counter(rest.codes.values()) == {"already-done": done, "done": 12 - done}
    expected = {f"{number:02}.tif": f"pixels of {number:02}"[::-1] for number in range(10)}
    assert results(out) == RESULTS | {name: text.encode() for name, text in expected.items()}
    lines = Counter(line for line in journal_of(out) if line[0] == "done")
    assert set(lines.values()) == {1}
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("inline")
def test_the_status_is_told_from_the_bucket(shoot: RemotePath, out: RemotePath) -> None:
    put_pair(shoot, "broken", "load:damaged")
    with pytest.raises(AbortError, match=f"^{out}/.*no journal"):
        read_status(out)
    with output_folder(out).hold():
        assert read_status(out).running
    go(shoot, out)
    status = read_status(out)
    assert (status.folder, status.running) == (str(out), False)
    assert status.latest_run is not None
    assert (status.latest_run.state, status.latest_run.done) == ("ended", 2)
    assert [failure.source for failure in status.latest_run.failures] == [f"{shoot}/broken_L.tif"]


@pytest.mark.usefixtures("inline")
def test_a_photo_whose_layer_alone_was_stored_is_done_by_the_next_run(
    shoot: RemotePath, out: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, move = CopyStages(suffixes=(".tif", ".blur.tif")), store.move

    def move_layers(path: RemotePath, target: RemotePath) -> None:
        if target.name == "a.tif":
            raise OSError(errno.EIO, "the store is down")
        move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(store, "move", move_layers)
        assert go(shoot, out, stages).codes == {"a": "output", "b": "done"}
    assert set(results(out)) == {"a.blur.tif", "day 1/b.tif", "day 1/b.blur.tif"}
    assert go(shoot, out, stages).codes == {"a": "done", "b": "already-done"}
    assert results(out)["a.tif"] == RESULTS["a.tif"]


@pytest.mark.usefixtures("inline")
def test_half_stored_files_of_a_killed_run_are_removed(shoot: RemotePath, out: RemotePath) -> None:
    store.write(out / ".dpbatch" / "uploading" / "0badf00d" / "1.tif", b"half")
    go(shoot, out)
    assert results(out) == RESULTS


def test_a_cluster_works_from_bucket_to_bucket(
    shoot: RemotePath, out: RemotePath, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # a socket's path must be short
    put_pair(shoot, "broken", "load:damaged")
    cluster = ClusterOptions(cpu_actors=1)
    ran = go(shoot, out, cluster=cluster)
    assert ran.codes == {"a": "done", "b": "done", "broken": "damaged"}, ran.text
    assert results(out) == RESULTS
    assert not list(scratch.glob("dpbatch-*"))
    assert go(shoot, out).codes == {"a": "already-done", "b": "already-done", "broken": "damaged"}


def test_twenty_photos_from_bucket_to_bucket_with_layers_and_one_failing_upload(
    bucket: str, server: S3Server, tmp_path: Path, scratch: Path
) -> None:
    config = NetworkConfig(width=8, encoder=(1,), middle=1, decoder=(1,), shuffle=2, crop_px=64)
    save_network(LDPNet(config), tmp_path / "toy.safetensors")
    for number in range(20):
        photo = tmp_path / "shoot" / f"day {number % 2}" / f"IMG_{number:02}.CR2"
        photo.parent.mkdir(parents=True, exist_ok=True)
        write_test_dpraw(photo, 64, 96, seed=number)
    put_folder(tmp_path / "shoot", f"{bucket}/shoot")
    options = ["--layers", "blur,disparity", "--model", str(tmp_path / "toy.safetensors")]

    def run(*arguments: str) -> str:
        ran = CliRunner().invoke(main, ["run", *arguments, *options, "--device", "cpu"])
        assert ran.exit_code == 0, ran.output
        return ran.output

    run(str(tmp_path / "shoot"), "--out", str(tmp_path / "out"))
    server.forget()
    server.fail_once("PUT", "uploading/")
    assert "done          20" in run(f"{bucket}/shoot", "--out", f"{bucket}/out")
    assert len(server.failed) == 1

    expected = visible(tmp_path / "out")
    got = results(remote(f"{bucket}/out"))
    assert len(got) == 60  # of each photo the picture and two layers
    assert got == expected
    assert list(scratch.iterdir()) == []
    assert "already-done: 20" in run(f"{bucket}/shoot", "--out", f"{bucket}/out")
