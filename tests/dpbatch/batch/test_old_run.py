"""A run that an earlier release made is resumed: what is done is not done again.

`old_run` holds what release 0.1 at commit 2ef215b left: two photos done, and one that failed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from dpbatch.batch.journal import read_past
from dpbatch.batch.status import read_status
from dpbatch.cli.main import main
from dpbatch.storage import store
from dpbatch.storage.local import LocalFolder
from dpbatch.storage.remote import RemoteFolder
from tests.helpers.s3_server import remote

OLD_RUN = Path(__file__).parent / "old_run"


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in another folder and with new times of modification: photos were moved."""
    shutil.copytree(OLD_RUN, tmp_path / "copy", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def run(*options: str) -> str:
    arguments = ["run", "shoot", "--out", "out", "--model", "toy.safetensors", "--device", "cpu"]
    return CliRunner().invoke(main, [*arguments, *options]).output


@pytest.mark.usefixtures("old_run")
def test_what_is_done_is_not_done_again_and_what_failed_is_tried() -> None:
    output = run("--dry-run")
    assert "done-by-earlier-release: 2" in output
    assert "failed: shoot/broken.CR2" in output


def test_a_second_run_leaves_the_results_as_they_are(old_run: Path) -> None:
    results = [old_run / "out" / "a.tif", old_run / "out" / "day 1" / "b.tif"]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in results]
    assert "done-by-earlier-release: 2" in run("--exclude", "broken*")
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in results] == before
    journal = (old_run / "out" / ".dpbatch" / "journal.jsonl").read_text()
    assert journal.startswith((OLD_RUN / "out" / ".dpbatch" / "journal.jsonl").read_text())


def test_other_settings_do_it_again_unless_somebody_has_changed_it(old_run: Path) -> None:
    past = read_past(LocalFolder(old_run / "out").log())
    for target in ("a.tif", "day 1/b.tif"):
        (output,) = past[target].last.outputs
        os.utime(old_run / "out" / target, ns=(output.mtime_ns, output.mtime_ns))
    tifffile.imwrite(old_run / "out" / "a.tif", np.zeros((64, 64, 3), np.uint16))
    text = run("--dry-run", "--bit-depth", "8", "--exclude", "broken*")
    assert "would run: shoot/day 1/b.CR2 -> out/day 1/b.tif" in text
    assert "target-changed: 1" in text


def test_its_status_is_read(old_run: Path) -> None:
    run_of_old = read_status(old_run / "out").latest_run
    assert run_of_old is not None
    assert (run_of_old.state, run_of_old.done, run_of_old.failed) == ("ended", 2, 1)


def test_a_journal_that_it_stored_in_a_bucket_is_read() -> None:
    out = remote("memory://old/out")
    content = (OLD_RUN / "out" / ".dpbatch" / "journal.jsonl").read_bytes()
    middle = content.index(b'{"status": "done"')
    store.write(out / ".dpbatch" / "journal-000002-0badf00d.jsonl", content[middle:])
    store.write(out / ".dpbatch" / "journal-000001-cafecafe.jsonl", content[:middle])
    past = read_past(RemoteFolder(out).log())
    assert {target: known.last.status for target, known in past.items()} == {
        "a.tif": "done",
        "broken.tif": "failed",
        "day 1/b.tif": "done",
    }
